import json
import pickle
import struct
from dataclasses import asdict, replace

import pytest
import torch
from safetensors.torch import save_file

from cascade.checkpoint import Model, load_model, save_model
from cascade.settings import as_table
from cascade.stages import LIVER, TUMOR
from cascade.unet import UNet3d, unet
from preprocess.errors import ModelError
from preprocess.preparation import Preparation


@pytest.fixture
def model(tiny_settings):
    torch.manual_seed(0)
    return Model(
        stage=LIVER,
        settings=tiny_settings["liver"].for_prediction,
        recipe=as_table(tiny_settings["liver"]),
        preparation=Preparation((3.0, 2.0, 1.5), (-160.0, 240.0)),
        weights=UNet3d((4, 8), 1).state_dict(),
        scores={"steps": 7, "held_out": [{"liver": 0.5}]},
        trained_on=("aa", "bb"),
        chosen_on=("cc",),
    )


def header_of(path):
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(json.loads(raw[8 : 8 + length])["__metadata__"]["cascade"])


def with_header(path, model, **changes):
    header = {**header_of(path), "format": 1, **changes}
    save_file({k: v.contiguous() for k, v in model.weights.items()}, path, {"cascade": json.dumps(header)})
    return path


def test_a_model_file_says_by_itself_what_it_is(model, tmp_path):
    path = tmp_path / "m.safetensors"
    save_model(path, model)
    read = load_model(path, LIVER)
    assert read.settings == model.settings
    assert read.recipe["training"] == {"steps": 4, "validations": 2, "seed": 1, "teacher_share": 0.5}
    assert read.preparation == Preparation((3.0, 2.0, 1.5), (-160.0, 240.0))
    assert read.scores == {"steps": 7, "held_out": [{"liver": 0.5}]}
    assert (read.trained_on, read.chosen_on) == (("aa", "bb"), ("cc",))
    assert len(read.sha256) == 64
    assert all(torch.equal(weight, model.weights[name].half()) for name, weight in read.weights.items())
    x = torch.ones(1, 1, 4, 6, 8)
    torch.testing.assert_close(read.network()(x), model.network()(x), rtol=1e-2, atol=1e-2)


def test_the_other_stage_is_refused(model, tmp_path):
    save_model(tmp_path / "m", model)
    with pytest.raises(ModelError, match="stage is 'liver', needed is 'tumor'"):
        load_model(tmp_path / "m", TUMOR)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 3}, "format 3 is newer than 2: update cascade"),
        ({"format": 2}, "the checksum is missing"),
        ({"regions": ["spleen"]}, "regions are"),
        ({"settings": {}}, "is missing"),
        ({"preparation": {"spacing_mm": [3, 3]}}, "header is damaged"),
    ],
)
def test_a_header_that_does_not_fit_is_named(model, tmp_path, changes, message):
    save_model(tmp_path / "m", model)
    with pytest.raises(ModelError, match=message):
        load_model(with_header(tmp_path / "m", model, **changes), LIVER)


def test_weights_of_another_architecture_are_named(model, tmp_path):
    save_model(tmp_path / "m", model)
    settings = header_of(tmp_path / "m")["settings"]
    settings["network"] = {"features": [4, 16], "stem": 1}
    with pytest.raises(ModelError, match=r"network.features = \(4, 16\)"):
        load_model(with_header(tmp_path / "m", model, settings=settings), LIVER)


class Bomb:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (open, (self.canary, "w"))


def test_a_pickle_is_refused_and_does_not_run(tmp_path):
    canary, path = tmp_path / "ran", tmp_path / "m.pt"
    path.write_bytes(pickle.dumps(Bomb(str(canary))))
    with pytest.raises(ModelError, match="pickle"):
        load_model(path, LIVER)
    torch.save({"a": torch.ones(1)}, path)
    with pytest.raises(ModelError, match="pickle"):
        load_model(path, LIVER)
    assert not canary.exists()


def test_damaged_files_are_refused(model, tmp_path):
    path = tmp_path / "m"
    save_model(path, model)
    whole = path.read_bytes()
    for content in (b"", whole[:100], whole[:-10], struct.pack("<Q", 2**60) + whole[8:]):
        path.write_bytes(content)
        with pytest.raises(ModelError, match="not a whole safetensors file"):
            load_model(path, LIVER)
    save_file({"x": torch.ones(2)}, path)
    with pytest.raises(ModelError, match="not one of cascade's models"):
        load_model(path, LIVER)
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(tmp_path / "absent", LIVER)


def test_a_model_of_a_version_with_other_training_settings_is_usable(model, tmp_path):
    save_model(tmp_path / "m", model)
    settings = header_of(tmp_path / "m")["settings"]
    del settings["augmentation"]["noise"]
    settings["training"]["a_later_key"] = 1
    assert load_model(with_header(tmp_path / "m", model, settings=settings), LIVER).settings == model.settings


def test_a_model_from_before_there_were_encoders_is_plain(model, tmp_path):
    save_model(tmp_path / "m", model)
    settings = header_of(tmp_path / "m")["settings"]
    del settings["network"]["encoder"], settings["network"]["blocks"]
    read = load_model(with_header(tmp_path / "m", model, settings=settings), LIVER)
    assert (read.settings.network.encoder, read.settings.network.blocks) == ("plain", 1)


def test_a_model_with_a_residual_encoder_is_read_back(model, tmp_path):
    described = replace(model.settings.network, encoder="residual", blocks=2)
    network = unet(described, 1)
    settings = replace(model.settings, network=described)
    recipe = {**model.recipe, "network": asdict(described)}
    save_model(tmp_path / "m", replace(model, settings=settings, recipe=recipe, weights=network.state_dict()))
    read = load_model(tmp_path / "m", LIVER)
    x = torch.ones(1, 1, 4, 6, 8)
    torch.testing.assert_close(read.network()(x), network(x), rtol=1e-2, atol=1e-2)
    plain = replace(read, settings=model.settings)
    with pytest.raises(ModelError, match=r"weights do not fit network.features = .*, encoder plain"):
        plain.network()
