"""Several models of a stage that predict together."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cascade.case import Runner
from cascade.checkpoint import Model, load_stage_models, save_model
from cascade.engine import pick_engine
from cascade.settings import as_table
from cascade.stages import LIVER
from cascade.unet import UNet3d
from preprocess.errors import ModelError
from preprocess.preparation import Preparation


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
