"""Charts of tiny inputs. The x axis of 0 to 1 runs from 175 to 415, 240 units; a row of a waterfall is 24 high."""

import re
import xml.etree.ElementTree as ET

import pytest

from evaluate.charts import detection_bars, dice_boxes, waterfall_chart

HOSTILE = "<script>alert(1)</script>"


def parsed(markup):
    """The chart as a tree: it must be well-formed XML, and say what it is."""
    tree = ET.fromstring(markup)
    assert tree.get("role") == "img"
    assert tree.find("title").text
    assert tree.find("desc").text
    assert not re.search("nan|None|inf", markup)
    return tree


def bars(tree, *kinds):
    return [
        (r.get("class"), float(r.get("x")), float(r.get("width"))) for r in tree.iter("rect") if r.get("class") in kinds
    ]


def texts(tree):
    return [t.text for t in tree.iter("text")]


def test_a_waterfall_steps_down_from_1_and_up_for_a_gain():
    tree = parsed(waterfall_chart("Tumour Dice", [("missed", 0.5), ("nothing", 0.0), ("clean-up", -0.25)]))
    assert bars(tree, "loss", "gain", "zero", "rest") == [
        ("loss", 295, 120),  # from 1 to 0.5
        ("zero", 295, 1),
        ("gain", 295, 60),  # from 0.5 to 0.75
        ("rest", 175, 180),  # 0.75
    ]
    assert [t for t in texts(tree) if t not in ("0.25", "0.5", "1")] == [
        *("0", "0.75"),  # the axis
        *("missed", "\N{MINUS SIGN}0.500", "nothing", "0", "clean-up", "+0.250", "what is left", "0.750"),
    ]
    assert tree.find("title").text == "Tumour Dice"
    assert tree.get("viewBox") == "0 0 480 124"


def test_nothing_left_is_no_minus_zero():
    assert 1.0 - 0.3 - 0.6 - 0.1 < 0
    assert texts(parsed(waterfall_chart("all lost", [("a", 0.3), ("b", 0.6), ("c", 0.1)])))[-1] == "0.000"


def test_an_empty_waterfall_is_all_left():
    assert bars(parsed(waterfall_chart("nothing", [])), "rest") == [("rest", 175, 240)]


def test_a_box_has_quartiles_median_and_whiskers_after_tukey():
    values = [0.0, 0.5, 0.6, 0.7, 0.8]  # quartiles 0.5, 0.6, 0.7; 0.0 is beyond 0.5 - 1.5 * 0.2
    tree = parsed(dice_boxes("Dice", [("tumour", [(f"case {i}", v) for i, v in enumerate(values)])]))
    assert bars(tree, "box") == [("box", 295, 48)]
    (median,) = [line for line in tree.iter("line") if line.get("class") == "median"]
    assert median.get("x1") == "319"
    (whiskers,) = [line for line in tree.iter("line") if line.get("class") == "axis"]
    assert (whiskers.get("x1"), whiskers.get("x2")) == ("295", "367")
    dots = list(tree.iter("circle"))
    assert [float(dot.get("cx")) for dot in dots] == [175, 295, 319, 343, 367]
    assert dots[1].find("title").text == "case 1: 0.500"
    assert len({dot.get("cy") for dot in dots}) == 5


@pytest.mark.parametrize("groups", [[], [("tumour", [])], [("tumour", [("only", 1.0)])]])
def test_few_values_make_a_chart_too(groups):
    tree = parsed(dice_boxes("Dice", groups))
    assert len(list(tree.iter("circle"))) == sum(len(cases) for _, cases in groups)
    assert ("no case" in texts(tree)) == (groups == [("tumour", [])])


def test_recall_and_precision_are_bars_and_none_is_said():
    tree = parsed(detection_bars("Detection", [("< 10 mm", "4 true", 0.25, None), ("> 20 mm", "1 true", 1.0, 0.5)]))
    assert bars(tree, "recall", "precision") == [
        ("recall", 175, 12),  # the legend
        ("precision", 275, 12),
        ("recall", 175, 60),
        ("recall", 175, 240),
        ("precision", 175, 120),
    ]
    written = texts(tree)
    assert [t for t in written if re.fullmatch(r"\d\.\d{3}|-", t)] == ["0.250", "-", "1.000", "0.500"]
    assert {"< 10 mm", "4 true", "> 20 mm"} <= {*written}


def test_no_lesions_make_a_chart_too():
    assert parsed(detection_bars("Detection", [])).find("desc").text == "No lesions."


@pytest.mark.parametrize(
    "markup",
    [
        waterfall_chart(HOSTILE, [(HOSTILE, 0.5)]),
        dice_boxes(HOSTILE, [(HOSTILE, [(HOSTILE, 0.5)])]),
        detection_bars(HOSTILE, [(HOSTILE, HOSTILE, 0.5, 0.5)]),
    ],
)
def test_names_are_text(markup):
    assert "<script" not in markup
    assert HOSTILE in texts(parsed(markup)) + [t.text for t in ET.fromstring(markup).iter("title")]
