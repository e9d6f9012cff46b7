import json

import pytest

from cascade.demo import FOLD, MARK, TUMORS, make_cohort, run_demo, run_training_demo
from preprocess.errors import UsageError
from preprocess.io import read_labels, read_scan
from preprocess.layouts import find_cases


def test_the_cohort_is_a_dataset_that_prepare_takes(tmp_path):
    table = make_cohort(tmp_path / "cohort", {7: 1, 8: 0})
    cases = find_cases(table)
    assert [case.name for case in cases] == ["phantom-07", "phantom-08"]
    assert [case.patient for case in cases] == ["phantom-07", "phantom-08"]
    volume = read_scan(cases[0].image).volume
    labels = read_labels(cases[0].label.path, like=volume.grid)
    assert 900 < labels.ml(1) < 2300
    assert labels.ml(2) > 0
    assert read_labels(cases[1].label.path).ml(2) == 0


def test_a_folder_that_is_not_an_earlier_demo_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("three years of work")
    with pytest.raises(UsageError, match="not empty and not an earlier demo"):
        run_demo(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "three years of work"


def test_the_installed_models_find_liver_and_tumours_of_the_demo(tmp_path):
    run_demo(tmp_path)
    (row,) = json.loads((tmp_path / "scores" / "summary.json").read_text())["cases"]
    assert row["case"] == "phantom-21"
    assert row["liver_dice"] > 0.85
    assert row["tumor_dice"] > 0.5
    assert (tmp_path / "results" / "phantom-21" / "stage1_liver.nii.gz").is_file()


@pytest.mark.slow
def test_the_demo_reaches_its_scores_on_held_out_cases(tmp_path):
    (tmp_path / MARK).write_text("")
    (tmp_path / "old").mkdir()
    run_training_demo(tmp_path)
    assert not (tmp_path / "old").exists()
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    held_out = [row for row in report["cases"] if row["held_out"]]
    assert len(held_out) == len(TUMORS) // int(FOLD.split("/")[1])
    assert all(TUMORS[int(row["case"][-2:])] > 0 for row in held_out)  # none scores 1 for being empty
    assert report["mean"]["held_out"]["merged_liver_dice"] >= 0.90
    assert report["mean"]["held_out"]["merged_tumor_dice"] >= 0.60
