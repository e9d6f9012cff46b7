"""The models in the package: whole, of the right stage, described, and used when no other is given."""

import json
import shutil

import pytest

import cascade.shipped
from cascade.checkpoint import load_stage_models
from cascade.settings import load_settings
from cascade.shipped import model_card, shipped_models, shipped_paths
from preprocess.errors import ModelError

MEGABYTES = 20


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the installed models that a test may break."""
    shutil.copytree(shipped_paths("liver")[0].parent, tmp_path / "models")
    monkeypatch.setattr(cascade.shipped, "_FOLDER", tmp_path / "models")
    return tmp_path / "models"


@pytest.mark.parametrize("stage", ["liver", "tumor"])
def test_without_a_path_the_installed_models_are_loaded(stage):
    models = load_stage_models(None, stage)
    assert {model.stage.name for model in models} == {stage}
    listed = [entry["sha256"] for name, entry in model_card()["models"].items() if name.startswith(stage)]
    assert [model.sha256 for model in models] == listed


@pytest.mark.parametrize("stage", ["liver", "tumor"])
def test_the_installed_models_decide_as_the_recipe_says(stage):
    """A policy may be changed in a file without a training, and then be forgotten in one of the two."""
    assert {model.settings.policy for model in load_stage_models(None, stage)} == {load_settings(stage).policy}


def test_the_installed_files_are_those_of_the_card_and_small():
    models = shipped_models()
    assert list(dict.fromkeys(model.stage for model in models)) == ["liver", "tumor"]
    assert sorted(model.path for model in models) == sorted(models[0].path.parent.glob("*.safetensors"))
    assert all(model.intact for model in models)
    assert sum(model.path.stat().st_size for model in models) < MEGABYTES * 2**20


def test_an_exchanged_file_is_noticed(copied):
    last = shipped_paths("tumor")[-1]
    shutil.copy(copied / "liver.safetensors", last)
    assert [model.path for model in shipped_models() if not model.intact] == [last]


def test_a_missing_model_is_named_with_the_remedy(copied):
    last = shipped_paths("tumor")[-1]
    last.unlink()
    with pytest.raises(ModelError, match=rf"{last.name} is missing: .*--tumor FILE"):
        load_stage_models(None, "tumor")


def test_several_installed_models_of_a_stage_predict_together(copied):
    card = json.loads((copied / "card.json").read_text())
    names = ["liver", *(f"liver-{k}" for k in (1, 2))]
    for name in names[1:]:
        shutil.copy(copied / "liver.safetensors", copied / f"{name}.safetensors")
    card["models"] |= dict.fromkeys(names, card["models"]["liver"])
    (copied / "card.json").write_text(json.dumps(card))
    assert len(load_stage_models(None, "liver")) == 3
    assert [model.path.stem for model in shipped_models() if model.stage == "liver"] == names


@pytest.mark.parametrize(
    ("card", "said"), [("{}", "has no list of models"), ('{"models": {"liver": {}}}', "lists no tumor model")]
)
def test_a_card_that_lists_no_models_is_an_error(copied, card, said):
    (copied / "card.json").write_text(card)
    with pytest.raises(ModelError, match=rf"card\.json {said}"):
        load_stage_models(None, "tumor")


def test_a_damaged_card_is_an_error_of_one_line(copied):
    (copied / "card.json").write_text("{")
    with pytest.raises(ModelError, match=r"card\.json cannot be read"):
        model_card()


def test_the_card_holds_no_content_of_a_scan_but_its_public_name():
    card = json.loads((shipped_paths("liver")[0].parent / "card.json").read_text("utf-8"))
    assert {"models", "scores", "convention", "trained_on", "licence", "use"} <= set(card)
    assert all(0 <= row["liver_dice"] <= 1 for row in card["scores"]["cases"])
