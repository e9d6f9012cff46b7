"""Charts of scores from 0 to 1 as inline SVG: waterfall, boxes of Dice, recall and precision. Numbers in, text out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluate.svg import WIDTH, Scale, element, label, line, point, rect, svg
from evaluate.text import number

_X = Scale(0.0, 1.0, 175, 415)
_ROW = 24
_TOP = 22


def waterfall_chart(title: str, losses: Sequence[tuple[str, float]]) -> str:
    """From 1 down to what is left: a bar for each (step, loss), below 0 for a gain, and one for the rest.

    The numbers at the right are changes of Dice: minus for a loss, plus for a gain.
    """
    level, parts = 1.0, []
    for i, (step, loss) in enumerate(losses):
        after, y = level - loss, _TOP + i * _ROW
        kind = "zero" if abs(loss) < 5e-4 else "loss" if loss > 0 else "gain"
        left, right = sorted((_X(after), _X(level)))
        parts += [_row_label(step, y), rect(left, y + 4, right - left, _ROW - 8, kind)]
        parts += [line(_X(after), y + _ROW - 4, _X(after), y + _ROW + 4, "axis"), _row_value(_change(loss), y)]
        level = after
    level = max(0.0, level)  # the losses are rounded
    y = _TOP + len(losses) * _ROW
    parts += [_row_label("what is left", y), rect(_X(0), y + 4, _X(level) - _X(0), _ROW - 8, "rest")]
    parts.append(_row_value(number(level), y))
    told = "; ".join([*(f"{step} {_change(loss)}" for step, loss in losses), f"what is left {number(level)}"])
    return svg(y + _ROW + 6, title, f"Change of Dice from 1, step by step: {told}.", [*_unit_axis(y + _ROW), *parts])


def dice_boxes(title: str, groups: Sequence[tuple[str, Sequence[tuple[str, float]]]]) -> str:
    """A box a group, lying, with every (case, value) as a dot below it: quartiles, median, whiskers after Tukey.

    Tukey's whiskers reach to the last value within 1.5 box lengths. A group without a value says so.
    """
    parts, told, height = [], [], 56
    for i, (name, cases) in enumerate(groups):
        y = _TOP + i * height
        parts.append(label(name, 0, y + 20))
        parts.append(label(f"n = {len(cases)}", 0, y + 36, class_="quiet"))
        if not cases:
            parts.append(label("no case", _X(0) + 6, y + 20, class_="quiet"))
            told.append(f"{name}: no case")
            continue
        values = [value for _, value in cases]
        low, median, high = np.percentile(values, (25, 50, 75))
        reach = 1.5 * (high - low)
        ends = min(v for v in values if v >= low - reach), max(v for v in values if v <= high + reach)
        parts += [line(_X(ends[0]), y + 15, _X(ends[1]), y + 15, "axis")]
        parts += [
            rect(_X(low), y + 6, _X(high) - _X(low), 18, "box"),
            line(_X(median), y + 6, _X(median), y + 24, "median"),
        ]
        parts.append(_row_value(number(median), y + 3))
        # Steps of the golden ratio spread dots evenly, however many there are, and always alike.
        parts += [
            point(f"{case}: {number(v)}", _X(v), y + 31 + 14 * (k * 0.618 % 1)) for k, (case, v) in enumerate(cases)
        ]
        told.append(f"{name}: median {number(median)}, quartiles {number(low)} to {number(high)}, {len(cases)} cases")
    bottom = _TOP + len(groups) * height
    return svg(bottom + 6, title, "; ".join(told) + ".", [*_unit_axis(bottom), *parts])


def detection_bars(title: str, bins: Sequence[tuple[str, str, float | None, float | None]]) -> str:
    """Recall and precision of each (size, note, recall, precision), as two bars; None is said, not drawn as 0."""
    parts, told, height = [], [], 52
    for x, name in ((_X(0), "recall"), (_X(0) + 100, "precision")):
        parts += [rect(x, 4, 12, 12, name), label(name, x + 18, 15)]
    for i, (size, note, recall, precision) in enumerate(bins):
        y = _TOP + 22 + i * height
        parts += [label(size, 0, y + 18), label(note, 0, y + 34, class_="quiet")]
        for k, (name, value) in enumerate((("recall", recall), ("precision", precision))):
            top = y + 4 + k * 20
            if value is not None:
                parts.append(rect(_X(0), top, _X(value) - _X(0), 17, name))
            parts.append(_row_value(number(value), top - 3))
        told.append(f"{size}: recall {number(recall)}, precision {number(precision)}")
    bottom = _TOP + 22 + len(bins) * height
    description = "; ".join(told) + "." if told else "No lesions."
    return svg(bottom + 6, title, description, [*_unit_axis(bottom, _TOP + 22), *parts])


def _row_label(text: str, y: float) -> str:
    return label(text, 0, y + 16)


def _row_value(text: str, y: float) -> str:
    return label(text, WIDTH, y + 16, text_anchor="end")


def _change(loss: float) -> str:
    """A loss as a change, with a true minus sign."""
    return f"{-loss:+.3f}".replace("-", "\N{MINUS SIGN}") if abs(loss) >= 5e-4 else "0"


def _unit_axis(bottom: float, top: float = _TOP) -> list[str]:
    """Grid lines with numbers at 0, 0.25 .. 1 above them."""
    parts = []
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(line(_X(value), top, _X(value), bottom, "grid"))
        parts.append(label(f"{value:g}", _X(value), top - 6, text_anchor="middle", class_="quiet"))
    return [element("g", *parts)]
