"""The models in the package: whole, of the right stage, described, and used when no other is given."""

import json
import shutil
from pathlib import Path

import pytest

import cascade.shipped
from cascade.checkpoint import load_stage_models
from cascade.shipped import model_card, shipped_models, shipped_path
from preprocess.errors import ModelError

MEGABYTES = 20


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the installed models that a test may break."""
    shutil.copytree(shipped_path("liver").parent, tmp_path / "models")
    monkeypatch.setattr(cascade.shipped, "_FOLDER", tmp_path / "models")
    return tmp_path / "models"


@pytest.mark.parametrize("stage", ["liver", "tumor"])
def test_without_a_path_the_installed_model_is_loaded(stage):
    (model,) = load_stage_models(None, stage)
    assert model.stage.name == stage
    assert model.sha256 == model_card()["models"][stage]["sha256"]


def test_the_installed_files_are_those_of_the_card_and_small():
    models = shipped_models()
    assert [model.stage for model in models] == ["liver", "tumor"]
    assert all(model.intact for model in models)
    assert sum(model.path.stat().st_size for model in models) < MEGABYTES * 2**20


def test_an_exchanged_file_is_noticed(copied):
    shutil.copy(copied / "liver.safetensors", copied / "tumor.safetensors")
    assert [model.intact for model in shipped_models()] == [True, False]


def test_a_missing_model_is_named_with_the_remedy(copied):
    (copied / "tumor.safetensors").unlink()
    with pytest.raises(ModelError, match=r"tumor\.safetensors is missing: .*--tumor FILE"):
        load_stage_models(None, "tumor")


def test_a_damaged_card_is_an_error_of_one_line(copied):
    (copied / "card.json").write_text("{")
    with pytest.raises(ModelError, match=r"card\.json cannot be read"):
        model_card()


def test_the_card_holds_no_content_of_a_scan_but_its_public_name():
    card = json.loads(Path(shipped_path("liver").parent / "card.json").read_text("utf-8"))
    assert {"models", "scores", "convention", "trained_on", "licence", "use"} <= set(card)
    assert all(0 <= row["liver_dice"] <= 1 for row in card["scores"]["cases"])
