"""`index.html` of `cascade evaluate` from three rows and a summary, written by hand."""

import re

import pytest

from evaluate.index_page import index_page

ROWS = [
    {"case": "a", "liver_dice": 0.96, "tumor_dice": 0.75, "liver_ml": 1500.0, "liver_ml_truth": 1510.0}
    | {"tumor_ml": 12.5, "tumor_ml_truth": 10.0, "liver_assd": 1.234, "patient": "p"},
    {"case": "b", "liver_dice": 0.9, "tumor_dice": None, "liver_ml": 1200.0, "liver_ml_truth": 1210.0}
    | {"tumor_ml": 3.0, "tumor_ml_truth": None, "liver_assd": float("nan"), "patient": "q"},
    {"case": "c/1 #", "liver_dice": 0.95, "tumor_dice": 0.25, "liver_ml": 1300.0, "liver_ml_truth": 1310.0}
    | {"tumor_ml": 1.0, "tumor_ml_truth": 4.0, "liver_assd": 2.0, "patient": "q"},
]
SUMMARY = {
    "convention": "lits",
    "empty_rule": "an empty prediction of an empty truth scores 1",
    "metrics": {
        "liver_assd": {"n": 2, "mean": 1.617, "median": 1.617, "interval": None},
        "tumor_dice": {"n": 2, "mean": 0.5, "median": 0.5, "interval": {"low": 0.25, "high": 0.75}},
    },
    "global": {"tumor_dice": 0.625},
    "detection": {
        "iou0": {
            "all": {"truth": 3, "predicted": 4, "recall": 1.0, "precision": 0.5},
            "<10": {"truth": 0, "predicted": 1, "recall": None, "precision": 0.0},
        }
    },
}


