"""`cascade tune` and ensembles of folds, from the command line to the model files."""

import gzip
import hashlib
import json
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from cascade.checkpoint import load_model, load_stage_models, save_model
from cascade.cli import run_command
from cascade.settings import load_settings
from cascade.stages import STAGES
from preprocess.io import read_scan
from preprocess.layouts import read_label
from preprocess.volume import content_id
from tests.made_training import model_at, scan_at

#: What the models below begin with.
RECIPE = load_settings("tumor", (), ()).policy
#: Stage 2 of these folds says tumour with 0.5 and nearly nowhere.
TUMOR_BIAS = (0.0, -9.0)


def dataset_at(folder, tumor_label="expert"):
    """Three patients whose whole scan is liver; half of it is tumour."""
    folder.mkdir()
    rows = ["case,image,label,patient,tumor_label"]
    for k, name in enumerate("abc"):
        image = sitk.GetArrayFromImage(sitk.ReadImage(str(scan_at(folder / f"{name}.nii", value=100 + k))))
        labels = np.ones(image.shape, np.uint8)
        labels[:6] = 2
        mask = sitk.GetImageFromArray(labels)
        mask.SetSpacing((2.0, 2.0, 5.0))
        sitk.WriteImage(mask, str(folder / f"{name}-label.nii"))
        rows.append(f"{name},{name}.nii,{name}-label.nii,p{name},{tumor_label}")
    (folder / "cases.csv").write_text("\n".join(rows) + "\n")
    return folder / "cases.csv"


def content(source, name):
    return content_id(read_scan(source.parent / f"{name}.nii").volume)


def folds_at(folder, stage, seen, bias=TUMOR_BIAS):
    """A folder as of a training with --folds: model k has learned from the scans of the content ids `seen[k]`."""
    for k, contents in enumerate(seen):
        path = folder / f"fold-{k}" / "best.safetensors"
        path.parent.mkdir(parents=True)
        model_at(path, stage, (9.0, bias[k % len(bias)]))
        save_model(path, replace(load_model(path, STAGES[stage]), trained_on=tuple(contents)))
    return folder


@pytest.fixture
def source(tmp_path):
    return dataset_at(tmp_path / "set")


@pytest.fixture
def folds(source, tmp_path):
    """Models of both stages: fold 0 has not seen a and b, fold 1 has not seen c."""
    a, b, c = (content(source, name) for name in "abc")
    return {stage: folds_at(tmp_path / stage, stage, [[c], [a, b]]) for stage in STAGES}


def options(folds):
    return [word for stage, folder in folds.items() for word in (f"--{stage}", str(folder))]


def test_the_chosen_thresholds_stand_in_models_that_can_be_used(source, folds, tmp_path, capsys):
    out = tmp_path / "tuned"
    assert run_command(["tune", str(source), "-o", str(out), *options(folds)]) == 0
    shown = capsys.readouterr().out
    # Fold 0 says 0.5: with the recipe's peak nothing is found, with at most 0.7 the whole liver; half is tumour.
    assert re.search(r"tumour Dice +0\.000 +0\.444 +0\.444\n", shown)
    assert f"  policy.tumor_peak {RECIPE.tumor_peak:g} -> 0.6\n" in shown
    assert f"--tumor {out}\n" in shown
    table = json.loads((out / "tune.json").read_text())
    assert [row["case"] for row in table["by_case"]] == ["a", "b", "c"]
    assert table["policy"]["chosen"]["tumor_peak"] == 0.6
    models, before = load_stage_models(out, "tumor"), load_stage_models(folds["tumor"], "tumor")
    assert len(models) == 2
    for new, old in zip(models, before, strict=True):
        policy = json.loads(json.dumps(asdict(new.settings.policy)))  # tuples are lists there
        assert policy == new.recipe["policy"] == table["policy"]["chosen"]
        assert all(torch.equal(new.weights[name], old.weights[name]) for name in old.weights)
        assert new.trained_on == old.trained_on
        assert new.chosen_on == tuple(sorted(content(source, name) for name in "abc"))
        assert new.scores["policy"]["patients"] == 3
        assert new.scores["policy"]["chosen"]["tumor_dice"] == pytest.approx(0.4444, abs=1e-3)
    # From now on these scans have been used to choose by.
    tuned = ["--liver", str(folds["liver"]), "--tumor", str(out)]
    assert run_command(["report", str(source), "-o", str(tmp_path / "report"), "--held-out", *tuned]) == 0
    assert "note: a model or its thresholds were chosen on a, b, c: slightly" in capsys.readouterr().out
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [case["held_out"] for case in report["cases"]] == [True] * 3
    assert {stage: len(set(hashes)) for stage, hashes in report["meta"]["models"].items()} == {"liver": 2, "tumor": 2}


