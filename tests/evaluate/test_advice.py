"""The sentence that says where to work."""

import dataclasses

import pytest

from evaluate.account import StageReport
from evaluate.advice import advice
from evaluate.waterfall import STEPS


@pytest.mark.parametrize(
    ("structure", "step", "expected"),
    [
        ("liver", "missed_by_stage1", "stage 1: true liver that it misses costs 0.250 of liver Dice"),
        ("liver", "false_of_stage1", "stage 1: its false liver costs 0.250 of liver Dice"),
        ("liver", "stage2_inside", "stage 2: true liver that it takes away costs 0.250 of liver Dice"),
        ("liver", "stage2_outside", "stage 2: its false liver costs 0.250 of liver Dice"),
        ("liver", "cleanup", "clean-up: it costs 0.250 of liver Dice"),
        ("tumor", "liver_not_found", "stage 1: a liver that it does not find costs 0.250 of tumour Dice"),
        ("tumor", "outside_roi", "the ROI: true tumour outside it costs 0.250 of tumour Dice"),
        ("tumor", "missed", "stage 2: true tumour that it misses even in the ROI of the true liver costs 0.250"),
        ("tumor", "own_roi", "the ROI: true tumour that stage 2 misses in the cascade's own alone costs 0.250"),
        ("tumor", "outside_liver", "the predicted liver: true tumour that it cuts off costs 0.250 of tumour Dice"),
        ("tumor", "false_inside", "stage 2: false tumour inside the true liver costs 0.250 of tumour Dice"),
        ("tumor", "false_outside", "stage 2: false tumour outside the true liver costs 0.250 of tumour Dice"),
        ("tumor", "cleanup", "clean-up: it costs 0.250 of tumour Dice"),
    ],
)
def test_the_step_that_loses_most_is_what_to_work_on(accounts, structure, step, expected):
    # Every other step of both structures loses a tenth of that. One tumour: the case is not one without.
    waterfalls = {
        name: accounts.waterfall(
            name, **{s.key: "0.25" if (name, s.key) == (structure, step) else "0.025" for s in steps}
        )
        for name, steps in STEPS.items()
    }
    sentence = advice(
        StageReport((dataclasses.replace(accounts.perfect, lesions=accounts.usual.lesions, **waterfalls),))
    )
    assert sentence.startswith(f"Work on {expected}")
    where = "the largest loss over 1 case (held out)."
    remedy = (structure, step) == ("tumor", "cleanup")
    assert where in sentence
    assert sentence.endswith("cascade tune chooses thresholds." if remedy else where)


@pytest.mark.parametrize(("step", "said"), [("false_inside", True), ("missed", False)])
def test_false_tumour_in_cases_without_any_is_said_to_weigh_the_most(accounts, step, said):
    lost = accounts.waterfall("tumor", **{step: "0.5"})
    report = StageReport((accounts.usual, dataclasses.replace(accounts.perfect, tumor=lost), accounts.liver_only))
    doubt = " 1 without tumour: there one false voxel costs the whole Dice."
    assert advice(report).endswith(f"over 3 cases (held out).{doubt if said else ''}")


def test_a_loss_that_a_later_step_gives_back_is_none_to_work_on(accounts):
    liver = accounts.waterfall("liver", missed_by_stage1="0.5", stage2_inside="-0.45")
    tumor = accounts.waterfall("tumor", missed="0.1")
    report = StageReport((dataclasses.replace(accounts.perfect, liver=liver, tumor=tumor),))
    assert advice(report).startswith("Work on stage 2: true tumour that it misses")


def test_a_case_seen_in_training_does_not_dilute_the_advice(accounts):
    assert advice(StageReport((accounts.seen, accounts.usual, accounts.seen))).endswith(
        "costs 0.300 of tumour Dice, the largest loss over 1 case (held out)."
    )


def test_advice_without_a_held_out_case_doubts_itself(accounts):
    for held_out, kind in ((False, "seen in training"), (None, "training unknown")):
        sentence = advice(StageReport((dataclasses.replace(accounts.usual, held_out=held_out),)))
        assert f"over 1 case ({kind}). No case is known to be held out" in sentence


def test_nothing_lost_is_said(accounts):
    report = StageReport((accounts.perfect, accounts.liver_only))
    assert advice(report) == "No stage loses anything over 2 cases (held out)."


def test_tumours_that_are_not_scored_leave_the_liver_to_advise_on(accounts):
    liver = accounts.waterfall("liver", missed_by_stage1="0.25")
    report = StageReport((dataclasses.replace(accounts.liver_only, liver=liver),))
    assert advice(report).startswith("Work on stage 1: true liver")
