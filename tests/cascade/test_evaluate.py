"""`cascade evaluate` as a user runs it."""

import csv
import json

import numpy as np
import pytest
import SimpleITK as sitk

from cascade.cli import run_command


def write(path, tumor=(), liver=(slice(2, 8), slice(2, 9), slice(2, 10)), shape=(10, 12, 14), origin=(0.0, 0.0, 0.0)):
    """A mask file of 2 x 1.5 x 3 mm voxels (x, y, z): a box of liver with tumour voxels in it."""
    labels = np.zeros(shape, np.uint8)
    labels[liver] = 1
    for index in tumor:
        labels[index] = 2
    image = sitk.GetImageFromArray(labels)
    image.SetSpacing((2.0, 1.5, 3.0))
    image.SetOrigin(origin)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


@pytest.fixture
def cohort(tmp_path):
    """Two predictions of three cases; of `volume-3` nobody drew the tumours, and `volume-1` has none."""
    for i, tumor in ((1, ()), (2, [(4, 5, 5), (4, 5, 6)]), (3, ())):
        write(tmp_path / "truth" / f"segmentation-{i}.nii.gz", tumor)
        write(tmp_path / "first" / f"volume-{i}" / "segmentation.nii.gz", tumor)
        write(tmp_path / "second" / f"volume-{i}.nii.gz", [(4, 5, 5), (4, 5, 6)])
    (tmp_path / "cases.csv").write_text("case,patient,tumor_label\nvolume-1,p,\nvolume-2,q,\nvolume-3,q,none\n")
    return tmp_path


def evaluate(folder, predictions, *options):
    names = {"cases.csv", "second"}
    paths = [str(folder / option) if option in names else option for option in options]
    return run_command(
        ["evaluate", str(folder / predictions), str(folder / "truth"), "-o", str(folder / "out"), *paths]
    )


def rows_of(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_files_of_a_cohort(cohort, capsys):
    assert evaluate(cohort, "first") == 0
    files = {"index.html", "cases.csv", "lesions.csv", "summary.json", "tables.md", "tables.tex"}
    assert {file.name for file in (cohort / "out").iterdir()} >= files
    assert not (cohort / "out" / "versus.csv").exists()
    assert "Convention lits" in capsys.readouterr().out
    assert [row["tumor_dice"] for row in rows_of(cohort / "out" / "cases.csv")] == ["1.000000"] * 3


def test_which_side_is_the_truth_is_said(cohort, capsys):
    assert evaluate(cohort, "first") == 0
    assert capsys.readouterr().out.startswith(f"{cohort / 'first'}, scored by the truth {cohort / 'truth'}:\n")


def test_a_table_of_cases_tells_patients_and_what_is_scored(cohort):
    assert evaluate(cohort, "first", "--cases", "cases.csv") == 0
    rows = rows_of(cohort / "out" / "cases.csv")
    assert [(row["case"], row["patient"], row["tumor_dice"]) for row in rows] == [
        ("volume-1", "p", "1.000000"),
        ("volume-2", "q", "1.000000"),
        ("volume-3", "q", ""),
    ]
    summary = json.loads((cohort / "out" / "summary.json").read_text())
    assert (summary["n"], summary["n_patients"], summary["n_tumor_scored"]) == (3, 2, 2)


def test_the_convention_decides_what_an_empty_case_is_worth(cohort):
    for convention, dice in (("lits", "1.000000"), ("nnunet", "")):
        assert evaluate(cohort, "first", "--convention", convention) == 0
        assert rows_of(cohort / "out" / "cases.csv")[0]["tumor_dice"] == dice
        assert json.loads((cohort / "out" / "summary.json").read_text())["convention"] == convention
        # A false tumour where there is none scores 0 in both.
        assert evaluate(cohort, "second", "--convention", convention) == 0
        assert rows_of(cohort / "out" / "cases.csv")[0]["tumor_dice"] == "0.000000"


def test_versus_says_what_differs(cohort, capsys):
    assert evaluate(cohort, "first", "--versus", "second", "--cases", "cases.csv") == 0
    rows = rows_of(cohort / "out" / "versus.csv")
    assert [row["tumor_dice_difference"] for row in rows] == ["1.000000", "0.000000", ""]
    assert "tumour Dice less that of the other prediction: +0.500 [+0.000, +1.000], n = 2" in capsys.readouterr().out


def test_versus_of_two_files_needs_no_equal_names(cohort):
    mine, other = write(cohort / "mine.nii.gz"), write(cohort / "other.nii.gz")
    truth = str(cohort / "truth" / "segmentation-1.nii.gz")
    assert run_command(["evaluate", str(mine), truth, "-o", str(cohort / "out"), "--versus", str(other)]) == 0
    assert [row["case"] for row in rows_of(cohort / "out" / "versus.csv")] == ["mine"]


def test_versus_of_other_cases_is_refused(cohort, capsys):
    (cohort / "second" / "volume-3.nii.gz").unlink()
    assert evaluate(cohort, "first", "--versus", "second") == 3
    assert "no prediction of volume-3" in capsys.readouterr().err


def test_a_case_that_the_table_does_not_know_is_named(cohort, capsys):
    (cohort / "cases.csv").write_text("case,patient\nvolume-1,p\nvolume-2,q\n")
    assert evaluate(cohort, "first", "--cases", "cases.csv") == 3
    assert "has no row for case volume-3" in capsys.readouterr().err


def test_another_grid_is_refused_unless_meant(cohort, capsys):
    # The same liver in a truth that was cut to it: 2 voxels less on every side.
    whole = (slice(0, 6), slice(0, 7), slice(0, 8))
    write(cohort / "truth" / "segmentation-1.nii.gz", liver=whole, shape=(7, 9, 11), origin=(4.0, 3.0, 6.0))
    assert evaluate(cohort, "first") == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "case volume-1: prediction and truth have 10 x 12 x 14 and 7 x 9 x 11 voxels" in error
    assert evaluate(cohort, "first", "--resample-truth") == 0
    assert rows_of(cohort / "out" / "cases.csv")[0]["liver_dice"] == "1.000000"


def test_another_spacing_in_the_header_is_refused(cohort, capsys):
    file = cohort / "truth" / "segmentation-2.nii.gz"
    image = sitk.ReadImage(str(file))
    image.SetSpacing((2.0, 1.5, 3.1))
    sitk.WriteImage(image, str(file))
    assert evaluate(cohort, "first") == 3
    assert "case volume-2: prediction and truth lie 0.90 mm apart at a corner (limit 0.1 mm)" in capsys.readouterr().err


def test_a_prediction_in_another_orientation_is_scored_in_space(cohort):
    file = cohort / "first" / "volume-2" / "segmentation.nii.gz"
    sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(str(file)), "ASR"), str(file))
    assert evaluate(cohort, "first") == 0
    row = rows_of(cohort / "out" / "cases.csv")[1]
    assert (row["liver_dice"], row["tumor_dice"], row["tumor_ml"]) == ("1.000000", "1.000000", "0.018000")