def test_one_pair_is_tuned_on_what_it_has_not_seen(source, tmp_path, capsys):
    seen = [content(source, name) for name in "ab"]
    one = {stage: folds_at(tmp_path / stage, stage, [seen]) for stage in STAGES}
    out = tmp_path / "tuned"
    assert run_command(["tune", str(source), "-o", str(out), *options(one)]) == 0
    shown = capsys.readouterr().out
    assert [line for line in shown.splitlines() if line.endswith(": done")] == ["c: done"]
    assert "too few patients to say what the choice is worth to others: the scores flatter" in shown
    assert f"--tumor {out / 'tumor.safetensors'}\n" in shown
    model = load_model(out / "tumor.safetensors", STAGES["tumor"])
    assert model.chosen_on == (content(source, "c"),)
    assert "left_out" not in model.scores["policy"]


def test_unlabelled_tumours_leave_their_thresholds(tmp_path, capsys):
    source = dataset_at(tmp_path / "set", tumor_label="none")
    folds = {stage: folds_at(tmp_path / stage, stage, [["x"]]) for stage in STAGES}
    assert run_command(["tune", str(source), "-o", str(tmp_path / "tuned"), *options(folds)]) == 0
    shown = capsys.readouterr().out
    assert "no tumours are labelled: their thresholds stay as they were" in shown
    assert "note: for patients that they were not chosen on they are no better than the present ones" in shown
    assert f"policy.tumor_peak {RECIPE.tumor_peak:g}, as it was" in shown


def test_models_that_have_seen_everything_choose_nothing(source, tmp_path, capsys):
    seen = [content(source, name) for name in "abc"]
    one = {stage: folds_at(tmp_path / stage, stage, [seen]) for stage in STAGES}
    assert run_command(["tune", str(source), "-o", str(tmp_path / "tuned"), *options(one)]) == 3
    assert "the models have seen every labelled patient" in capsys.readouterr().err
    assert not (tmp_path / "tuned").exists()


def test_a_case_that_cannot_be_read_is_named_and_left_out(source, folds, tmp_path, capsys):
    (source.parent / "b.nii").write_bytes(b"no scan")
    assert run_command(["tune", str(source), "-o", str(tmp_path / "tuned"), *options(folds)]) == 6
    shown = capsys.readouterr()
    assert "b: FAILED: " in shown.out
    assert "1 of 3 cases failed: b" in shown.err
    for model in load_stage_models(tmp_path / "tuned", "tumor"):
        assert model.chosen_on == tuple(sorted(content(source, name) for name in "ac"))


def test_what_goes_wrong_in_one_case_does_not_cost_the_others(source, folds, tmp_path, capsys, monkeypatch):
    def read(case, grid):
        if case.name == "b":
            raise MemoryError
        return read_label(case, grid)

    monkeypatch.setattr("cascade.tune.read_label", read)
    assert run_command(["tune", str(source), "-o", str(tmp_path / "tuned"), *options(folds)]) == 6
    assert "b: FAILED: out of memory" in capsys.readouterr().out
    assert (tmp_path / "tuned" / "tune.json").exists()


def test_one_scan_with_two_labels_is_two_cases(source, folds, tmp_path, capsys):
    (source.parent / "twin.nii.gz").write_bytes(gzip.compress((source.parent / "a.nii").read_bytes()))
    row = source.read_text().splitlines()[1].replace("a,a.nii", "twin,twin.nii.gz", 1)
    source.write_text(f"{source.read_text().rstrip()}\n{row}\n")
    assert run_command(["tune", str(source), "-o", str(tmp_path / "tuned"), *options(folds)]) == 0
    tuned = json.loads((tmp_path / "tuned" / "tune.json").read_text())
    assert "twin" in json.dumps(tuned)
    assert '"a"' in json.dumps(tuned)


