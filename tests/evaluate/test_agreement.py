"""Bland-Altman of three volumes, by hand: differences -2, 0 and 2 mL, bias 0, SD 2, limits -3.92 and 3.92."""

import xml.etree.ElementTree as ET

import pytest

from evaluate.agreement import Agreement, agreement, bland_altman

THREE = [("a", 8.0, 10.0), ("b", 20.0, 20.0), ("c", 31.0, 29.0)]


def lines(tree, kind):
    return [line for line in tree.iter("line") if line.get("class") == kind]


def test_bias_and_limits_of_agreement():
    assert agreement([-2.0, 0.0, 2.0]) == Agreement(0.0, -3.92, 3.92)
    assert agreement([1.0, 3.0]) == Agreement(2.0, pytest.approx(2 - 1.96 * 2**0.5), pytest.approx(2 + 1.96 * 2**0.5))
    assert agreement([5.0]) == Agreement(5.0, None, None)
    assert agreement([]) is None


def test_points_and_lines_are_where_their_numbers_are():
    tree = ET.fromstring(bland_altman("Volumes", THREE))
    dots = [(float(dot.get("cx")), float(dot.get("cy"))) for dot in tree.iter("circle")]
    # Means 9, 20 and 30; the middle difference of 0 lies on the bias, halfway between the limits.
    assert dots[0][0] < dots[1][0] < dots[2][0]
    assert (dots[1][0] - dots[0][0]) / (dots[2][0] - dots[0][0]) == pytest.approx(11 / 21, abs=1e-3)
    assert dots[0][1] > dots[1][1] > dots[2][1]  # up is more than the truth
    (bias,) = lines(tree, "bias")
    upper, lower = lines(tree, "limit")
    assert float(bias.get("y1")) == dots[1][1] == (float(upper.get("y1")) + float(lower.get("y1"))) / 2
    per_ml = (dots[0][1] - dots[1][1]) / 2
    assert float(bias.get("y1")) - float(upper.get("y1")) == pytest.approx(3.92 * per_ml, abs=0.05)
    texts = [text.text for text in tree.iter("text")]
    assert {"bias +0.0", "upper limit +3.9", "lower limit -3.9", "mean of both (mL)"} <= {*texts}
    assert next(tree.iter("circle")).find("title").text == "a: 8.0, true 10.0 mL"


def test_one_case_has_a_bias_and_no_limits():
    tree = ET.fromstring(bland_altman("Volumes", THREE[:1]))
    assert len(lines(tree, "bias")) == len(list(tree.iter("circle"))) == 1
    assert lines(tree, "limit") == []


def test_equal_differences_have_no_limits_to_draw():
    tree = ET.fromstring(bland_altman("Volumes", [("a", 0.0, 0.0), ("b", 0.0, 0.0)]))
    assert (len(lines(tree, "bias")), lines(tree, "limit")) == (1, [])


def test_no_case_is_said():
    tree = ET.fromstring(bland_altman("Volumes", []))
    assert [text.text for text in tree.iter("text")] == ["no case"]


def test_names_are_text():
    assert "<script" not in bland_altman("<script>", [("<script>alert(1)</script>", 1.0, 2.0)], "<script>")