def rows_of(markup):
    rows = re.findall(r"<tr>(.*?)</tr>", markup, re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>(?:<a [^>]*>)?(.*?)(?:</a>)?</t[hd]>", row) for row in rows]


def test_cases_stand_worst_first_with_what_is_missing_last():
    rows = rows_of(index_page(ROWS, SUMMARY))
    header = rows.index(
        [
            "case",
            "tumour Dice",
            "liver Dice",
            "tumour mL",
            "tumour mL, true",
            "liver mL",
            "liver mL, true",
            "liver ASSD, mm",
        ]
    )
    assert rows[header + 1 :] == [
        ["c/1 #", "0.250", "0.950", "1.0", "4.0", "1300.0", "1310.0", "2.00"],
        ["a", "0.750", "0.960", "12.5", "10.0", "1500.0", "1510.0", "1.23"],
        ["b", "-", "0.900", "3.0", "-", "1200.0", "1210.0", "-"],
    ]


def test_cases_of_one_tumour_dice_stand_by_their_liver():
    rows = [
        {"case": c, "tumor_dice": t, "liver_dice": v} for c, t, v in (("a", 0, 0.9), ("b", None, 0.8), ("c", 0, 0.7))
    ]
    rows += [{"case": "d", "tumor_dice": None, "liver_dice": 0.6}, {"case": "e", "tumor_dice": 0}]
    assert [row[0] for row in rows_of(index_page(rows, {}))][-5:] == ["c", "a", "e", "d", "b"]


def test_the_cohort_has_means_intervals_medians_and_pooled_values():
    rows = rows_of(index_page(ROWS, SUMMARY))
    assert rows[:3] == [
        ["measure", "mean", "95 % interval of the mean", "median", "all voxels pooled", "cases"],
        ["liver ASSD, mm", "1.62", "-", "1.62", "-", "2"],
        ["tumour Dice", "0.500", "0.250 to 0.750", "0.500", "0.625", "2"],
    ]


def test_two_predictions_have_a_table_of_their_differences():
    versus = {
        "mean": {"tumor_dice": 0.4, "liver_msd": 12.0},
        "global": {"tumor_dice": 0.7},
        "difference": {
            "tumor_dice": {
                **{"n": 2, "mean": 0.1, "median": 0.1, "interval": {"low": -0.05, "high": 0.25}},
                **{"first": 0.45, "second": 0.35},
            },
            "liver_msd": {"n": 0, "mean": None, "median": None, "interval": None, "first": None, "second": None},
        },
        "global_difference": {"tumor_dice": {"value": -0.075, "interval": None}},
    }
    mean = {"tumor_dice": 0.5, "liver_msd": None}
    rows = rows_of(index_page(ROWS, SUMMARY | {"mean": mean, "versus": versus}))
    assert rows[3:7] == [
        ["measure", "this prediction", "the other", "mean difference", "95 % interval of the difference", "cases"],
        ["tumour Dice", "0.450", "0.350", "+0.100", "-0.050 to +0.250", "2"],
        ["liver MSD, mm", "-", "-", "-", "-", "0"],
        ["tumour Dice, all voxels pooled", "0.625", "0.700", "-0.075", "-", "-"],
    ]
    assert "other prediction" not in index_page(ROWS, SUMMARY)


def test_false_split_and_merged_lesions_and_the_tumour_burden_are_shown():
    parts = {
        "false_lesions": {"per_case": 1.5, "per_tumor_free_case": None},
        "lesion_pairs": {"single": 7, "split": 2, "merge": 1, "tangle": 0},
        "tumor_burden": {"n": 3, "rmse": 0.0125, "largest": 0.05, "mean": -0.01},
    }
    rows = rows_of(index_page(ROWS, SUMMARY | parts))
    assert rows[3:10] == [
        ["", "value"],
        ["false lesions per case", "1.500"],
        ["splits", "2"],
        ["merges", "1"],
        ["tangles", "0"],
        ["tumour burden, RMSE", "0.013"],
        ["tumour burden, largest error", "0.050"],
    ]
    assert "burden" not in index_page(ROWS, SUMMARY)


def test_the_convention_is_said_and_every_chart_is_there():
    markup = index_page(ROWS, SUMMARY)
    assert "3 cases. Convention lits: an empty prediction of an empty truth scores 1.</p>" in markup
    assert re.findall(r"<desc>(.*?)</desc>", markup) == [
        "liver: median 0.950, quartiles 0.925 to 0.955, 3 cases; "
        "tumour: median 0.500, quartiles 0.375 to 0.625, 2 cases.",
        "all: recall 1.000, precision 0.500; &lt; 10 mm: recall -, precision 0.000.",
        "Prediction minus truth in 3 cases: bias -10.0 mL.",
        "Prediction minus truth in 2 cases: bias -0.2 mL, upper limit +7.4 mL, lower limit -7.9 mL.",
    ]
    assert ">0 true, 1 predicted</text>" in markup


def test_only_cases_with_a_page_are_linked():
    assert re.findall(r'<a href="(.*?)">(.*?)</a>', index_page(ROWS, SUMMARY, with_page=["c/1 #"])) == [
        ("c%2F1%20%23/index.html", "c/1 #")
    ]
    assert "<a " not in index_page(ROWS, SUMMARY)
    undecodable = b"\xff".decode("utf-8", "surrogateescape")
    assert '<a href="%FF/index.html">?</a>' in index_page([{"case": undecodable}], {}, with_page=[undecodable])


@pytest.mark.parametrize("rows", [[], [{"case": "a"}], [{"case": "a", "liver_dice": None}]])
def test_whatever_is_missing_is_left_out(rows):
    markup = index_page(rows, {})
    assert f"{len(rows)} case" in markup
    assert markup.count(">no case</text>") == 4  # two boxes and two volumes
    assert not re.search("nan|None", markup)


def test_the_name_of_a_case_is_text():
    hostile = "<script>alert(1)</script>"
    row = {**ROWS[0], "case": hostile}
    markup = index_page([row], {"convention": hostile, "detection": {hostile: {hostile: {}}}}, with_page=[hostile])
    assert markup.count("<script>") == 1
    assert "%3Cscript%3Ealert%281%29%3C%2Fscript%3E/index.html" in markup
