"""What the size of the windows of prediction is worth to one stage by itself, on patients that it has not seen.

    python -m benchmarks.window_sizes DATA STAGE MODEL [MODEL ...] --sizes 64x96x96 96x128x128

DATA is a prepared dataset, STAGE `liver` or `tumor`, each MODEL of a fold. Every case is predicted by the first model
that has not seen its patient, in the box that trainings look at, and scored as they do it: from .5 on, without the
other stage, fusion and clean-up. One thread; the seconds are of all cases together.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.process import machine
from cascade.checkpoint import Model, load_model
from cascade.inference import as_infer
from cascade.machine import tune_allocator
from cascade.stages import STAGES
from cascade.validation import Validation, validate
from evaluate.detection import Detection
from preprocess.geometry import Index, index3
from preprocess.prepared import PreparedCase, load_dataset


def main() -> None:
    """Predict with each size, print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("stage", choices=tuple(STAGES))
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--sizes", nargs="+", type=_size, required=True, help="voxels (z, y, x), as 96x128x128")
    options = parser.parse_args()
    tune_allocator()
    torch.set_num_threads(1)
    models = [load_model(path, STAGES[options.stage]) for path in options.models]
    unseen = held_out(models, load_dataset(options.data).cases)
    print(f"{machine()}; {options.stage}, {sum(map(len, unseen))} cases\n")
    print("| window | s | Dice | lesions found | false | Dice by case |\n| --- | ---: | --- | ---: | ---: | --- |")
    for size in options.sizes:
        start = time.monotonic()
        parts = [_validated(model, size, cases) for model, cases in zip(models, unseen, strict=True)]
        print(row(size, time.monotonic() - start, Validation.joined(parts, [c.name for part in unseen for c in part])))


def _size(text: str) -> Index:
    return index3([int(n) for n in text.split("x")])


def held_out(models: list[Model], cases: tuple[PreparedCase, ...]) -> list[list[PreparedCase]]:
    """For each model the cases whose patient it has not seen and no model before it took."""
    unseen: list[list[PreparedCase]] = [[] for _ in models]
    for case in cases:
        patient = {known for other in cases if other.patient == case.patient for known in other.known_by}
        able = [k for k, model in enumerate(models) if not patient & {*model.trained_on, *model.chosen_on}]
        if able:
            unseen[able[0]].append(case)
    return unseen


def _validated(model: Model, size: Index, cases: list[PreparedCase]) -> Validation:
    infer = as_infer(model.network(), replace(model.settings.window, size=size), torch.device("cpu"))
    return validate(model.stage, model.preparation, cases, infer)


def row(size: Index, seconds: float, found: Validation) -> str:
    """A line of the table."""
    total = sum(found.found().values(), Detection())
    means = ", ".join(f"{k.removesuffix('_dice')} {v:.3f}" for k, v in found.means().items() if v is not None)
    last = [(name, list(scores.values())[-1]) for name, scores in found.cases.items()]
    each = ", ".join(f"{name} {score:.3f}" for name, score in last if score is not None)
    lesions = f"{total.detected} of {total.truth} | {total.false}" if total.truth else "- | -"
    return f"| {'x'.join(map(str, size))} | {seconds:.0f} | {means} | {lesions} | {each} |"


if __name__ == "__main__":
    main()
