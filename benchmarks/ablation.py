"""What the cascade and each part of stage 2's training are worth, all in one set-up.

    python -m benchmarks.ablation SCANS OUT [--steps 1100] [--seeds 1 2 3] [--rows ...] [--fold 1/2] [--jobs 2]

SCANS is what `cascade prepare` takes. Every row has as many steps: "whole" spends them on one network, the others a
third on stage 1, which they share, and the rest on stage 2. All networks are the recipe's, but half as wide, on patches
of 64^3 and in windows of 96^3, and at 2 mm where stage 2 is, so that a core gets somewhere: 1100 steps take it about a
quarter of an hour in float32. `benchmarks.ablation_rows` says what each row changes. The scans held out are then
predicted whole, with the same thresholds and clean-up, and scored on their own grids; lesions are found when they are
touched. So short trainings are seldom sure enough of a tumour for these thresholds: beside it stands the Dice of all
tumour voxels in the liver, without clean-up, from the threshold on that suits the row and seed best, chosen on the
scored scans. What was trained is kept in OUT, and not trained again; a training that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from benchmarks import ablation_rows
from benchmarks.ablation_rows import ROWS
from benchmarks.process import machine
from cascade.checkpoint import Model, load_model
from cascade.commands.training import split_by_fold
from cascade.machine import tune_allocator
from cascade.ranks import Ranks
from cascade.resume import RESUME
from cascade.settings import Settings, as_table, load_settings
from cascade.stages import STAGES, Stage
from cascade.training import train
from cascade.training_state import BEST, Job
from evaluate.detection import Detection, touched
from evaluate.overlap import dice
from preprocess.build import StagePlan, prepare_dataset
from preprocess.cases import Case
from preprocess.errors import UsageError
from preprocess.io import read_scan
from preprocess.layouts import find_cases, read_label
from preprocess.prepared import PreparedCase, PreparedDataset, load_dataset
from preprocess.volume import TUMOR

#: The network that all rows but "whole" have as their stage 1.
LIVER = "liver"
#: Of the probability of tumour, for "at its best threshold".
THRESHOLDS = [0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
SMALL = [
    "network.features=[16, 32, 64, 80]",
    "sampling.patch=[64, 64, 64]",
    "sampling.batch=2",
    "window.size=[96, 96, 96]",
    "training.validations=1",
]
CHANGED = {
    "liver": SMALL,
    "tumor": [*SMALL, "preparation.finest_mm=[2, 2, 2]", "preparation.coarsest_mm=[2.5, 2, 2]"],
}


def main() -> None:
    """Train, predict, print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scans", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=1100, help="a row and seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--rows", nargs="+", choices=tuple(ROWS), default=list(ROWS), metavar="ROW", help=", ".join(ROWS)
    )
    parser.add_argument("--fold", default="1/2")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    prepared(options.scans, options.out)
    networks = [*([LIVER] if options.rows != ["whole"] else []), *options.rows]
    trainings = [(name, seed) for seed in options.seeds for name in networks]
    in_turn(partial(_trained, options.out, options.fold, options.steps), trainings, options.jobs)
    asked = [(row, seed) for row in options.rows for seed in options.seeds]
    scores = in_turn(partial(_scored, options.scans, options.out, options.fold), asked, options.jobs)
    print(f"{machine()}; {options.steps} steps a row and seed, fold {options.fold}\n")
    print(table({row: [s for (r, _), s in zip(asked, scores, strict=True) if r == row] for row in options.rows}))


def prepared(scans: Path, out: Path, names: Sequence[str] = ("cascade", "whole")) -> None:
    """The datasets: "cascade" holds what the stages keep of a scan, "whole" all of it at stage 2's spacing."""
    for name in names:
        boxes = {stage: STAGES[stage].training_box for stage in STAGES}
        if name == "whole":
            boxes["tumor"] = ablation_rows.whole_scan
        plans = {stage: StagePlan(small_settings(stage).preparation, box) for stage, box in boxes.items()}
        prepare_dataset(find_cases(scans), out / name, plans, 2, lambda progress: None)


def small_settings(stage: str, *more: str) -> Settings:
    """The recipe of `stage`, but small and coarse, and with `more` of its settings changed."""
    return load_settings(stage, assignments=[*CHANGED[stage], *more])


def in_turn(work: Any, asked: Sequence[tuple[Any, ...]], jobs: int) -> list[Any]:
    """`work` called with each of `asked`, each in a process of its own on one core."""
    with ProcessPoolExecutor(jobs, get_context("spawn"), _begin, max_tasks_per_child=1) as pool:
        return list(pool.map(work, *zip(*asked, strict=True)))


def _begin() -> None:
    tune_allocator()
    torch.set_num_threads(1)


def _trained(out: Path, fold: str, steps: int, name: str, seed: int) -> None:
    stage = "liver" if name == LIVER else "tumor"
    share = {LIVER: 1 / 3, "whole": 1.0}.get(name, 2 / 3)
    changes = () if name == LIVER else ROWS[name].changes
    settings = small_settings(stage, f"training.seed={seed}", f"training.steps={round(steps * share)}", *changes)
    special = {"whole": ablation_rows.WHOLE, "by-voxel": ablation_rows.BY_VOXEL}
    with ablation_rows.as_row(name):
        trained(out / f"{name}-{seed}", _dataset(out, name), special.get(name, STAGES[stage]), settings, fold)


