"""What the challenge's own scorer computes, written anew from its formulas, its defects included. For comparison only.

PatrickChrist/lits-challenge-scoring, `evaluate.py`, `helpers/calc_metric.py` and `helpers/surface.py`. Written for
current numpy, which the scorer itself does not run on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree


def overlap_and_surface(
    prediction: NDArray[np.bool_], truth: NDArray[np.bool_], spacing_mm: Sequence[float]
) -> dict[str, float]:
    """Dice, VOE, RVD, ASSD, RMSD and MSD of two masks, neither of them empty."""
    dice = 2 * np.count_nonzero(prediction & truth) / (np.count_nonzero(prediction) + np.count_nonzero(truth))
    neighbours = ndimage.generate_binary_structure(3, 2)
    a, b = (np.argwhere(m ^ ndimage.binary_erosion(m, neighbours)) * np.array(spacing_mm) for m in (prediction, truth))
    there, back = cKDTree(b).query(a)[0], cKDTree(a).query(b)[0]
    points = len(a) + len(b)
    return {
        "dice": dice,
        "voe": 1 - dice / (2 - dice),
        "rvd": np.count_nonzero(prediction) / np.count_nonzero(truth) - 1,
        "assd": (there.sum() + back.sum()) / points,
        "rmsd": math.sqrt(((there**2).sum() + (back**2).sum()) / points),
        "msd": max(there.max(), back.max()),
    }


def detection(prediction: NDArray[np.bool_], truth: NDArray[np.bool_], above: float) -> tuple[int, int, int]:
    """True positives, false positives and false negatives of two tumour masks.

    Raises ValueError for a truth without tumour, as the scorer does: it returns five values where three are unpacked.
    """
    (p, predicted), (t, references) = ndimage.label(prediction), ndimage.label(truth)
    if not references:
        raise ValueError("too many values to unpack (expected 3)")
    rows = [i for i in range(1, predicted + 1) if (truth & (p == i)).any()]
    columns = list(range(1, references + 1))
    shared = np.array([[np.count_nonzero((p == i) & (t == j)) for j in columns] for i in rows], int)
    shared = shared.reshape(len(rows), len(columns))
    shared, columns, merged, counted = _join_references(shared, columns, t.copy())
    found, rows = _join_predictions(shared, rows, columns, p)
    detected = len(rows)
    for k, i in enumerate(rows):
        for c, j in enumerate(columns):
            common = found.shared[k, c]
            if not common:
                continue
            # The defect: the joined predictions carry the numbers of references by now, `i` is that of a prediction.
            union = np.count_nonzero((found.labels == i) | (merged == j))
            if common / union <= above:
                found.labels[found.labels == j] = 0
                detected -= counted[j]
    return detected, predicted - detected, references - detected


def _join_references(
    shared: NDArray[Any], columns: list[int], labels: NDArray[Any]
) -> tuple[NDArray[Any], list[int], NDArray[Any], dict[int, int]]:
    """References whose best prediction is the same become one; `counted` says how many became the one."""
    counted = dict.fromkeys(columns, 1)
    for row in range(len(shared)):
        same = [c for c in range(len(columns)) if shared[row, c] and shared[:, c].argmax() == row]
        for c in same:
            counted[columns[c]] = len(same)
            labels[labels == columns[c]] = columns[same[0]]
        if len(same) > 1:
            shared[:, same[0]] = shared[:, same].sum(axis=1)
            shared = np.delete(shared, same[1:], axis=1)
            columns = [j for c, j in enumerate(columns) if c not in same[1:]]
    return shared, columns, labels, counted


class _Found:
    def __init__(self, shared: NDArray[Any], labels: NDArray[Any]) -> None:
        self.shared, self.labels = shared, labels


def _join_predictions(
    shared: NDArray[Any], rows: list[int], columns: list[int], numbered: NDArray[Any]
) -> tuple[_Found, list[int]]:
    """Each prediction keeps its best reference; those of one reference become one, with the reference's number."""
    best = shared.argmax(axis=1) if len(rows) else np.zeros(0, int)
    kept = np.zeros_like(shared)
    for k, c in enumerate(best):
        kept[k, c] = shared[k, c]
    labels = np.zeros_like(numbered)
    for c, j in enumerate(columns):
        same = [k for k in range(len(rows)) if kept[k, c]]
        for k in same:
            labels[numbered == rows[k]] = j
        if len(same) > 1:
            kept[same[0]] = kept[same].sum(axis=0)
            kept = np.delete(kept, same[1:], axis=0)
            rows = [i for k, i in enumerate(rows) if k not in same[1:]]
    return _Found(kept, labels), rows
