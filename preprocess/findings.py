"""What a check of a dataset finds, one line each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from preprocess.text import short

_LISTED = 10


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or odd with `cases` (none: with the dataset as a whole), with its value and the remedy.

    An `error` makes a case unfit for training; a `warning` is to be looked at.
    """

    severity: Literal["error", "warning"]
    text: str
    cases: tuple[str, ...] = ()


def error(text: str, *cases: str) -> Finding:
    """A finding that makes `cases` unfit for training."""
    return Finding("error", text, cases)


def warning(text: str, *cases: str) -> Finding:
    """A finding that a person should look at."""
    return Finding("warning", text, cases)


def has_errors(findings: Iterable[Finding]) -> bool:
    """Whether any of them is an error."""
    return any(finding.severity == "error" for finding in findings)


def listed(items: Sequence[object]) -> str:
    """The first ten items in one line, and how many more there are."""
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return ", ".join(map(short, items[:_LISTED])) + more
