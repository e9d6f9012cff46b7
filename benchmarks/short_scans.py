"""What the installed models find in scans that show a part of the liver: Dice of the liver, with the end slices
repeated (`preprocess.preparation.continued`), as `cascade run` has it, and without.

    python -m benchmarks.short_scans cases.csv [--cases lits-46 chaos-3]

"slab": so many mm in the lower, middle and upper third of the liver. "top" and "tip": so many mm of its upper or lower
end, with all that the scan shows beyond. Nothing is timed here.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from unittest.mock import patch

import numpy as np

from cascade.checkpoint import load_stage_models
from cascade.engine import pick_engine
from cascade.machine import tune_allocator
from cascade.pipeline import LiverStage, Stopwatch, TumorStage, liver_stage, segment, tumor_stage
from evaluate.overlap import dice
from preprocess.geometry import Box
from preprocess.io import read_scan
from preprocess.layouts import find_cases, read_label
from preprocess.volume import LabelMap, Volume

_HEIGHTS_MM = (0, 12, 24, 40, 60, 80)
_Stages = tuple[LiverStage, TumorStage]


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--cases", nargs="+")
    options = parser.parse_args()
    scores: dict[tuple[str, int], list[list[float]]] = {}
    for case in find_cases(options.source):
        if options.cases and case.name not in options.cases:
            continue
        volume = read_scan(case.image).volume
        labels = read_label(case, volume.grid)
        for shown, part in _parts(labels):
            both = _both_ways(volume.cropped(part), labels.cropped(part))
            scores.setdefault(shown, []).append(both)
    print("| shown | scans | continued: Dice (least), not found | as they are: Dice (least), not found |")
    print("| --- | ---: | ---: | ---: |")
    for (what, mm), rows in scores.items():
        told = [f"{mean(s):.3f} ({min(s):.3f}), {s.count(0)}" for s in zip(*rows, strict=True)]
        print(f"| {what}, {mm or 'one slice'}{' mm' if mm else ''} | {len(rows)} | " + " | ".join(told) + " |")


def _both_ways(volume: Volume, truth: LabelMap) -> list[float]:
    """Dice of the liver with the end slices repeated, and without, when no less of a liver counts either."""
    with (
        patch("cascade.pipeline.continued", lambda infer, step_mm: infer),
        patch("cascade.pipeline.share_shown", lambda grid: 1.0),
    ):
        plain = _liver(volume, truth, _stages())
    return [_liver(volume, truth, _stages()), plain]


def _stages() -> _Stages:
    engine = pick_engine("cpu")
    return liver_stage(load_stage_models(None, "liver"), engine), tumor_stage(load_stage_models(None, "tumor"), engine)


def _parts(labels: LabelMap) -> Iterator[tuple[tuple[str, int], Box]]:
    count, rows, columns = labels.grid.shape
    step = labels.grid.spacing_mm[0]
    slices = np.flatnonzero(labels.array.any(axis=(1, 2)))
    low, high = int(slices[0]), int(slices[-1]) + 1

    def part(start: int, stop: int) -> Box:
        return Box((max(0, start), 0, 0), (min(count, stop), rows, columns))

    for mm in _HEIGHTS_MM:
        n = max(1, round(mm / step))
        for share in (0.25, 0.5, 0.75):
            start = min(max(0, round(low + share * (high - low) - n / 2)), count - n)
            yield ("slab", mm), part(start, start + n)
    if low > 0 and high < count:
        for mm in (20, 30, 40, 60):
            yield ("top", mm), part(high - round(mm / step), count)
            yield ("tip", mm), part(0, low + round(mm / step))


def _liver(volume: Volume, truth: LabelMap, stages: _Stages) -> float:
    return dice(segment(volume, *stages, Stopwatch()).labels.array > 0, truth.array > 0)


if __name__ == "__main__":
    tune_allocator()
    main()
