"""What changed settings are worth to one stage by itself, every patient held out once.

    python -m benchmarks.one_stage SCANS OUT STAGE [--row NAME SETTING ...]... [--steps 1500] [--seeds 1] [--folds 2]
        [--painted]

SCANS is what `cascade prepare` takes, STAGE `liver` or `tumor`. The first row is the recipe, each --row the recipe with
other settings. As in `benchmarks.ablation`, networks are half as wide as the recipe's, on patches of 64^3, and at 2 mm
where stage 2 is: 1500 steps take a core about six minutes in bfloat16. What is held out is predicted on that grid.

Stage 1 is scored by Dice of the largest part of what it calls liver, stage 2 in the true liver: by the average
precision of its voxels (the area under precision against recall, which asks for no threshold; Everingham et al., IJCV
88, 2010) and by Dice at that threshold which suits the row and seed best, so optimistic. Both are means over patients.
"false in healthy" is what it calls tumour from that threshold on in livers without any, in mL. What was trained is kept
in OUT, and not trained again; a training that was stopped goes on.

With --painted one training sees all livers but no true tumour, only those of `[lesions]`: where true ones are it is
told nothing. So it has seen none of the true ones, and the score says how much the painted ones are like them.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import ablation_rows
from benchmarks.ablation import in_turn, prepared, small_settings, trained
from benchmarks.process import machine
from cascade.checkpoint import load_model
from cascade.inference import as_infer
from cascade.stages import STAGES
from cascade.training_state import BEST
from evaluate.overlap import overlap
from preprocess.components import largest
from preprocess.prepared import PreparedCase, load_dataset

THRESHOLDS = [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9, 0.95]
#: Instead of a fold: trained on all livers, but on no true tumour.
PAINTED = "painted"
Scores = Mapping[str, Any]


def main() -> None:
    """Train, predict, print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scans", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("stage", choices=tuple(STAGES))
    parser.add_argument("--row", nargs="+", action="append", default=[], metavar="NAME", help="and its settings")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--painted", action="store_true", help="no folds: learn from synthetic tumours alone")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    prepared(options.scans, options.out, ["cascade"])
    rows = {"recipe": [], **{name: changes for name, *changes in options.row}}
    folds = [PAINTED] if options.painted else [f"{k}/{options.folds}" for k in range(options.folds)]
    asked = list(itertools.product(rows, options.seeds, folds))
    trainings = [
        (
            f"{options.stage}-{row}-{options.steps}-{seed}-{fold.replace('/', 'of')}",
            [*rows[row], f"training.seed={seed}", f"training.steps={options.steps}"],
            fold,
        )
        for row, seed, fold in asked
    ]
    found = dict(zip(asked, in_turn(partial(_one, options.out, options.stage), trainings, options.jobs), strict=True))
    scores = {
        row: [{name: case for fold in folds for name, case in found[row, seed, fold].items()} for seed in options.seeds]
        for row in rows
    }
    patients = {case.name: case.patient for case in load_dataset(options.out / "cascade").cases}
    table = {"liver": liver_table, "tumor": tumor_table}[options.stage]
    how = "painted tumours only" if options.painted else f"{options.folds} folds"
    print(f"{machine()}; {options.stage}, {options.steps} steps, {how}\n")
    print(table(scores, patients))


def _one(out: Path, stage: str, name: str, changes: Sequence[str], fold: str) -> dict[str, Scores]:
    """The scores of the cases that `fold` holds out, by their names; of all where only painted tumours were shown."""
    dataset, settings = load_dataset(out / "cascade"), small_settings(stage, *changes)
    if fold == PAINTED:
        with ablation_rows.painted_only():
            trained(out / name, dataset, STAGES[stage], settings, "all")
        held_out = list(dataset.cases)
    else:
        held_out = trained(out / name, dataset, STAGES[stage], settings, fold)
    infer = as_infer(load_model(out / name / BEST, STAGES[stage]).network(), settings.window, torch.device("cpu"))
    voxel_ml = math.prod(dataset.preparations[stage].spacing_mm) / 1000
    cases = {}
    for case in held_out:
        found = infer(np.asarray(case.image(stage), np.float32), None)
        cases[case.name] = liver_scores(found[0], case) if stage == "liver" else tumor_scores(found[1], case, voxel_ml)
    return cases


