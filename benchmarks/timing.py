"""CPU times of several ways to do one thing, taken in turn: on a shared machine only ratios of neighbours mean much."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any


def interleaved(ways: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of this process for each way in each round, all ways once a round."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            start = time.process_time()
            work()
            seconds[name].append(time.process_time() - start)
    return seconds


def markdown(seconds: Mapping[str, list[float]]) -> str:
    """The median of each way in CPU seconds, and the first way's multiple of it (median over the rounds)."""
    first = next(iter(seconds.values()))
    lines = ["| | CPU s | times faster |", "| --- | ---: | ---: |"]
    for name, each in seconds.items():
        ratio = median(a / b for a, b in zip(first, each, strict=True))
        lines.append(f"| {name} | {median(each):.3f} | {ratio:.1f} |")
    return "\n".join(lines)
