"""The scores as a screen table, CSV and JSON."""

import csv
import json

import pytest

from evaluate.overlap import Overlap
from evaluate.scores import CaseScore, CohortScore
from evaluate.tables import screen_table, write_scores
from evaluate.text import aligned, csv_text, number, plain
from preprocess.errors import ResourceError

COHORT = CohortScore(
    (
        CaseScore("volume-1", Overlap(3, 4, 5), Overlap(4, 5, 5), voxel_ml=0.5),
        CaseScore("volume-2", Overlap(5, 5, 5), Overlap(0, 0, 0), voxel_ml=0.5, scores_tumor=False),
        CaseScore("volume-3", Overlap(1, 2, 2), Overlap(0, 1, 1), voxel_ml=0.5),
    )
)


def test_csv_has_a_line_a_case_and_nothing_where_nothing_is_scored(tmp_path):
    write_scores(COHORT, tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder" / "cases.csv").read_text().splitlines() == [
        "case,liver_dice,tumor_dice,liver_ml,liver_ml_truth,tumor_ml,tumor_ml_truth",
        "volume-1,0.666667,0.800000,2.000000,2.500000,2.500000,2.500000",
        "volume-2,1.000000,,2.500000,2.500000,0.000000,",
        "volume-3,0.500000,0.000000,1.000000,1.000000,0.500000,0.500000",
    ]


def test_summary_names_its_convention_and_holds_means_pooled_dice_and_cases(tmp_path):
    write_scores(COHORT, tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)
    cases = summary.pop("cases")
    assert summary == {
        "convention": "lits",
        "n": 3,
        "n_tumor_scored": 2,
        "n_tumor_free": 0,
        "mean": {"liver_dice": pytest.approx((2 / 3 + 1 + 1 / 2) / 3), "tumor_dice": 0.4},
        "global": {"liver_dice": 18 / 23, "tumor_dice": 8 / 12},
    }
    assert [case["case"] for case in cases] == ["volume-1", "volume-2", "volume-3"]
    assert (cases[1]["tumor_dice"], cases[1]["tumor_ml_truth"]) == (None, None)


def test_screen_table_is_aligned_worst_tumour_first_and_names_the_convention():
    assert screen_table(COHORT) == (
        "case        liver Dice  tumour Dice  liver mL  true  tumour mL  true\n"
        "volume-3         0.500        0.000       1.0   1.0        0.5   0.5\n"
        "volume-1         0.667        0.800       2.0   2.5        2.5   2.5\n"
        "volume-2         1.000            -       2.5   2.5        0.0     -\n"
        "mean             0.722        0.400\n"
        "all voxels       0.783        0.667\n"
        "\n"
        "Cases: 3; tumours scored in 2, of which 0 have none. "
        "Convention lits: an empty prediction of an empty truth scores 1.\n"
    )


@pytest.mark.parametrize("name", ["=1+1", "+a", "-a", "@a", "\ta"])
def test_a_case_name_is_no_formula_in_csv(tmp_path, name):
    write_scores(CohortScore((CaseScore(name, Overlap(), Overlap(), 1.0),)), tmp_path)
    with (tmp_path / "cases.csv").open(newline="") as stream:
        assert list(csv.reader(stream))[1][0] == "'" + name.replace("\t", "?")


def test_a_negative_number_is_no_formula():
    assert csv_text(["a"], [[-0.5]]) == "a\n-0.500000\n"


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a\nb", "a\udcffb"])
def test_a_case_name_breaks_neither_table_nor_file(tmp_path, name):
    cohort = CohortScore((CaseScore(name, Overlap(), Overlap(), 1.0),))
    write_scores(cohort, tmp_path)
    assert screen_table(cohort).splitlines()[1].startswith("a?")
    assert (tmp_path / "cases.csv").read_text(encoding="utf-8").splitlines()[1].startswith("a?")


def test_a_folder_that_cannot_be_made_is_no_traceback(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match=r"file.scores cannot be made \(Not a directory\)"):
        write_scores(COHORT, tmp_path / "file" / "scores")


def test_nan_is_never_written():
    nan = float("nan")
    assert csv_text(["a", "b"], [[nan, None]]) == "a,b\n,\n"
    assert plain({"a": (nan, float("inf"), 0.5)}) == {"a": [None, None, 0.5]}
    assert number(nan) == number(None) == "-"


def test_numbers_show_a_sign_where_asked():
    assert [number(v, signed=True) for v in (0.25, -0.25)] == ["+0.250", "-0.250"]


def test_columns_are_as_wide_as_their_widest_cell():
    assert aligned([("a", "1"), ("bbb", "22")]) == "a     1\nbbb  22\n"
