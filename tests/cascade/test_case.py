"""Several models of a stage that predict together."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from cascade.case import Runner, load_runner
from cascade.checkpoint import Model, load_model, load_stage_models, save_model
from cascade.cli import run_command
from cascade.engine import learned_mirrored, mirroring, pick_engine
from cascade.settings import as_table
from cascade.stages import LIVER
from cascade.unet import UNet3d
from preprocess.errors import ModelError, UsageError
from preprocess.preparation import Preparation
from tests.made_training import model_at, scan_at


@pytest.fixture
def folds(tiny_settings, tmp_path):
    """A folder of two folds: one says 0.5 everywhere, the other nearly 1."""
    for k, bias in enumerate((0.0, 20.0)):
        network = UNet3d((4, 8), 1)
        torch.nn.init.zeros_(network.head.weight)
        torch.nn.init.constant_(network.head.bias, bias)
        model = Model(
            stage=LIVER,
            settings=tiny_settings["liver"].for_prediction,
            recipe=as_table(tiny_settings["liver"]),
            preparation=Preparation((3.0, 3.0, 3.0), (-160.0, 240.0)),
            weights=network.state_dict(),
            scores={},
            trained_on=(f"scan {k}",),
            chosen_on=(f"other {k}",),
        )
        (tmp_path / f"fold-{k}").mkdir()
        save_model(tmp_path / f"fold-{k}" / "best.safetensors", model)
    return tmp_path


def test_the_models_of_a_folder_of_folds_are_averaged(folds):
    models = load_stage_models(folds, "liver")
    runner = Runner.of(models, None, pick_engine("cpu"))
    probability = runner.liver.infer(np.zeros((6, 10, 14), np.float32), None)
    np.testing.assert_allclose(probability, 0.75, atol=1e-6)
    assert probability.shape == (1, 6, 10, 14)
    assert runner.trained_on == {"scan 0", "scan 1"}
    assert runner.chosen_on == {"other 0", "other 1"}
    first = Runner.of(models[:1], None, pick_engine("cpu"))
    np.testing.assert_allclose(first.liver.infer(np.zeros((6, 10, 14), np.float32), None), 0.5)
    assert first.models == {"liver": models[0].sha256}
    assert runner.models["liver"] not in {model.sha256 for model in models}  # results of one are not those of both


def test_models_of_different_recipes_do_not_predict_together(folds):
    (model,) = load_stage_models(folds / "fold-1" / "best.safetensors", "liver")
    other = replace(model, preparation=Preparation((2.0, 3.0, 3.0), (-160.0, 240.0)))
    save_model(folds / "fold-1" / "best.safetensors", other)
    with pytest.raises(ModelError, match="its models differ in preparation or policy; train all folds with one recipe"):
        load_stage_models(folds, "liver")


def test_a_folder_without_folds_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"holds no fold-\*/best\.safetensors; give a model file or"):
        load_stage_models(tmp_path, "liver")


def learned(path, mirror_share):
    """The model of a file, as if trained with that share of mirrored patches; written back."""
    model = load_model(path, LIVER)
    recipe = {**model.recipe, "augmentation": {**model.recipe["augmentation"], "mirror_share": mirror_share}}
    save_model(path, replace(model, recipe=recipe))
    return load_model(path, LIVER)


def test_a_model_that_learned_mirrored_sees_both_ways_and_another_does_not(folds):
    def engine(model):
        def infer(image, where):
            """What stands in the first column, where it is to be looked at."""
            out = np.zeros((1, *image.shape), np.float32)
            out[0, :, :, 0] = image[:, :, 0] * where[:, :, 0]
            return out

        return infer

    image, where = np.zeros((2, 3, 4), np.float32), np.ones((2, 3, 4), bool)
    image[:, :, 0], image[:, :, -1], where[1, :, -1] = 0.2, 0.8, False
    path = folds / "fold-0" / "best.safetensors"
    both = mirroring(engine)(learned(path, 0.5))(image, where)
    np.testing.assert_allclose(both[0, :, 1], [[0.1, 0, 0, 0.4], [0.1, 0, 0, 0]], rtol=1e-6)
    once = mirroring(engine)(learned(path, 0.0))(image, where)
    np.testing.assert_allclose(once[0, :, 1], [[0.2, 0, 0, 0]] * 2, rtol=1e-6)


def test_a_result_of_both_ways_is_not_that_of_one(folds):
    path = folds / "fold-0" / "best.safetensors"
    model = learned(path, 0.5)
    runner = load_runner(path, None, "cpu", liver_only=True, mirror=True)
    assert runner.models == {"liver": model.sha256, "mirrored": "liver"}
    learned(path, 0.0)
    with pytest.raises(UsageError, match="--mirror: no model has learned from mirrored images"):
        load_runner(path, None, "cpu", liver_only=True, mirror=True)


def test_a_model_from_before_there_were_mirrors_has_not_learned_them(folds):
    model = learned(folds / "fold-0" / "best.safetensors", 0.5)
    assert learned_mirrored(model)
    assert not learned_mirrored(replace(model, recipe={**model.recipe, "augmentation": {"noise": 0.1}}))
    assert not learned_mirrored(replace(model, recipe={}))


def test_the_option_reaches_the_models(tmp_path):
    scan = scan_at(tmp_path / "a.nii")
    models = [f"--{name}={model_at(tmp_path / name, name)}" for name in ("liver", "tumor")]
    assert run_command(["run", str(scan), "-o", str(tmp_path / "out"), *models, "--mirror"]) == 0
    assert json.loads((tmp_path / "out" / "a" / "report.json").read_text())["models"]["mirrored"] == "tumor"