def test_an_unknown_convention_is_a_usage_error(cohort, capsys):
    assert evaluate(cohort, "first", "--convention", "miccai") == 2
    assert "'miccai' is not one of 'lits', 'nnunet'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["cases.csv", "summary.json", "tables.md"])
def test_a_file_of_another_program_is_not_written_over(cohort, capsys, name):
    (cohort / "out").mkdir()
    foreign = cohort / "out" / name
    foreign.write_text('{"foreground_mean": 1}')  # as nnU-Net's summary.json
    assert evaluate(cohort, "first") == 2
    assert f"holds a {name} that is not of scores of cascade; choose another folder" in capsys.readouterr().err
    assert foreign.read_text() == '{"foreground_mean": 1}'


def test_a_table_of_cases_is_not_written_over(cohort, capsys):
    assert evaluate(cohort, "first") == 0
    table = cohort / "out" / "cases.csv"
    assert evaluate(cohort, "first", "--cases", str(table)) == 2
    assert f"--cases {table}: would be written over by the scores; choose another -o" in capsys.readouterr().err
    (cohort / "out" / "patients.csv").write_text((cohort / "cases.csv").read_text())
    assert evaluate(cohort, "first", "--cases", str(cohort / "out" / "patients.csv")) == 0


def test_scores_that_were_stopped_half_way_are_written_again(cohort, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("evaluate.tables.paper_tables", lambda *_: 1 / 0)
        assert evaluate(cohort, "first") == 1
    assert (cohort / "out" / "cases.csv").exists()
    assert not (cohort / "out" / "index.html").exists()
    assert evaluate(cohort, "first") == 0


def test_scores_of_an_earlier_run_are_replaced(cohort):
    assert evaluate(cohort, "second") == 0
    assert evaluate(cohort, "first") == 0
    assert [row["tumor_dice"] for row in rows_of(cohort / "out" / "cases.csv")] == ["1.000000"] * 3


def test_cases_of_one_side_are_left_out_on_request_and_named(cohort, capsys):
    (cohort / "first" / "volume-2" / "segmentation.nii.gz").unlink()
    assert evaluate(cohort, "first") == 3
    assert "no prediction of volume-2; add the files, take the others away, or give --common" in capsys.readouterr().err
    assert evaluate(cohort, "first", "--common") == 0
    assert "left out: no prediction of volume-2\n" in capsys.readouterr().out
    assert [row["case"] for row in rows_of(cohort / "out" / "cases.csv")] == ["volume-1", "volume-3"]
    assert evaluate(cohort, "first", "--common", "--versus", "second") == 0
    assert [row["case"] for row in rows_of(cohort / "out" / "versus.csv")] == ["volume-1", "volume-3"]


def test_nothing_in_common_is_refused(cohort, capsys):
    for number in (1, 2, 3):
        (cohort / "second" / f"volume-{number}.nii.gz").rename(cohort / "second" / f"other-{number}.nii.gz")
    assert evaluate(cohort, "second", "--common") == 3
    assert "do not pair" in capsys.readouterr().err
