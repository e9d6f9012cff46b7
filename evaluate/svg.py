"""The few pieces of SVG that the charts are made of. Colours come from the style sheet of `evaluate.page`, by class."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from evaluate.text import printable

#: Width of every chart in user units; a phone shows it at about four fifths, which leaves the text readable.
WIDTH = 480


def text_of(value: str) -> str:
    """`value` as text in HTML or SVG, also inside an attribute: no markup, no control or bidirectional characters."""
    return html.escape(printable(value))


def element(tag: str, *children: str, **attributes: str | float) -> str:
    """An element; `children` is finished markup (`text_of` makes it), `class_` is `class`, `a_b` is `a-b`."""
    pairs = (f' {name.rstrip("_").replace("_", "-")}="{_value(value)}"' for name, value in attributes.items())
    return f"<{tag}{''.join(pairs)}>{''.join(children)}</{tag}>"


def _value(value: str | float) -> str:
    return text_of(value) if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")


def label(text: str, x: float, y: float, **attributes: str | float) -> str:
    """A line of text whose baseline starts (or ends, or is centred, by `text_anchor`) at (x, y)."""
    return element("text", text_of(text), x=x, y=y, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def rect(x: float, y: float, width: float, height: float, class_: str) -> str:
    """A rectangle, at least one unit wide: a value of 0 must not be invisible."""
    return element("rect", x=x, y=y, width=max(width, 1), height=height, class_=class_)


def point(name: str, x: float, y: float) -> str:
    """A dot that says `name` under the mouse."""
    return element("circle", element("title", text_of(name)), cx=x, cy=y, r=3.5, class_="point")


def svg(height: float, title: str, description: str, parts: Sequence[str]) -> str:
    """A chart of `WIDTH` by `height`, which a screen reader calls `title` and explains with `description`."""
    named = element("title", text_of(title)), element("desc", text_of(description))
    return element("svg", *named, *parts, role="img", viewBox=f"0 0 {WIDTH} {height:g}")


@dataclass(frozen=True)
class Scale:
    """A straight map from values `low`..`high` to positions `start`..`stop`; a range without extent to the middle."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        """The position of `value`."""
        if self.high == self.low:
            return (self.start + self.stop) / 2
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)


def ticks(low: float, high: float) -> list[float]:
    """A few round numbers within low..high, 1, 2 or 5 times a power of ten apart; only `low` without extent."""
    if not high > low:
        return [low]
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough)
    # Rounded: 3 * 0.1 is not 0.3, and a tick is also a text.
    return [round(i * step, 10) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
