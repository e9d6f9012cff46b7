"""Which models of a panel run which patient."""

from dataclasses import replace

import numpy as np
import pytest

from cascade.checkpoint import load_model, save_model
from cascade.engine import pick_engine
from cascade.stages import STAGES
from cascade.unseen import Panel
from preprocess.errors import ModelError
from preprocess.preparation import Preparation
from tests.made_training import model_at

#: Logits of liver and tumour of the models below, so that each can be told from the others by what it says.
SAYS = {
    "liver-0": (1.0, 0.0),
    "liver-1": (2.0, 0.0),
    "tumor-0": (3.0, -1.0),
    "tumor-1": (4.0, -2.0),
    "tumor-2": (5.0, -3.0),
}
IMAGE = np.zeros((16, 16, 16), np.float32)


def model(folder, name, seen):
    stage = name.split("-")[0]
    path = folder / f"{name}.safetensors"
    model_at(path, stage, SAYS[name])
    save_model(path, replace(load_model(path, STAGES[stage]), trained_on=seen))
    return path


@pytest.fixture
def paths(tmp_path):
    """Of both stages a model that has learned from patient a, and one that has from b."""
    seen = {"0": ("a",), "1": ("b", "lits-1")}
    each = {name: model(tmp_path, name, seen[name[-1]]) for name in SAYS if name != "tumor-2"}
    return [[path for name, path in each.items() if name.startswith(stage)] for stage in ("liver", "tumor")]


@pytest.fixture
def panel(paths):
    return Panel.load(*paths, pick_engine("cpu"))


def mean(*logits):
    """The mean probability of models that say `logits` everywhere."""
    return pytest.approx(float(np.mean([1 / (1 + np.exp(-logit)) for logit in logits])), abs=5e-3)


def says(runner):
    """What stage 1 says of liver, and stage 2 of liver and tumour, in the middle of an empty image."""
    liver, tumor = runner.liver.infer(IMAGE, None), runner.tumor.infer(IMAGE, None)
    return [float(p[8, 8, 8]) for p in (liver[0], *tumor)]


@pytest.mark.parametrize(("known_by", "new"), [({"a", "c"}, 1), ({"b"}, 0), ({"lits-1", "c"}, 0)])
def test_a_patient_is_run_by_the_models_that_were_not_trained_on_it(panel, known_by, new):
    runner, held_out = panel.runner(known_by)
    assert held_out
    liver, tumor = SAYS[f"liver-{new}"], SAYS[f"tumor-{new}"]
    assert says(runner) == [mean(liver[0]), mean(tumor[0]), mean(tumor[1])]
    assert not runner.trained_on & known_by


def test_whom_all_models_are_new_to_all_of_them_run_together(panel):
    runner, held_out = panel.runner({"c"})
    assert held_out
    assert says(runner) == [mean(1, 2), mean(3, 4), mean(-1, -2)]


def test_whom_no_model_is_new_to_all_run_but_not_as_held_out(panel):
    runner, held_out = panel.runner({"a", "b"})
    assert not held_out
    assert says(runner) == [mean(1, 2), mean(3, 4), mean(-1, -2)]


def test_both_stages_must_be_new_to_a_patient(paths):
    livers, tumors = paths
    panel = Panel.load(livers[:1], tumors, pick_engine("cpu"))
    runner, held_out = panel.runner({"a"})
    assert not held_out
    assert says(runner) == [mean(1), mean(3, 4), mean(-1, -2)]
    assert panel.runner({"b"})[1]


def test_the_models_of_a_stage_need_not_be_as_many_as_of_the_other(paths, tmp_path):
    livers, tumors = paths
    third = model(tmp_path, "tumor-2", ("b",))
    runner, held_out = Panel.load(livers, [*tumors, third], pick_engine("cpu")).runner({"a"})
    assert held_out
    assert says(runner) == [mean(2), mean(4, 5), mean(-2, -3)]


def test_a_file_that_is_given_twice_counts_once(paths):
    livers, tumors = paths
    runner, _ = Panel.load(livers, [*tumors, tumors[0]], pick_engine("cpu")).runner({"c"})
    assert says(runner)[2] == mean(-1, -2)


def test_models_that_prepare_scans_in_different_ways_are_refused(paths):
    livers, tumors = paths
    other = load_model(livers[1], STAGES["liver"])
    save_model(livers[1], replace(other, preparation=Preparation((2.0, 3.0, 3.0), other.preparation.window_hu)))
    with pytest.raises(ModelError, match="the models of --liver differ in preparation or policy"):
        Panel.load(livers, tumors, pick_engine("cpu"))
