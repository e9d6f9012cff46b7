"""Scores as rows."""

import csv
import dataclasses
import io

import numpy as np
import pytest

import evaluate
from evaluate.cohort import CohortScore
from evaluate.columns import LESION_FIELDS, difference_rows
from evaluate.comparison import Comparison
from tests.evaluate.lines import scored

METRICS = ("dice", "voe", "rvd", "assd", "rmsd", "msd", "nsd1", "nsd2", "nsd3")


def drawn(text):
    """One line of labels along x."""
    return np.array([[[int(char) for char in text]]], np.uint8)


#: Two predictions of one true tumour, a missed and a false one; voxels of 1 x 2 x 5 mm.
SPLIT = evaluate.score(drawn("0122122101111220"), drawn("0122222101221110"), (5.0, 2.0, 1.0), case="volume-1")
LIVER_ONLY = evaluate.score(drawn("0121"), drawn("0111"), (5.0, 2.0, 1.0), case="volume-2", scores_tumor=False)


def test_a_row_a_case_has_every_metric_of_liver_and_tumour():
    (row,) = evaluate.case_rows([SPLIT])
    assert list(row)[:7] == [
        *("case", "liver_dice", "tumor_dice", "liver_ml", "liver_ml_truth", "tumor_ml", "tumor_ml_truth"),
    ]
    for region in ("liver", "tumor"):
        for metric in METRICS:
            assert row[f"{region}_{metric}"] == getattr(getattr(SPLIT, region), metric)
    assert (row["patient"], row["convention"]) == ("volume-1", "lits")
    assert (row["tumor_ml"], row["tumor_burden"], row["tumor_burden_truth"]) == pytest.approx((0.06, 6 / 13, 7 / 13))


def test_a_row_counts_lesions():
    (row,) = evaluate.case_rows([SPLIT])
    counts = {name: value for name, value in row.items() if name.startswith("lesions_")}
    assert counts == {
        "lesions_truth": 2,
        "lesions_predicted": 3,
        "lesions_detected_iou0": 1,
        "lesions_false_iou0": 1,
        "lesions_detected_iou50": 1,
        "lesions_false_iou50": 1,
        "lesions_splits": 1,
        "lesions_merges": 0,
    }


def test_tumours_that_are_not_scored_leave_their_cells_empty():
    rows = evaluate.case_rows([SPLIT, LIVER_ONLY])
    assert list(rows[0]) == list(rows[1])
    empty = {name for name, value in rows[1].items() if value is None}
    assert empty == {
        *(f"tumor_{metric}" for metric in METRICS),
        *("tumor_ml_truth", "tumor_burden_truth"),
        *(name for name in rows[1] if name.startswith("lesions_")),
    }


def test_a_row_a_lesion_of_each_side():
    rows = evaluate.lesion_rows([SPLIT, LIVER_ONLY])
    assert [(row["side"], row["lesion"], row["pair"], row["pair_kind"]) for row in rows] == [
        ("truth", 1, 1, "split"),
        ("truth", 2, None, None),
        ("prediction", 1, 1, "split"),
        ("prediction", 2, 1, "split"),
        ("prediction", 3, None, None),
    ]
    first, missed = rows[:2]
    assert (first["volume_ml"], first["iou"], first["covered"]) == pytest.approx((0.05, 0.8, 0.8))
    assert (first["detected_iou0"], first["detected_iou50"], first["size"]) == ("yes", "yes", "<10")
    assert (first["x_mm"], first["y_mm"], first["z_mm"]) == (4.0, 0.0, 0.0)
    assert (missed["iou"], missed["detected_iou0"]) == (0.0, "no")


def test_the_metrics_of_a_pair_stand_once_in_a_column():
    rows = evaluate.lesion_rows([SPLIT])
    assert [row["dice"] for row in rows] == [pytest.approx(8 / 9), None, None, None, None]
    assert all(tuple(row) == LESION_FIELDS for row in rows)


def test_rows_as_csv_in_one_call():
    text = evaluate.csv_of(evaluate.case_rows([SPLIT]))
    (row,) = csv.DictReader(io.StringIO(text))
    assert (row["case"], row["lesions_truth"], row["tumor_ml"]) == ("volume-1", "2", "0.060000")


def test_differences_have_a_column_a_metric():
    first = CohortScore((scored("a", (10, 10, 10), (1, 1, 1)),))
    second = CohortScore((dataclasses.replace(scored("a", (9, 10, 10), (0, 0, 1))),))
    (row,) = difference_rows(Comparison(first, second))
    assert list(row) == [
        *("case", "patient", "convention"),
        *(f"{region}_{metric}_difference" for region in ("liver", "tumor") for metric in METRICS),
    ]
    assert (row["liver_dice_difference"], row["tumor_dice_difference"]) == (pytest.approx(0.1), 1.0)
    assert row["tumor_assd_difference"] is None
