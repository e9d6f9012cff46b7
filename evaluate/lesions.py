"""Which predicted lesion is which true lesion: matching that depends on no numbering and counts every lesion once.

Lesions are the 6-connected parts of the tumour masks (Bilic et al., Medical Image Analysis 84, 102680, 2023). Each
lesion that overlaps the other mask is tied to the lesion there that it overlaps most (to all of them at a tie), and
what is tied together is one pair: several predictions of one true lesion are a split, several true lesions under one
prediction a merge. A pair has one IoU, of all its predicted and all its true voxels. A lesion is detected above a
threshold t when the IoU of its pair exceeds t and so does the share of the lesion itself that the other side of its
pair covers. For a pair of one and one the second follows from the first; in a merge it keeps a small lesion that is
barely touched from counting as found because its large neighbour is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse.csgraph import connected_components

from evaluate.conventions import Convention
from evaluate.metrics import MaskScore, mask_score
from evaluate.overlap import Mask, Overlap
from preprocess.components import components
from preprocess.geometry import Box, Grid, Triple


@dataclass(frozen=True)
class Lesion:
    """One 6-connected tumour of one mask.

    `number` counts from 1, the largest first. `diameter_mm` is that of the sphere of the same volume. `centroid_mm` is
    a world position (x, y, z), LPS. `covered` is the share of its voxels in the other side of its pair; `pair` the
    pair's number from 1, None for a lesion that the other mask does not touch.
    """

    number: int
    volume_ml: float
    diameter_mm: float
    centroid_mm: Triple
    covered: float = 0.0
    pair: int | None = None


@dataclass(frozen=True)
class LesionPair:
    """Lesions of prediction and truth that belong together, by number, and the metrics of their joined masks."""

    number: int
    prediction: tuple[int, ...]
    truth: tuple[int, ...]
    iou: float
    score: MaskScore

    @property
    def kind(self) -> str:
        """`single` (one and one), `split` (one true lesion), `merge` (one prediction) or `tangle` (several of both)."""
        if len(self.prediction) > 1:
            return "tangle" if len(self.truth) > 1 else "split"
        return "merge" if len(self.truth) > 1 else "single"


@dataclass(frozen=True)
class LesionMatch:
    """The lesions of one case, predicted and true, and their pairs."""

    prediction: tuple[Lesion, ...]
    truth: tuple[Lesion, ...]
    pairs: tuple[LesionPair, ...]

    def detected(self, lesion: Lesion, above: float) -> bool:
        """Whether a lesion of either side is detected at an IoU strictly greater than `above` (see the module)."""
        return lesion.pair is not None and min(self.pairs[lesion.pair - 1].iou, lesion.covered) > above

    def detected_pairs(self, above: float) -> tuple[LesionPair, ...]:
        """The pairs that hold a detected true lesion."""
        numbers = {lesion.pair for lesion in self.truth if self.detected(lesion, above)}
        return tuple(pair for pair in self.pairs if pair.number in numbers)


def match_lesions(prediction: Mask, truth: Mask, grid: Grid, convention: Convention) -> LesionMatch:
    """Match the lesions of two boolean tumour masks (z, y, x) on one `grid`. Time and memory are linear in voxels."""
    box = Box.around(prediction | truth)
    if box is None:
        return LesionMatch((), (), ())
    grid = grid.cropped(box)
    sides = [_Side(np.ascontiguousarray(mask[box.slices]), grid) for mask in (prediction, truth)]
    shared = _shared_voxels(*sides)
    groups = _groups(shared)
    pairs = tuple(_pairs(groups, shared, sides, grid, convention))
    lesions = [side.lesions(shared if i == 0 else shared.T, groups, i) for i, side in enumerate(sides)]
    return LesionMatch(lesions[0], lesions[1], pairs)


class _Side:
    """The numbered lesions of one mask: 0 is background, 1 the largest, ties in scan order."""

    def __init__(self, mask: Mask, grid: Grid) -> None:
        numbered, sizes = components(mask)
        order = np.argsort(-sizes[1:], kind="stable") + 1
        rank = np.zeros(len(sizes), np.int32)
        rank[order] = np.arange(1, len(sizes))
        self.numbered: NDArray[np.int32] = rank[numbered]
        self.sizes: NDArray[np.intp] = sizes[order]
        self.boxes = ndimage.find_objects(self.numbered)
        self.grid = grid

    def lesions(self, shared: sparse.csr_array, groups: list[_Group], side: int) -> tuple[Lesion, ...]:
        """The lesions of this side; `shared` has one row for each, `groups[k][side]` are their row numbers."""
        pair_of = {row: number for number, group in enumerate(groups, 1) for row in group[side]}
        shared = shared.tocsr()
        found = []
        for row, size in enumerate(self.sizes):
            volume_ml = float(size * self.grid.voxel_ml)
            pair = pair_of.get(row)
            partners = [] if pair is None else list(groups[pair - 1][1 - side])
            covered = float(shared[[row]][:, partners].sum() / size) if partners else 0.0
            found.append(
                Lesion(row + 1, volume_ml, sphere_diameter_mm(volume_ml), self._centroid_mm(row), covered, pair)
            )
        return tuple(found)

    def _centroid_mm(self, row: int) -> Triple:
        where = np.nonzero(self.numbered[self.boxes[row]] == row + 1)
        start = [cut.start for cut in self.boxes[row]]
        return self.grid.position_mm([s + float(axis.mean()) for s, axis in zip(start, where, strict=True)])


#: Rows of predicted and of true lesions that form a pair.
_Group = tuple[tuple[int, ...], tuple[int, ...]]


def sphere_diameter_mm(volume_ml: float) -> float:
    """Diameter in mm of the sphere of `volume_ml`: the size of a lesion, whatever its shape and direction."""
    return float((6 * volume_ml * 1000 / math.pi) ** (1 / 3))


def _shared_voxels(prediction: _Side, truth: _Side) -> sparse.csr_array:
    """How many voxels each predicted (row) and each true lesion (column) share."""
    both = (prediction.numbered > 0) & (truth.numbered > 0)
    rows, columns = prediction.numbered[both] - 1, truth.numbered[both] - 1
    shape = (len(prediction.sizes), len(truth.sizes))
    counts = sparse.coo_array((np.ones(len(rows), np.int64), (rows, columns)), shape=shape)
    return counts.tocsr()  # sums what falls together


def _groups(shared: sparse.csr_array) -> list[_Group]:
    """What is tied together by the tie of each lesion to its best partner; the group of the largest truth first."""
    counts = shared.tocoo()
    rows, columns, voxels = counts.coords[0], counts.coords[1], counts.data
    best_of_row, best_of_column = np.zeros(shared.shape[0], np.int64), np.zeros(shared.shape[1], np.int64)
    np.maximum.at(best_of_row, rows, voxels)
    np.maximum.at(best_of_column, columns, voxels)
    tie = (voxels == best_of_row[rows]) | (voxels == best_of_column[columns])
    rows, columns = rows[tie], columns[tie]
    total = sum(shared.shape)
    graph = sparse.coo_array((np.ones(len(rows)), (rows, columns + shared.shape[0])), shape=(total, total))
    _, member_of = connected_components(graph, directed=False)
    groups: dict[int, tuple[set[int], set[int]]] = {}
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        group = groups.setdefault(int(member_of[row]), (set(), set()))
        group[0].add(row)
        group[1].add(column)
    return sorted(((tuple(sorted(p)), tuple(sorted(t))) for p, t in groups.values()), key=lambda group: group[1])


def _pairs(
    groups: list[_Group], shared: sparse.csr_array, sides: list[_Side], grid: Grid, convention: Convention
) -> Iterator[LesionPair]:
    for number, group in enumerate(groups, 1):
        both = int(shared[list(group[0])][:, list(group[1])].sum())
        sizes = [int(side.sizes[list(rows)].sum()) for side, rows in zip(sides, group, strict=True)]
        voxels = Overlap(both, sizes[0], sizes[1])
        parts = [side.boxes[row] for side, rows in zip(sides, group, strict=True) for row in rows]
        cut = tuple(slice(min(p[a].start for p in parts), max(p[a].stop for p in parts)) for a in range(3))
        masks = [
            np.isin(side.numbered[cut], [row + 1 for row in rows]) for side, rows in zip(sides, group, strict=True)
        ]
        score = mask_score(masks[0], masks[1], grid.spacing_mm, voxels, convention)
        predicted, true = (tuple(row + 1 for row in rows) for rows in group)
        yield LesionPair(number, predicted, true, voxels.iou, score)