def liver_scores(probability: NDArray[np.float32], case: PreparedCase) -> Scores:
    """Dice, false and missed share of the true liver, by threshold."""
    truth = case.labels("liver") > 0
    scores = []
    for threshold in THRESHOLDS:
        counts = overlap(largest(probability >= threshold), truth)
        false, missed = counts.prediction - counts.both, counts.truth - counts.both
        scores.append([counts.dice(), false / counts.truth, missed / counts.truth])
    return {"liver": scores}


def tumor_scores(probability: NDArray[np.float32], case: PreparedCase, voxel_ml: float) -> Scores:
    """Average precision and Dice by threshold where there is tumour, what is false where there is none, in mL."""
    labels = case.labels("tumor")
    if not case.scores_tumor:
        return {}
    inside = probability[labels > 0]
    truth = labels[labels > 0] == 2
    if not truth.any():
        return {"false": [float(np.count_nonzero(inside >= t) * voxel_ml) for t in THRESHOLDS]}
    dice = [overlap(inside >= threshold, truth).dice() for threshold in THRESHOLDS]
    return {"precision": average_precision(inside, truth), "dice": dice}


def average_precision(probability: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    """The mean precision at each true voxel, from the most probable one on; voxels of a kind in the order given."""
    ranked = truth[np.argsort(-probability, kind="stable")]
    precision = np.cumsum(ranked) / np.arange(1, ranked.size + 1)
    return float(precision[ranked].mean())


def by_patient(scores: Scores, patients: Mapping[str, str], key: str) -> dict[str, NDArray[np.float64]]:
    """The mean of `key` over the cases of each patient that have it."""
    found: dict[str, list[Any]] = {}
    for case, values in scores.items():
        if key in values:
            found.setdefault(patients[case], []).append(values[key])
    return {patient: np.mean(np.array(values), axis=0) for patient, values in found.items()}


def liver_table(rows: Mapping[str, Sequence[Scores]], patients: Mapping[str, str]) -> str:
    """A line a row: Dice at the threshold that suits it best, false and missed there, by seed; Dice by patient."""
    lines = []
    for row, seeds in rows.items():
        each = [by_patient(seed, patients, "liver") for seed in seeds]
        means = [np.mean(list(seed.values()), axis=0) for seed in each]
        best = [int(seed[:, 0].argmax()) for seed in means]
        shown = [_listed([float(m[b, k]) for m, b in zip(means, best, strict=True)]) for k in range(3)]
        dice = {p: mean(float(seed[p][b, 0]) for seed, b in zip(each, best, strict=True)) for p in each[0]}
        lines.append((row, [*shown, _named(dice)]))
    return _markdown(["", "liver Dice by seed", "false", "missed", "by patient"], lines)


def tumor_table(rows: Mapping[str, Sequence[Scores]], patients: Mapping[str, str]) -> str:
    """A line a row: average precision, best Dice and its threshold by seed; precision by patient, the seeds' mean."""
    lines = []
    for row, seeds in rows.items():
        precision = [by_patient(seed, patients, "precision") for seed in seeds]
        dice = [np.mean(list(by_patient(seed, patients, "dice").values()), axis=0) for seed in seeds]
        best = [int(seed.argmax()) for seed in dice]
        false = [_false(seed, patients, b) for seed, b in zip(seeds, best, strict=True)]
        shown = [_listed([float(np.mean(list(p.values()))) for p in precision])]
        shown.append(_listed([float(d[b]) for d, b in zip(dice, best, strict=True)]))
        shown.append(", ".join(str(THRESHOLDS[b]) for b in best))
        shown.append(", ".join(f"{ml:.1f}" for ml in false))
        lines.append((row, [*shown, _named({p: mean(float(s[p]) for s in precision) for p in precision[0]})]))
    title = [
        "",
        "average precision by seed",
        "Dice at best threshold",
        "that threshold",
        "false in healthy, mL",
        "precision by patient",
    ]
    return _markdown(title, lines)


def _false(seed: Scores, patients: Mapping[str, str], threshold: int) -> float:
    healthy = by_patient(seed, patients, "false").values()
    return mean(float(ml[threshold]) for ml in healthy) if healthy else float("nan")


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def _named(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in sorted(values.items()))


def _markdown(title: Sequence[str], lines: Sequence[tuple[str, Sequence[str]]]) -> str:
    head = ["| " + " | ".join(title) + " |", "|" + " --- |" * len(title)]
    return "\n".join([*head, *(f"| {row} | " + " | ".join(cells) + " |" for row, cells in lines)])


if __name__ == "__main__":
    main()
