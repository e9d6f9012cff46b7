"""The account as files, and the sentence that says where to work."""

import dataclasses
import json
from pathlib import PurePath

import numpy as np
import pytest

from evaluate.account import StageAccount, StageReport
from evaluate.stage_tables import advice, write_account

#: Nothing lost anywhere.
PERFECT = StageAccount(
    case="volume-1",
    held_out=True,
    stage1_liver_dice_coarse=1.0,
    stage1_liver_dice=1.0,
    roi_liver_share=1.0,
    roi_tumor_share=1.0,
    stage2_tumor_dice_true_roi=1.0,
    stage2_tumor_dice_predicted_roi=1.0,
    merged_liver_dice=1.0,
    merged_tumor_dice=1.0,
    cleanup_liver_gain=0.0,
    cleanup_tumor_gain=0.0,
)
SEEN = dataclasses.replace(PERFECT, case="volume-2", held_out=False)
USUAL = dataclasses.replace(
    PERFECT,
    case="=volume-3",
    stage1_liver_dice=0.9,
    stage2_tumor_dice_true_roi=0.7,
    stage2_tumor_dice_predicted_roi=0.5,
    merged_liver_dice=0.95,
    merged_tumor_dice=0.625,
    cleanup_liver_gain=-0.0625,
    cleanup_tumor_gain=0.125,
)
LIVER_ONLY = dataclasses.replace(
    PERFECT,
    case="volume-4",
    roi_tumor_share=None,
    stage2_tumor_dice_true_roi=None,
    stage2_tumor_dice_predicted_roi=None,
    merged_tumor_dice=None,
    cleanup_tumor_gain=None,
)


def test_text_is_aligned_with_a_mean_line_a_kind(tmp_path):
    write_account(StageReport((USUAL, SEEN, LIVER_ONLY)), tmp_path / "new", {})
    table, legend, sentence = (tmp_path / "new" / "report.txt").read_text().split("\n\n")
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
    assert sentence.startswith("Work on stage 2")


def test_csv_holds_a_line_a_case_and_no_formula(tmp_path):
    write_account(StageReport((USUAL, LIVER_ONLY, dataclasses.replace(SEEN, held_out=None))), tmp_path, {})
    lines = (tmp_path / "stages.csv").read_text().splitlines()
    assert lines[0].startswith(
        "case,held_out,stage1_liver_dice_coarse,stage1_liver_dice,roi_liver_share,roi_tumor_share"
    )
    assert lines[1].startswith("'=volume-3,yes,1.000000,0.900000,")
    assert lines[1].endswith(",-0.062500,0.125000")
    assert lines[2] == "volume-4,yes,1.000000,1.000000,1.000000,,,,1.000000,,0.000000,"
    assert lines[3].startswith("volume-2,unknown,")


def test_json_holds_meta_cases_and_means_apart(tmp_path):
    meta = {"model": PurePath("a.pt"), "nan": float("nan"), "count": np.int64(3), "folds": (1, 2)}
    write_account(StageReport((USUAL, SEEN, LIVER_ONLY)), tmp_path, meta)
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


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"stage1_liver_dice": 0.75}, "Work on stage 1: its liver lacks 0.250 of Dice"),
        ({"roi_liver_share": 0.75}, "Work on the ROI: it leaves out 0.250 of the true liver"),
        ({"roi_tumor_share": 0.75}, "Work on the ROI: it leaves out 0.250 of the true tumour"),
        (
            {"stage2_tumor_dice_true_roi": 0.75, "stage2_tumor_dice_predicted_roi": 0.75},
            "Work on stage 2: in the ROI of the true liver its tumours lack 0.250 of Dice",
        ),
        ({"stage2_tumor_dice_predicted_roi": 0.75}, "Work on the ROI: the cascade's own costs 0.250 of tumour Dice"),
        ({"cleanup_liver_gain": -0.25}, "Work on clean-up: it costs 0.250 of liver Dice"),
        ({"cleanup_tumor_gain": -0.25}, "Work on clean-up: it costs 0.250 of tumour Dice"),
    ],
)
def test_the_largest_loss_is_what_to_work_on(change, expected):
    # Every other loss is 0.1: a smaller one must not win, nor a large gain.
    tenth = {"stage1_liver_dice": 0.9, "roi_liver_share": 0.9, "roi_tumor_share": 0.9, "cleanup_tumor_gain": -0.1}
    report = StageReport((dataclasses.replace(PERFECT, **{**tenth, "cleanup_liver_gain": 0.5, **change}),))
    assert advice(report).startswith(expected)
    assert advice(report).endswith("the largest loss over 1 case (held out).")


def test_a_case_seen_in_training_does_not_dilute_the_advice():
    assert advice(StageReport((SEEN, USUAL, SEEN))).endswith(
        "lack 0.300 of Dice, the largest loss over 1 case (held out)."
    )


def test_advice_without_a_held_out_case_doubts_itself():
    for held_out, kind in ((False, "seen in training"), (None, "training unknown")):
        sentence = advice(StageReport((dataclasses.replace(USUAL, held_out=held_out),)))
        assert f"over 1 case ({kind}). No case is known to be held out" in sentence


def test_nothing_lost_is_said():
    assert advice(StageReport((PERFECT, LIVER_ONLY))) == "No stage loses anything over 2 cases (held out)."


def test_tumours_that_are_not_scored_leave_the_liver_to_advise_on():
    report = StageReport((dataclasses.replace(LIVER_ONLY, stage1_liver_dice=0.75),))
    assert advice(report).startswith("Work on stage 1")


def test_an_empty_report_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one case"):
        write_account(StageReport(()), tmp_path, {})
