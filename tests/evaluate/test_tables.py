"""The scores on the screen and as files."""

import csv
import json
import math
import re
from pathlib import Path

import pytest

from evaluate.cohort import CohortScore
from evaluate.columns import LESION_FIELDS
from evaluate.comparison import Comparison
from evaluate.paper_tables import paper_tables
from evaluate.summary import summary_of
from evaluate.tables import screen_table, write_scores
from evaluate.text import aligned, csv_of, csv_text, number, plain
from preprocess.errors import ResourceError
from tests.evaluate.lines import scored

DOCS = Path(__file__).parents[2] / "docs" / "evaluate.md"

COHORT = CohortScore(
    (
        scored("volume-1", (9, 10, 11), (4, 5, 5)),
        scored("volume-2", (5, 5, 5), (0, 0, 0), scores_tumor=False),
        scored("volume-3", (2, 4, 4), (0, 1, 1)),
    )
)
OTHER = CohortScore(
    (
        scored("volume-1", (8, 10, 11), (4, 5, 5)),
        scored("volume-2", (4, 5, 5), (0, 0, 0), scores_tumor=False),
        scored("volume-3", (2, 4, 4), (0, 0, 1)),
    )
)


def read_csv(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_cases_csv_has_a_line_a_case_and_nothing_where_nothing_is_scored(tmp_path):
    write_scores(COHORT, tmp_path / "new" / "folder")
    lines = (tmp_path / "new" / "folder" / "cases.csv").read_text().splitlines()
    assert lines[0].startswith(
        "case,liver_dice,tumor_dice,liver_ml,liver_ml_truth,tumor_ml,tumor_ml_truth,patient,convention,"
        "liver_voe,liver_rvd,liver_assd,liver_rmsd,liver_msd,liver_nsd1,liver_nsd2,liver_nsd3,tumor_voe,"
    )
    assert lines[1].startswith("volume-1,0.857143,0.800000,5.000000,5.500000,2.500000,2.500000,volume-1,lits,0.250000,")
    assert lines[2].startswith("volume-2,1.000000,,2.500000,2.500000,0.000000,,volume-2,lits,0.000000,")
    assert lines[2].endswith(",,,,,,,,")
    assert lines[3].endswith(",1,1,0,1,0,1,0,0")


def test_lesions_csv_has_a_line_a_lesion_and_its_header_without_one(tmp_path):
    write_scores(COHORT, tmp_path)
    rows = read_csv(tmp_path / "lesions.csv")
    assert [(row["case"], row["side"], row["pair"], row["detected_iou50"]) for row in rows] == [
        ("volume-1", "truth", "1", "yes"),
        ("volume-1", "prediction", "1", "yes"),
        ("volume-3", "truth", "", "no"),
        ("volume-3", "prediction", "", "no"),
    ]
    write_scores(CohortScore((COHORT.cases[1],)), tmp_path)
    assert (tmp_path / "lesions.csv").read_text() == ",".join(LESION_FIELDS) + "\n"


def test_summary_keeps_its_keys_and_values(tmp_path):
    write_scores(COHORT, tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)
    assert [case["case"] for case in summary["cases"]] == ["volume-1", "volume-2", "volume-3"]
    assert (summary["cases"][1]["tumor_dice"], summary["cases"][1]["tumor_ml_truth"]) == (None, None)
    known = ("schema", "convention", "n", "n_patients", "n_tumor_scored", "n_tumor_free")
    assert [summary[key] for key in known] == [1, "lits", 3, 3, 2, 0]
    assert summary["mean"]["liver_dice"] == pytest.approx((18 / 21 + 1 + 4 / 8) / 3)
    assert summary["mean"]["tumor_dice"] == pytest.approx(0.4)
    assert summary["global"] == {"liver_dice": 32 / 39, "tumor_dice": 8 / 12}
    assert summary["metrics"]["tumor_dice"] == {
        "n": 2,
        "mean": pytest.approx(0.4),
        "median": pytest.approx(0.4),
        "interval": {"low": 0.0, "high": pytest.approx(0.8)},
    }
    assert summary["metrics"]["tumor_rvd"]["n"] == 2
    assert summary["detection"]["iou50"]["all"]["recall"] == 0.5
    assert summary["detection"]["iou50"]["10-20"]["truth"] == 1
    assert summary["detected_lesions"]["iou50"]["dice"]["mean"] == pytest.approx(0.8)
    assert summary["lesion_pairs"] == {"single": 1, "split": 0, "merge": 0, "tangle": 0}
    assert summary["false_lesions"] == {"per_case": 0.5, "per_tumor_free_case": None}
    errors = (5 / 10 - 5 / 11, 0.0)
    assert summary["tumor_burden"]["rmse"] == pytest.approx(math.sqrt(errors[0] ** 2 / 2))
    assert summary["worst_first"]["liver_dice"] == ["volume-3", "volume-1", "volume-2"]
    assert "versus" not in summary


def test_the_page_shows_the_cases_and_links_those_that_have_a_page_of_their_own(tmp_path):
    (tmp_path / "volume-1").mkdir()
    (tmp_path / "volume-1" / "index.html").write_text("")
    write_scores(COHORT, tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert "Convention lits" in page
    assert all(title in page for title in ("Bland-Altman", "Lesions detected at IoU", "Dice by case", "0.786"))
    assert 'href="volume-1/index.html"' in page
    assert 'href="volume-2/index.html"' not in page


def test_a_comparison_adds_its_differences(tmp_path):
    write_scores(COHORT, tmp_path, Comparison(COHORT, OTHER))
    summary = json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)
    versus = summary["versus"]
    assert versus["difference"]["liver_dice"]["mean"] == pytest.approx((2 / 21 + 1 / 5 + 0) / 3)
    assert versus["mean"]["liver_dice"] == pytest.approx((16 / 21 + 4 / 5 + 4 / 8) / 3)
    assert versus["global_difference"]["tumor_dice"]["value"] == pytest.approx(8 / 12 - 8 / 11)
    rows = read_csv(tmp_path / "versus.csv")
    assert [row["liver_dice_difference"] for row in rows] == ["0.095238", "0.200000", "0.000000"]
    assert "Liver Dice | 0.786 | 0.687 | +0.098" in (tmp_path / "tables.md").read_text()


def test_differences_of_an_earlier_run_do_not_stay(tmp_path):
    write_scores(COHORT, tmp_path, Comparison(COHORT, OTHER))
    write_scores(COHORT, tmp_path)
    assert not (tmp_path / "versus.csv").exists()


def test_every_output_names_its_convention(tmp_path):
    cases = (scored("a", (5, 5, 5), (1, 1, 1), convention="nnunet"), scored("b", (5, 5, 5), convention="nnunet"))
    cohort = CohortScore(cases)
    write_scores(cohort, tmp_path, Comparison(cohort, cohort))
    assert "Convention nnunet: an empty prediction of an empty truth has no score" in screen_table(cohort)
    for name in ("cases.csv", "lesions.csv", "versus.csv"):
        assert {row["convention"] for row in read_csv(tmp_path / name)} == {"nnunet"}
    for name, captions in (("tables.md", 6), ("tables.tex", 6)):
        assert (tmp_path / name).read_text().count("Convention nnunet") == captions
    assert json.loads((tmp_path / "summary.json").read_text())["convention"] == "nnunet"


def test_screen_table_is_aligned_worst_tumour_first_and_names_the_convention():
    assert screen_table(COHORT) == (
        "case        liver Dice  tumour Dice  liver mL  true  tumour mL  true\n"
        "volume-3         0.500        0.000       2.0   2.0        0.5   0.5\n"
        "volume-1         0.857        0.800       5.0   5.5        2.5   2.5\n"
        "volume-2         1.000            -       2.5   2.5        0.0     -\n"
        "mean             0.786        0.400\n"
        "all voxels       0.821        0.667\n"
        "\n"
        "liver: Dice 0.786 [0.500, 1.000], ASSD mm 2.143 [0.000, 5.000], NSD 2 mm 0.927 [0.823, 1.000]\n"
        "tumour: Dice 0.400 [0.000, 0.800], ASSD mm 6.000 [2.000, 10.000], NSD 2 mm 0.720 [0.500, 0.940]\n"
        "lesions, IoU > 0: 1 of 2 found, 1 of 2 predicted ones false, F1 0.500\n"
        "lesions, IoU > 0.5: 1 of 2 found, 1 of 2 predicted ones false, F1 0.500\n"
        "tumour burden: RMSE 0.032, largest error 0.045\n"
        "Cases: 3; tumours scored in 2, of which 0 have none. "
        "Convention lits: an empty prediction of an empty truth scores 1.\n"
    )


def test_screen_table_of_a_comparison_says_the_differences():
    text = screen_table(COHORT, Comparison(COHORT, OTHER))
    assert "liver Dice less that of the other prediction: +0.098 [+0.000, +0.200], n = 3\n" in text


def test_a_size_class_has_its_row_in_the_table_of_lesions():
    lesions = paper_tables(COHORT)[1]
    assert [row[0] for row in lesions.rows[:4]] == [
        *("IoU > 0, all", "IoU > 0, <10 mm", "IoU > 0, 10-20 mm", "IoU > 0, >20 mm"),
    ]
    # 2.5 mL is a sphere of 16.8 mm, 0.5 mL one of 9.8 mm.
    assert [row[1:4] for row in lesions.rows[:4]] == [
        ["2", "1", "1"],
        ["1", "1", "1"],
        ["1", "0", "0"],
        ["0", "0", "0"],
    ]


def test_the_documentation_names_every_column_and_key(tmp_path):
    text = DOCS.read_text("utf-8")
    named = set(re.findall(r"`([^`\n]+)`", text))
    comparison = Comparison(COHORT, OTHER)
    write_scores(COHORT, tmp_path, comparison)
    columns = {
        name
        for file in ("cases.csv", "lesions.csv")
        for name in (tmp_path / file).read_text().split("\n")[0].split(",")
    }
    plain_columns = {re.sub(r"^(liver|tumor)_(?=voe|rvd|assd|rmsd|msd|nsd\d)", "", name) for name in columns}
    assert plain_columns <= named
    assert keys_of(summary_of(COHORT, comparison)) <= named


def keys_of(value, skipped=("cases", "mean", "metrics", "difference", "detected_lesions")):
    """The keys of a nested table, but not those that are names of columns or metrics."""
    keys = set()
    for key, item in value.items():
        keys.add(key)
        if isinstance(item, dict):
            inner = item
            if key in skipped:
                inner = next(iter(item.values())) if isinstance(next(iter(item.values())), dict) else {}
            keys |= keys_of(inner)
    return keys


@pytest.mark.parametrize("name", ["=1+1", "+a", "-a", "@a", "\ta"])
def test_a_case_name_is_no_formula_in_csv(tmp_path, name):
    write_scores(CohortScore((scored(name, (1, 1, 1)),)), tmp_path)
    with (tmp_path / "cases.csv").open(newline="") as stream:
        assert list(csv.reader(stream))[1][0] == "'" + name.replace("\t", "?")


def test_a_negative_number_is_no_formula():
    assert csv_text(["a"], [[-0.5]]) == "a\n-0.500000\n"


def test_a_count_has_no_decimals():
    assert csv_text(["a", "b"], [[3, 3.0]]) == "a,b\n3,3.000000\n"


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a\nb", "a\udcffb"])
def test_a_case_name_breaks_neither_table_nor_file(tmp_path, name):
    cohort = CohortScore((scored(name, (1, 1, 1)),))
    write_scores(cohort, tmp_path)
    assert screen_table(cohort).splitlines()[1].startswith("a?")
    assert (tmp_path / "cases.csv").read_text(encoding="utf-8").splitlines()[1].startswith("a?")
    for file in ("tables.md", "tables.tex", "summary.json"):
        assert (tmp_path / file).read_text(encoding="utf-8")


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


def test_a_table_of_no_rows_is_its_header_or_nothing():
    assert csv_of([]) == ""
    assert csv_of([], ("a", "b")) == "a,b\n"


def test_what_rounds_to_zero_is_not_below_it():
    assert [number(-0.0004), number(-0.0), number(-0.0004, signed=True)] == ["0.000", "0.000", "+0.000"]
    assert [number(-0.0006), number(-0.04, 1)] == ["-0.001", "0.0"]


def test_columns_are_as_wide_as_their_widest_cell():
    assert aligned([("a", "1"), ("bbb", "22")]) == "a     1\nbbb  22\n"
