"""Seconds per iteration of training by cascade and by nnU-Net v2, of the same networks; and is loading hidden?

    python -m benchmarks.train [--networks recipe plain] [--patches 64 96] [--rounds 3] [--nnunet PYTHON] [--tiny]

"recipe" is the network of configs/tumor.toml; "plain" the one of 32 to 320 channels that nnU-Net would plan for such
patches. Batches of two. cascade runs `cascade.training.train` itself (bf16 where the CPU has it, its allocator,
Muon, its loss, deep supervision, gradient clipping, running mean, logs), once more in float32 with the allocator as
installed ("untuned fp32 torch"). nnU-Net runs `nnUNetTrainer.train_step` (its loss, SGD, deep supervision, float32 on
a CPU) as installed and with a tuned allocator; of "recipe" it trains cascade's network, of "plain" its own.

Every side is a process of its own, frozen while another has its turn. First noise, of which nothing is loaded: one
iteration a turn. Then, for the first network and the last patch, the real loaders of both sides on the same synthetic
scans, with their augmentation, several iterations a turn: what a batch is waited for stands beside the whole. Nothing
is extrapolated. nnU-Net: see benchmarks/rivals.py. Peak memory is that of the main process; nnU-Net's loader has
others beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.process import TUNED, Turns, machine, spread
from benchmarks.scans import labelled_scan
from cascade.settings import load_settings
from cascade.stages import STAGES
from preprocess.build import StagePlan, prepare_dataset
from preprocess.cases import Case, LabelFile

#: The scans of the loaders' turns: what nnU-Net resamples to is the same spacing that cascade's recipe leads to.
SPACING_MM = (1.25, 1.25, 1.25)
SIDES = ("cascade", "nnU-Net as installed", "nnU-Net, tuned allocator", "untuned fp32 torch")
PLAIN = [32, 64, 128, 256, 320]


def main() -> None:
    """Print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=("recipe", "plain"), default=["recipe", "plain"])
    parser.add_argument("--patches", type=int, nargs="+", default=[64, 96])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=10, help="of a turn with the real loaders; 0: without them")
    parser.add_argument("--nnunet", default=sys.executable, metavar="PYTHON", help="an interpreter that has nnunetv2")
    parser.add_argument("--tiny", action="store_true", help="tiny networks, patches and scans, to try the script out")
    options = parser.parse_args()
    print(machine(options.nnunet))
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), options.nnunet, tiny=options.tiny)
        for network in options.networks:
            for patch in options.patches:
                print(f"\n{network}, patch {patch}^3, noise\n", flush=True)
                print(table(bench.measured(network, patch, options.rounds, 0)), flush=True)
        if options.iterations:
            network, patch = options.networks[0], options.patches[-1]
            print(f"\n{network}, patch {patch}^3, real loaders\n", flush=True)
            print(table(bench.measured(network, patch, options.rounds, options.iterations)), flush=True)


class Bench:
    """Two scans, prepared by either side, and what is trained on them; everything inside `folder`."""

    def __init__(self, folder: Path, nnunet: str, *, tiny: bool) -> None:
        self._folder, self._nnunet, self._tiny, self._count = folder, nnunet, tiny, 0
        shape, self._spacing = ((160, 240, 300), SPACING_MM) if not tiny else ((40, 60, 80), (5.0, 5.0, 5.0))
        self._scans = [labelled_scan(folder, f"scan-{seed}", shape, self._spacing, seed) for seed in (0, 1)]
        cases = [Case(image.name[:6], image, LabelFile(label)) for image, label in self._scans]
        limits = (f"preparation.finest_mm={[*self._spacing]}", f"preparation.coarsest_mm={[*self._spacing]}")
        plans = {
            name: StagePlan(load_settings(name, assignments=limits).preparation, stage.training_box)
            for name, stage in STAGES.items()
        }
        prepare_dataset(cases, folder / "data", plans, 1, lambda progress: None)

    def measured(self, network: str, patch: int, rounds: int, real: int) -> dict[str, list[dict[str, Any]]]:
        """The turns of each side: `real` iterations a turn with its loader, or one with noise after one to warm up."""
        turns: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES if not (real and "untuned" in side)}
        with ExitStack() as stack:
            workers = {side: stack.enter_context(self._worker(side, network, patch, real)) for side in turns}
            for number in range(rounds + 1):
                for side, worker in workers.items():
                    turn = worker.turn()
                    print(f"turn {number}, {side}: {json.dumps(turn)}", file=sys.stderr, flush=True)
                    if number:
                        turns[side].append(turn)
        return turns

    def _worker(self, side: str, network: str, patch: int, real: int) -> Turns:
        features, stem = self._network(network)
        self._count += 1
        if side.startswith("nnU-Net"):
            given = {
                "folder": str(self._folder / "nnunet"),
                "scans": [[str(path) for path in pair] for pair in self._scans],
                "kind": network,
                "real": bool(real),
                "iterations": real or 1,
                "features": features,
                "stem": stem,
                "patch": [patch] * 3,
                "spacing_mm": self._spacing,
            }
            command = [self._nnunet, "-m", "benchmarks.nnunet", "train", json.dumps(given)]
            return Turns(command, TUNED if "tuned" in side else {})
        given = {
            "data": str(self._folder / "data"),
            "out": str(self._folder / f"run-{self._count}"),
            "sets": [
                f"network.features={features}",
                f"network.stem={stem}",
                f"sampling.patch={[patch] * 3}",
                "sampling.batch=2",
            ],
            "plain": "untuned" in side,
            "real": bool(real),
            "iterations": real or 1,
        }
        return Turns([sys.executable, "-m", "benchmarks.train_turns", json.dumps(given)])

    def _network(self, network: str) -> tuple[list[int], int]:
        if self._tiny:
            return ([4, 8, 8, 8], 2) if network == "recipe" else ([4, 8, 8, 8, 8], 1)
        recipe = load_settings("tumor").network
        return ([*recipe.features], recipe.stem) if network == "recipe" else (PLAIN, 1)


def table(turns: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """One line a side: seconds an iteration and the wait in it, median over the turns; then cascade's share of each."""
    lines = ["| | s an iteration | of it waiting for a batch, s | peak, GB |", "| --- | ---: | ---: | ---: |"]
    each = {side: [median(turn["seconds"]) for turn in own] for side, own in turns.items()}
    for side, own in turns.items():
        waits = [sum(turn["waits"]) / len(turn["waits"]) for turn in own]
        lines.append(f"| {side} | {spread(each[side])} | {spread(waits, 3)} | {own[-1]['peak']:.2f} |")
    lines.append("")
    for side, seconds in each.items():
        if side != "cascade":
            shares = [a / b for a, b in zip(each["cascade"], seconds, strict=True)]
            lines.append(f"- cascade takes {spread(shares)} of the time of {side}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
