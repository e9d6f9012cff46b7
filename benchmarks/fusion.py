"""What on unseen patients stage 2's weight in the mean of both stages is worth, and fat and gallbladder taken away.

    python -m benchmarks.fusion CASES --liver MODEL ... --tumor MODEL ...
        [--weights 0.5 0.65 0.8 1] [--fat 0 0.5] [--gallbladder -1024 20]

CASES is what `cascade report` takes, the models are those of a cross-validation. Both networks run once a case; then
for each weight (`policy.stage2_weight`), share (`policy.fat_share`) and HU (`policy.gallbladder_hu`) the classes are
made as by `cascade run`, and scored as by `cascade tune`, with several thresholds of liver and tumour; peak and least
size of a lesion are the models'. Means over patients; the tumours' are with that liver threshold whose liver is best.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.process import machine
from cascade.engine import pick_engine
from cascade.machine import tune_allocator
from cascade.sweep import Candidates, CaseTables, sweep
from cascade.tuning import Score, score
from cascade.unseen import Panel, turns
from preprocess.cases import Case
from preprocess.errors import CascadeError
from preprocess.layouts import find_cases, read_label
from preprocess.preparation import Infer
from preprocess.resample import FloatArray

#: Stage 2's weight, the share of fat, and the HU up to which something is the gallbladder.
Way = tuple[float, float, float]
LIVER, TUMOR = (0.3, 0.4, 0.5, 0.6), (0.3, 0.4, 0.5)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", type=Path)
    parser.add_argument("--liver", type=Path, nargs="+", required=True)
    parser.add_argument("--tumor", type=Path, nargs="+", required=True)
    parser.add_argument("--weights", type=float, nargs="+", default=[0.5, 0.65, 0.8, 1.0])
    parser.add_argument("--fat", type=float, nargs="+", default=[0.5])
    parser.add_argument("--gallbladder", type=float, nargs="+", default=[20.0])
    options = parser.parse_args()
    tune_allocator()
    tried = [*itertools.product(options.weights, options.fat, options.gallbladder)]
    tables = swept(options.cases, (options.liver, options.tumor), tried)
    print(f"{machine()}; {len(tables[tried[0]])} cases\n")
    at = [f"liver from {t:g}" for t in LIVER] + [f"tumour from {t:g}: Dice, found, false" for t in TUMOR]
    print(f"| weight | fat | gallbladder | {' | '.join(at)} |\n|{' ---: |' * (3 + len(at))}")
    for way, cases in tables.items():
        print(row(way, cases))
    print("\nLiver of each case, from 0.5 on:")
    for way, cases in tables.items():
        print(way, ", ".join(f"{case.case} {case.liver[LIVER.index(0.5)]:.4f}" for case in cases))


def swept(
    source: Path, models: tuple[Sequence[Path], Sequence[Path]], tried: Sequence[Way]
) -> dict[Way, list[CaseTables]]:
    """For each way the tables of every case whose patient is new to some of `models` of each stage."""
    panel = Panel.load(*models, pick_engine("cpu"))
    cases = [case for case in find_cases(source) if case.label is not None and case.liver_label != "none"]
    tables: dict[Way, list[CaseTables]] = {way: [] for way in tried}
    for turn in turns(cases, panel.runner, held_out_only=True, fail=_give_up):
        liver, tumor = turn.runner.liver, turn.runner.tumor
        assert tumor is not None
        once = replace(liver, infer=Once(liver.infer)), replace(tumor, infer=Once(tumor.infer))
        truth = read_label(turn.case, turn.volume.grid)
        for way in tried:
            policy = replace(tumor.policy, stage2_weight=way[0], fat_share=way[1], gallbladder_hu=way[2])
            thresholds = Candidates(LIVER, TUMOR, (policy.tumor_peak,), (policy.minimum_lesion_mm3,))
            stages = once[0], replace(once[1], policy=policy)
            tables[way].append(sweep(turn.case, turn.volume, truth, stages, thresholds))
    return tables


def _give_up(case: Case, error: CascadeError) -> None:
    sys.exit(f"{case.name}: {error}")


@dataclass
class Once:
    """A network that answers from memory when it is asked the same again."""

    infer: Infer
    _answers: list[tuple[FloatArray, FloatArray]] = field(default_factory=list)

    def __call__(self, image: FloatArray, where: NDArray[np.bool_] | None = None) -> FloatArray:
        """As `infer`."""
        for asked, answer in self._answers:
            if np.array_equal(asked, image):
                return answer.copy()
        self._answers.append((image.copy(), self.infer(image, where)))
        return self._answers[-1][1].copy()


def row(way: Way, cases: Sequence[CaseTables]) -> str:
    """A line of the table."""
    livers = [score(cases, (k, 0, 0, 0)).liver_dice for k in range(len(LIVER))]
    best = int(np.argmax(livers))
    tumors = [score(cases, (best, k, 0, 0)) for k in range(len(TUMOR))]
    scores = [*(f"{dice:.4f}" for dice in livers), *map(_told, tumors)]
    return f"| {' | '.join([*(f'{value:g}' for value in way), *scores])} |"


def _told(scored: Score) -> str:
    dice = "-" if scored.tumor_dice is None else f"{scored.tumor_dice:.3f}"
    return f"{dice}, {scored.found} of {scored.lesions}, {scored.false}"


if __name__ == "__main__":
    main()