def test_a_folder_that_holds_models_is_left_alone(source, folds, capsys):
    # Models of an earlier choice, of more folds, would take part in the ensemble without a word.
    assert run_command(["tune", str(source), "-o", str(folds["tumor"]), *options(folds)]) == 2
    assert "holds models already; choose another -o" in capsys.readouterr().err


def test_models_with_different_thresholds_are_refused(source, folds, tmp_path, capsys):
    path = folds["tumor"] / "fold-1" / "best.safetensors"
    with_thresholds(path, 0.9)
    files = [f"--tumor={folds['tumor'] / f'fold-{k}' / 'best.safetensors'}" for k in (0, 1)]
    asked = ["tune", str(source), "-o", str(tmp_path / "tuned"), "--liver", str(folds["liver"]), *files]
    assert run_command(asked) == 4
    assert "the models of --tumor differ in preparation or policy; give models of one recipe" in capsys.readouterr().err


def test_several_models_of_a_fold_are_tuned_together(source, folds, tmp_path, capsys):
    # Fold 0 says tumour with 0.5, the other training of it with nearly 1, so both with 0.75 on a and b: the geometric
    # mean with a sure liver is 0.87, which the recipe's peak drops and 0.85 does not. Fold 1 says none of c.
    again = folds_at(tmp_path / "again", "tumor", [[content(source, "c")]], (9.0,))
    asked = ["tune", str(source), "-o", str(tmp_path / "tuned"), *options(folds), "--tumor", str(again)]
    assert run_command(asked) == 0
    table = json.loads((tmp_path / "tuned" / "tune.json").read_text())
    assert [row["present"]["tumor_dice"] for row in table["by_case"]] == [0, 0, 0]
    assert [row["chosen"]["tumor_dice"] for row in table["by_case"]] == pytest.approx([2 / 3, 2 / 3, 0], abs=1e-2)
    assert 0.6 < table["policy"]["chosen"]["tumor_peak"] <= 0.85
    assert len(load_stage_models(tmp_path / "tuned", "tumor")) == 3


def test_run_takes_folders_of_folds_as_ensembles(tmp_path, capsys):
    # Tumour with 0.5 in one fold and with nearly 1 in the other: 0.75 in the mean, whose geometric mean with the
    # liver is 0.87. Either model alone stays below or above 0.8.
    low, high = 0.0, 9.0
    source = scan_at(tmp_path / "case.nii")
    both = folds_at(tmp_path / "both", "tumor", [[], []], (low, high))
    tumor_ml = {}
    for name, tumor in (("mean", both), *((str(k), both / f"fold-{k}" / "best.safetensors") for k in (0, 1))):
        for model in both.glob("fold-*/best.safetensors"):
            with_thresholds(model, 0.8)
        out = ["-o", str(tmp_path / name), "--liver", str(folds_at(tmp_path / f"liver-{name}", "liver", [[], []]))]
        assert run_command(["run", str(source), *out, "--tumor", str(tumor)]) == 0
        report = json.loads((tmp_path / name / "case" / "report.json").read_text())
        tumor_ml[name] = report["tumor_ml"]
        each = [hashlib.sha256((both / f"fold-{k}" / "best.safetensors").read_bytes()).hexdigest() for k in (0, 1)]
        assert report["models"]["tumor"] == "+".join(each if name == "mean" else [each[int(name)]])
    assert tumor_ml["0"] == 0
    assert tumor_ml["mean"] == tumor_ml["1"] > 250
    # Once more: the result is known as that of these models.
    again = ["-o", str(tmp_path / "mean"), "--liver", str(tmp_path / "liver-mean"), "--tumor", str(both)]
    capsys.readouterr()
    assert run_command(["run", str(source), *again]) == 0
    assert "case: done before, skipped" in capsys.readouterr().out


def with_thresholds(path, value):
    model = load_model(path, STAGES["tumor"])
    policy = {**model.recipe["policy"], "tumor_threshold": value, "tumor_peak": value}
    save_model(path, replace(model, recipe={**model.recipe, "policy": policy}))
