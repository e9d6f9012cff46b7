"""The Bland-Altman chart of predicted against true volumes.

Bland and Altman, "Statistical methods for assessing agreement between two methods of clinical measurement", Lancet 327,
307-310, 1986: the difference of two measurements against their mean, the bias, and the limits bias +- 1.96 SD within
which 95 % of the differences lie if they are normal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from evaluate.svg import WIDTH, Scale, label, line, point, svg, ticks
from evaluate.text import number

_LEFT, _RIGHT, _TOP, _BOTTOM = 62, WIDTH - 8, 20, 250


@dataclass(frozen=True)
class Agreement:
    """`bias` is the mean of prediction minus truth; `low` and `high` the limits of agreement, None for one case."""

    bias: float
    low: float | None
    high: float | None


def agreement(differences: Sequence[float]) -> Agreement | None:
    """Bias and limits of the differences prediction - truth, with the SD of n - 1; None without any."""
    if not differences:
        return None
    bias = fmean(differences)
    if len(differences) == 1:
        return Agreement(bias, None, None)
    reach = 1.96 * stdev(differences)
    return Agreement(bias, bias - reach, bias + reach)


def bland_altman(title: str, cases: Sequence[tuple[str, float, float]], unit: str = "mL") -> str:
    """Difference over mean of each (case, prediction, truth), with lines for bias and limits of agreement."""
    differences = [prediction - truth for _, prediction, truth in cases]
    found = agreement(differences)
    if found is None:
        return svg(40, title, "No case.", [label("no case", 0, 24, class_="quiet")])
    lines = [("bias", found.bias)]
    if found.low is not None and found.high is not None and found.low < found.high:
        lines += [("upper limit", found.high), ("lower limit", found.low)]
    means = [(prediction + truth) / 2 for _, prediction, truth in cases]
    heights = [0.0, *differences, *(value for _, value in lines)]
    pad = 0.08 * (max(heights) - min(heights)) or 1.0
    x = Scale(*_padded(min(means), max(means)), _LEFT, _RIGHT)
    y = Scale(min(heights) - pad, max(heights) + pad, _BOTTOM, _TOP)
    parts = _axes(x, y, unit)
    for name, value in lines:
        parts.append(line(_LEFT, y(value), _RIGHT, y(value), "bias" if name == "bias" else "limit"))
        parts.append(label(f"{name} {value:+.1f}", _RIGHT, y(value) - 4, text_anchor="end", class_="halo"))
    for (case, prediction, truth), mean, difference in zip(cases, means, differences, strict=True):
        parts.append(point(f"{case}: {number(prediction, 1)}, true {number(truth, 1)} {unit}", x(mean), y(difference)))
    told = ", ".join(f"{name} {value:+.1f} {unit}" for name, value in lines)
    return svg(_BOTTOM + 46, title, f"Prediction minus truth in {len(cases)} cases: {told}.", parts)


def _padded(low: float, high: float) -> tuple[float, float]:
    """A little more on both sides, but nothing below 0: a volume is never negative."""
    pad = 0.05 * (high - low or high) or 1.0
    return max(0.0, low - pad), high + pad


def _axes(x: Scale, y: Scale, unit: str) -> list[str]:
    parts = [line(_LEFT, _BOTTOM, _RIGHT, _BOTTOM, "axis")]
    for value in ticks(y.low, y.high):
        parts.append(line(_LEFT, y(value), _RIGHT, y(value), "axis" if value == 0 else "grid"))
        parts.append(label(f"{value:g}", _LEFT - 6, y(value) + 4, text_anchor="end", class_="quiet"))
    for value in ticks(x.low, x.high):
        parts.append(line(x(value), _BOTTOM, x(value), _BOTTOM + 4, "axis"))
        parts.append(label(f"{value:g}", x(value), _BOTTOM + 18, text_anchor="middle", class_="quiet"))
    parts.append(label(f"prediction - truth ({unit})", 0, 12, class_="quiet"))
    parts.append(label(f"mean of both ({unit})", _RIGHT, _BOTTOM + 36, text_anchor="end", class_="quiet"))
    return parts
