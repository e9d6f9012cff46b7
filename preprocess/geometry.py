"""Where voxels are in space: `Grid` (a rectilinear lattice of voxel centres) and `Box` (a part of one).

Order is (z, y, x) for everything per array axis and (x, y, z) for world positions, which are millimetres in LPS
(x to the left, y to the back, z to the head; DICOM PS3.3 C.7.6.2). A spacing never travels without its grid.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Index = tuple[int, int, int]
Triple = tuple[float, float, float]

#: Voxels closer than this are one and the same; float32 headers round to about a micrometre.
SAME_PLACE_MM = 1e-2

#: Array axes (z, y, x) that point to the head, the back and the left: the canonical orientation.
CANONICAL_AXES: tuple[Triple, Triple, Triple] = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))


def triple(values: Sequence[float] | NDArray[Any]) -> Triple:
    """Three floats as a tuple, from any sequence of three numbers."""
    a, b, c = (float(value) for value in values)
    return a, b, c


def index3(values: Sequence[int] | NDArray[Any]) -> Index:
    """Three ints as a tuple, from any sequence of three whole numbers."""
    a, b, c = (int(value) for value in values)
    return a, b, c


@dataclass(frozen=True)
class Grid:
    """A lattice of voxel centres.

    `shape` and `spacing_mm` are per array axis (z, y, x); `origin_mm` is the world position (x, y, z) of the centre
    of voxel (0, 0, 0); `axes[i]` is the unit world vector (x, y, z) along which array axis i grows.
    Raises ValueError for a shape below 1, a spacing that is not positive and finite, or axes that are not orthonormal.
    """

    shape: Index
    spacing_mm: Triple
    origin_mm: Triple = (0.0, 0.0, 0.0)
    axes: tuple[Triple, Triple, Triple] = CANONICAL_AXES

    def __post_init__(self) -> None:
        if min(self.shape) < 1:
            raise ValueError(f"shape {self.shape} has an empty axis")
        if not all(math.isfinite(s) and s > 0 for s in self.spacing_mm):
            raise ValueError(f"spacing {self.spacing_mm} mm is not positive")
        if not all(map(math.isfinite, self.origin_mm)):
            raise ValueError(f"origin {self.origin_mm} mm is not finite")
        axes = np.array(self.axes)
        if not np.allclose(axes @ axes.T, np.eye(3), atol=1e-3):
            raise ValueError(f"axes {self.axes} are not perpendicular unit vectors")

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return math.prod(self.spacing_mm) / 1000.0

    def position_mm(self, index: Sequence[float]) -> Triple:
        """World position (x, y, z) of a voxel index (z, y, x), which may be fractional."""
        step = np.asarray(index, float) * np.array(self.spacing_mm)
        return triple(np.array(self.origin_mm) + step @ np.array(self.axes))

    def index_at(self, position_mm: Sequence[float]) -> Triple:
        """Fractional voxel index (z, y, x) of a world position (x, y, z); the inverse of `position_mm`."""
        offset = np.asarray(position_mm, float) - np.array(self.origin_mm)
        return triple(np.linalg.solve(np.array(self.axes).T, offset) / np.array(self.spacing_mm))

    def cropped(self, box: Box) -> Grid:
        """The grid of the voxels in `box`, at the same places in space."""
        return replace(self, shape=box.shape, origin_mm=self.position_mm(box.start))

    def respaced(self, spacing_mm: Triple) -> Grid:
        """A grid of another spacing over the same physical extent: the outer corner of the first voxel stays.

        The far end moves by at most half a new voxel, as the shape is rounded; by more where that would leave no voxel.
        """
        old, new = np.array(self.spacing_mm), np.array(spacing_mm)
        shape = index3([max(1, math.floor(n * o / s + 0.5)) for n, o, s in zip(self.shape, old, new, strict=True)])
        return replace(self, shape=shape, spacing_mm=triple(new), origin_mm=self.position_mm(0.5 * (new / old - 1)))

    def canonical(self) -> Grid:
        """This grid with its axes permuted and flipped so that they point most nearly to head, back and left."""
        alignment = np.array(self.axes) @ np.array(CANONICAL_AXES).T
        order = max(itertools.permutations(range(3)), key=lambda p: sum(abs(alignment[p[i], i]) for i in range(3)))
        return self.turned(order, [bool(alignment[order[i], i] < 0) for i in range(3)])

    def turned(self, order: Sequence[int], flipped: Sequence[bool]) -> Grid:
        """The same voxels with array axis i being the former axis `order[i]`, reversed where `flipped[i]`."""
        corner = [0, 0, 0]
        for axis, flip in zip(order, flipped, strict=True):
            corner[axis] = self.shape[axis] - 1 if flip else 0
        # 0.0 - v, not -v: a flipped 0.0 must not become -0.0
        z, y, x = (
            triple(0.0 - np.array(self.axes[axis])) if flip else self.axes[axis]
            for axis, flip in zip(order, flipped, strict=True)
        )
        return Grid(
            shape=index3([self.shape[axis] for axis in order]),
            spacing_mm=triple([self.spacing_mm[axis] for axis in order]),
            origin_mm=self.position_mm(corner),
            axes=(z, y, x),
        )

    def mismatch_mm(self, other: Grid) -> float:
        """Largest distance between the matching corners of two grids; infinite when their shapes differ."""
        if self.shape != other.shape:
            return math.inf
        corners = itertools.product(*((0, n - 1) for n in self.shape))
        return max(math.dist(self.position_mm(c), other.position_mm(c)) for c in corners)


@dataclass(frozen=True)
class Box:
    """A half-open part of a grid: voxels `start` <= index < `stop`, (z, y, x). Raises ValueError when empty."""

    start: Index
    stop: Index

    def __post_init__(self) -> None:
        if any(a < 0 or a >= b for a, b in zip(self.start, self.stop, strict=True)):
            raise ValueError(f"box {self.start}..{self.stop} is empty or starts below 0")

    @staticmethod
    def around(mask: NDArray[Any]) -> Box | None:
        """The smallest box that holds every nonzero voxel of `mask` (z, y, x); None when there is none."""
        spans = []
        for axis in range(3):
            hits = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
            if not hits.size:
                return None
            spans.append((int(hits[0]), int(hits[-1]) + 1))
        return Box(index3([s[0] for s in spans]), index3([s[1] for s in spans]))

    @staticmethod
    def whole(grid: Grid) -> Box:
        """The box that holds all of `grid`."""
        return Box((0, 0, 0), grid.shape)

    @property
    def shape(self) -> Index:
        """Number of voxels along (z, y, x)."""
        return index3([b - a for a, b in zip(self.start, self.stop, strict=True)])

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Slices that cut this box out of an array."""
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    def grown(self, margin_mm: float, grid: Grid) -> Box:
        """This box with at least `margin_mm` more on each side, clipped to `grid`."""
        margin = [math.ceil(margin_mm / s) for s in grid.spacing_mm]
        return Box(
            index3([max(0, a - m) for a, m in zip(self.start, margin, strict=True)]),
            index3([min(n, b + m) for b, m, n in zip(self.stop, margin, grid.shape, strict=True)]),
        )

    def onto(self, source: Grid, target: Grid) -> Box:
        """The voxels of `target` that this box of `source` touches; both grids share a corner (see `respaced`)."""
        scale = np.array(source.spacing_mm) / np.array(target.spacing_mm)
        # The tolerance keeps a box that ends exactly on a voxel edge from growing by rounding noise.
        start = np.floor(np.array(self.start) * scale + 1e-6).astype(int)
        stop = np.ceil(np.array(self.stop) * scale - 1e-6).astype(int)
        limit = np.array(target.shape)
        # A coarse grid may end up to half a voxel before the fine one: its last voxel stands for the rest.
        stop = np.where(np.array(self.stop) == source.shape, np.maximum(stop, limit), stop)
        start = np.minimum(start, limit - 1)
        return Box(index3(start), index3(np.clip(stop, start + 1, limit)))

    def reoriented(self, source: Grid, target: Grid) -> Box:
        """This box of `source` in the voxels of `target`, a permuted or flipped `source`."""
        ends = [self.start, tuple(n - 1 for n in self.stop)]
        corners = np.rint([target.index_at(source.position_mm(end)) for end in ends]).astype(int)
        return Box(index3(corners.min(axis=0)), index3(corners.max(axis=0) + 1))


def reoriented(array: NDArray[Any], source: Grid, target: Grid) -> NDArray[Any]:
    """A view of `array` (on `source`) with the axis order and directions of `target`, a permuted or flipped `source`.

    Raises ValueError when the two grids do not hold the same voxels.
    """
    alignment = np.array(target.axes) @ np.array(source.axes).T
    order = np.abs(alignment).argmax(axis=1)
    flipped = [bool(alignment[i, order[i]] < 0) for i in range(3)]
    if sorted(order) != [0, 1, 2] or not source.turned(order, flipped).mismatch_mm(target) < SAME_PLACE_MM:
        raise ValueError(f"not the same voxels: {source} and {target}")
    if array.shape != source.shape:
        raise ValueError(f"array of shape {array.shape} on a grid of shape {source.shape}")
    view = array.transpose(*order)
    flips = tuple(slice(None, None, -1 if f else 1) for f in flipped)
    return view[flips]
