"""The account as files."""

import csv
import dataclasses
import json
from pathlib import Path, PurePath

import numpy as np
import pytest

from evaluate.account import ACCOUNT_FIELDS, StageReport
from evaluate.fates import FATES
from evaluate.stage_tables import report_text, write_account
from evaluate.waterfall import STEPS


def test_text_is_aligned_with_a_mean_line_a_kind(accounts, tmp_path):
    write_account(StageReport((accounts.usual, accounts.seen, accounts.liver_only)), tmp_path / "new", {})
    table, legend, lost, sentence = (tmp_path / "new" / "report.txt").read_text().split("\n\n")
    assert table.splitlines() == [
        "case                            held  stage 1  stage 1    ROI     ROI   stage 2  stage 2  final   final"
        "  clean-up  clean-up",
        "                                 out   coarse    liver  liver  tumour  true ROI  own ROI  liver  tumour"
        "     liver    tumour",
        "=volume-3                        yes    1.000    0.900  1.000   1.000     0.700    0.500  0.950   0.625"
        "    -0.062    +0.125",
        "volume-2                          no    1.000    1.000  1.000   1.000     1.000    1.000  1.000   1.000"
        "    +0.000    +0.000",
        "volume-4                         yes    1.000    1.000  1.000       -         -        -  1.000       -"
        "    +0.000         -",
        "mean, held out (n = 2)                  1.000    0.950  1.000   1.000     0.700    0.500  0.975   0.625"
        "    -0.031    +0.125",
        "mean, seen in training (n = 1)          1.000    1.000  1.000   1.000     1.000    1.000  1.000   1.000"
        "    +0.000    +0.000",
    ]
    assert "Convention lits" in legend
    assert lost.splitlines() == [
        "lost, of a Dice of 1                   held out (n = 2)  seen in training (n = 1)",
        "liver: missed by stage 1                          0.000                     0.000",
        "liver: false liver of stage 1                     0.000                     0.000",
        "liver: stage 2, in the true liver                 0.000                     0.000",
        "liver: stage 2, outside it                       -0.006                     0.000",
        "liver: clean-up                                   0.031                     0.000",
        "liver: what is left                               0.975                     1.000",
        "tumour: no liver found                            0.000                     0.000",
        "tumour: outside the ROI                           0.000                     0.000",
        "tumour: missed in a perfect ROI                   0.300                     0.000",
        "tumour: own ROI, not the true one                 0.200                     0.000",
        "tumour: cut off by the liver                      0.000                     0.000",
        "tumour: false, in the liver                       0.000                     0.000",
        "tumour: false, outside the liver                  0.000                     0.000",
        "tumour: clean-up                                 -0.125                     0.000",
        "tumour: what is left                              0.625                     1.000",
        "true tumours: found                                   1                         0",
        "true tumours: missed in a perfect ROI                 1                         0",
    ]
    assert sentence.startswith("Work on stage 2")


def test_waterfall_csv_holds_a_line_a_step(accounts, tmp_path):
    write_account(StageReport((accounts.usual, accounts.liver_only)), tmp_path, {})
    rows = list(csv.DictReader((tmp_path / "waterfall.csv").read_text().splitlines()))
    assert [(row["case"], row["structure"]) for row in rows] == (
        5 * [("'=volume-3", "liver")] + 8 * [("'=volume-3", "tumor")] + 5 * [("volume-4", "liver")]
    )
    assert rows[7] == {
        "case": "'=volume-3",
        "held_out": "yes",
        "structure": "tumor",
        "step": "missed",
        "loss": "0.300000",
        "dice": "0.700000",
    }
    assert rows[12]["dice"] == "0.625000"


def test_lesions_csv_holds_a_line_a_true_tumour(accounts, tmp_path):
    write_account(StageReport((accounts.usual, accounts.liver_only)), tmp_path, {})
    assert (tmp_path / "lesions.csv").read_text().splitlines() == [
        "case,held_out,lesion,volume_ml,found_share,fate",
        "'=volume-3,yes,1,2.500000,0.750000,found",
        "'=volume-3,yes,2,0.500000,0.000000,missed",
    ]