def trained(folder: Path, dataset: PreparedDataset, stage: Stage, settings: Settings, fold: str) -> list[PreparedCase]:
    """The cases that `fold` holds out of a training in `folder`, which is made, or gone on with, unless it has ended.

    Raises UsageError when what is there was trained with other settings or on other scans.
    """
    learners, held_out = split_by_fold(dataset.cases, fold)
    asked = json.loads(json.dumps({"settings": as_table(settings), "learners": [c.survey.content for c in learners]}))
    done = folder / "done.json"
    if done.exists():
        if (there := json.loads(done.read_text())["asked"]) != asked:
            raise UsageError(f"{folder}: trained {_difference(there, asked)}; give another OUT")
        return held_out
    resume = (folder / RESUME).exists()
    folder.mkdir(parents=True, exist_ok=True)
    ranks = Ranks(torch.device("cpu"))
    job = Job(stage, settings, dataset.preparations[stage.name], learners, [], folder, ranks, resume=resume)
    done.write_text(json.dumps({"steps": train(job, lambda *_: None).steps, "asked": asked}))
    return held_out


def _difference(there: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """What differs between the training that is there and the one that is asked for."""
    tables = [name for name, table in asked["settings"].items() if there["settings"].get(name) != table]
    return f"with other [{', '.join(tables)}]" if tables else "on other scans"


def _dataset(out: Path, name: str) -> PreparedDataset:
    return load_dataset(out / ("whole" if name == "whole" else "cascade"))


def _scored(scans: Path, out: Path, fold: str, row: str, seed: int) -> dict[str, Any]:
    """Dice and lesions by held-out case, and the steps of each network."""
    names = (LIVER, row) if row != "whole" else (row,)
    stages = ["liver" if name == LIVER else "tumor" for name in names]
    folders = [out / f"{name}-{seed}" for name in names]
    _, held_out = split_by_fold(_dataset(out, row).cases, fold)
    cases = {case.name: case for case in find_cases(scans)}
    with ablation_rows.as_row(row):
        models = [load_model(f / BEST, STAGES[s]) for f, s in zip(folders, stages, strict=True)]
        rows = {case.name: _one(cases[case.name], models) for case in held_out}
    steps = {n: json.loads((f / "done.json").read_text())["steps"] for n, f in zip(names, folders, strict=True)}
    scores = {"cases": rows, "steps": steps}
    (out / f"scores-{row}-{seed}.json").write_text(json.dumps(scores, indent=1))
    return scores


def _one(case: Case, models: Sequence[Model]) -> dict[str, Any]:
    volume = read_scan(case.image).volume
    truth, found = read_label(case, volume.grid), ablation_rows.predicted(volume, models)
    scores: dict[str, Any] = {"liver": dice(found.labels.array > 0, truth.array > 0)}
    if case.scores_tumor:
        tumor, true = found.labels.array == TUMOR, truth.array == TUMOR
        lesions = touched(tumor, true, truth.grid.voxel_ml)
        scores |= {"tumor": dice(tumor, true), "lesions": asdict(sum(lesions.values(), Detection()))}
        scores["by_threshold"] = [dice(found.tumor >= threshold, true) for threshold in THRESHOLDS]
    return scores


def table(scores: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """A line a row of the ablation: means over the cases, least and most of the seeds, lesions and steps by seed."""
    lines = [
        "| | liver Dice | tumour Dice | at its best threshold | lesions found | false | steps |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row, seeds in scores.items():
        cells = [_mean(seeds, "liver"), _mean(seeds, "tumor"), _spread([_best(seed) for seed in seeds])]
        counts = [[case["lesions"] for case in seed["cases"].values() if "lesions" in case] for seed in seeds]
        found = ", ".join(str(sum(c["detected"] for c in each)) for each in counts)
        cells.append(f"{found} of {sum(c['truth'] for c in counts[0])}")
        cells.append(", ".join(str(sum(c["predicted"] - c["correct"] for c in each)) for each in counts))
        cells.append(", ".join(" + ".join(map(str, seed["steps"].values())) for seed in seeds))
        lines.append(f"| {ROWS[row].label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _mean(seeds: Sequence[Mapping[str, Any]], region: str) -> str:
    return _spread([mean(case[region] for case in seed["cases"].values() if region in case) for seed in seeds])


def _best(seed: Mapping[str, Any]) -> float:
    """The mean tumour Dice of all tumour voxels in the liver from that threshold on which suits the row best."""
    cases = [case["by_threshold"] for case in seed["cases"].values() if "by_threshold" in case]
    return max(float(mean(scores)) for scores in zip(*cases, strict=True))


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.3f} ({min(values):.3f}-{max(values):.3f})"


if __name__ == "__main__":
    main()
