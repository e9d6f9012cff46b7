"""Our figures beside those of the challenge's scorer (its formulas, as in tests/evaluate/official.py).

python -m benchmarks.lits_scorer
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

import evaluate
from benchmarks.masks import liver_pair
from benchmarks.process import asked_for_help
from evaluate.detection import detection
from preprocess.volume import LIVER, TUMOR
from tests.evaluate import official

#: A small case, quick for a scorer that compares every lesion with every other.
SHAPE, SPACING = (64, 96, 120), (3.0, 2.0, 2.0)

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def _line(prediction: str, truth: str) -> Pair:
    """Labels along x: `#` is tumour in a liver."""
    first, second = (np.array([[[2 if c == "#" else 1 for c in text]]], np.uint8) for text in (prediction, truth))
    return first, second


def _cases() -> Iterator[tuple[str, Pair]]:
    for count in (3, 6, 12):
        yield f"{count} tumours", liver_pair(SHAPE, SPACING, count, (6.0, 15.0))
    yield "one prediction, two lesions, IoU .44", _line("#########", "##.....##")
    yield "one prediction, two lesions, IoU .86", _line("#######", "###.###")
    yield "two predictions, one lesion, IoU .86", _line("###.###", "#######")
    yield "IoU .33 behind a false lesion", _line("#.#########", "..###......")
    yield "no tumour in the truth", _line("##.#", "....")


def main() -> None:
    """Print a table of the metrics of liver and tumour, and one of the lesions detected at an IoU above 0.5."""
    metrics: list[str] = []
    lesions: list[str] = []
    for name, (prediction, truth) in _cases():
        case = evaluate.score(prediction, truth, SPACING)
        assert case.tumor is not None
        assert case.lesions is not None
        if prediction.shape == SHAPE:
            regions = (("liver", LIVER, case.liver), ("tumour", TUMOR, case.tumor))
            for region, lowest, score in regions if not metrics else regions[1:]:  # the liver is the same in all
                theirs = official.overlap_and_surface(prediction >= lowest, truth >= lowest, SPACING)
                pairs = [f"{score.values()[metric]:.4f} / {value:.4f}" for metric, value in theirs.items()]
                metrics.append(f"| {name}: {region} | {' | '.join(pairs)} |")
        found = detection(case.lesions, 0.5)
        counts = (found.detected, found.correct, found.false, found.missed)
        try:
            other = " | ".join(map(str, official.detection(prediction == TUMOR, truth == TUMOR, 0.5)))
        except ValueError as error:
            other = f"ValueError: {error} | |"
        lesions.append(f"| {name} | {' | '.join(map(str, counts))} | {other} |")
    print("| ours / scorer | Dice | VOE | RVD | ASSD mm | RMSD mm | MSD mm |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |", *metrics, "", sep="\n")
    print("| lesions, IoU > 0.5 | found | correct | false | missed | scorer: TP | FP | FN |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |", *lesions, sep="\n")


if __name__ == "__main__":
    asked_for_help(__doc__)
    main()