def test_csv_holds_a_line_a_case_and_no_formula(accounts, tmp_path):
    write_account(
        StageReport((accounts.usual, accounts.liver_only, dataclasses.replace(accounts.seen, held_out=None))),
        tmp_path,
        {},
    )
    lines = (tmp_path / "stages.csv").read_text().splitlines()
    assert lines[0].startswith(
        "case,held_out,stage1_liver_dice_coarse,stage1_liver_dice,roi_liver_share,roi_tumor_share"
    )
    assert lines[1].startswith("'=volume-3,yes,1.000000,0.900000,")
    assert lines[1].endswith(",-0.062500,0.125000")
    assert lines[2] == "volume-4,yes,1.000000,1.000000,1.000000,,,,1.000000,,0.000000,"
    assert lines[3].startswith("volume-2,unknown,")


def test_json_holds_meta_cases_and_means_apart(accounts, tmp_path):
    meta = {"model": PurePath("a.pt"), "nan": float("nan"), "count": np.int64(3), "folds": (1, 2)}
    write_account(StageReport((accounts.usual, accounts.seen, accounts.liver_only)), tmp_path, meta)
    report = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert report["meta"] == {"model": "a.pt", "nan": None, "count": 3, "folds": [1, 2]}
    assert report["convention"] == "lits"
    assert [(case["case"], case["held_out"]) for case in report["cases"]] == [
        ("=volume-3", True),
        ("volume-2", False),
        ("volume-4", True),
    ]
    assert list(report["mean"]) == ["held_out", "in_training"]
    assert report["mean"]["held_out"]["n"] == 2
    assert report["mean"]["held_out"]["merged_tumor_dice"] == 0.625
    assert report["mean"]["in_training"]["merged_tumor_dice"] == 1.0
    assert report["mean"]["held_out"]["waterfall"]["tumor"]["missed"] == pytest.approx(0.3)
    assert report["mean"]["held_out"]["waterfall"]["liver"]["cleanup"] == 0.03125
    assert report["mean"]["held_out"]["lesions"]["found"] == 1
    assert list(report["cases"][0]["waterfall"]["liver"]) == [step.key for step in STEPS["liver"]]
    assert report["cases"][2]["waterfall"]["tumor"] is None
    assert report["cases"][0]["lesions"][1] == {"lesion": 2, "volume_ml": 0.5, "found_share": 0.0, "fate": "missed"}
    assert report["cases"][0]["merged_tumor_dice"] == 0.625


def test_a_gain_too_small_to_be_seen_is_no_minus_zero(accounts):
    small = dataclasses.replace(accounts.perfect, tumor=accounts.waterfall("tumor", cleanup="-0.0001"))
    assert "-0.000" not in report_text(StageReport((small,)))


def test_the_documentation_names_every_file_number_and_step(accounts, tmp_path):
    write_account(StageReport((accounts.usual,)), tmp_path, {})
    text = (Path(__file__).parents[2] / "docs" / "report.md").read_text("utf-8")
    names = {path.name for path in tmp_path.iterdir()} | {*ACCOUNT_FIELDS, *FATES}
    names |= {step.key for steps in STEPS.values() for step in steps}
    for table in tmp_path.glob("*.csv"):
        names |= {*table.read_text().splitlines()[0].split(",")}
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []


def test_an_empty_report_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one case"):
        write_account(StageReport(()), tmp_path, {})


def test_pictures_of_an_earlier_account_do_not_stay_but_those_of_others_do(accounts, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "figure1.png").write_bytes(b"mine")
    both = StageReport((accounts.seen, accounts.liver_only))
    write_account(both, tmp_path, {}, {"volume-2": b"2", "volume-4": b"4"})
    write_account(StageReport((accounts.seen,)), tmp_path, {}, {"volume-2": b"new"})
    left = {path.name: path.read_bytes() for path in (tmp_path / "pictures").iterdir()}
    assert left == {"figure1.png": b"mine", "volume-2.png": b"new"}


def test_no_picture_outside_the_folder_is_removed(accounts, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "mine.png").write_bytes(b"mine")
    (tmp_path / "out" / "report.json").write_text('{"cases": [{"case": "../../mine"}, {"case": "../mine"}]}')
    write_account(StageReport((accounts.seen,)), tmp_path / "out", {})
    assert (tmp_path / "mine.png").exists()


def test_tumours_that_nobody_drew_are_not_none(accounts):
    seen = dataclasses.replace(accounts.liver_only, held_out=False)
    text = report_text(StageReport((accounts.usual, seen)))
    assert [line.split() for line in text.splitlines() if "tumours: found" in line] == [
        ["true", "tumours:", "found", "1", "-"]
    ]
