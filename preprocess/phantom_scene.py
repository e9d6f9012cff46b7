"""The canvas of `preprocess.phantom`: smooth fields over a grid, and the picture that organs are painted into.

The reference body is in millimetres from its centre: x to the left, y to the back, z to the head (LPS).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.geometry import Grid, Triple, triple

Field = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]
Rng = np.random.Generator

#: Half the width and the depth of the body.
HALF_WIDTH_MM, HALF_DEPTH_MM = 160.0, 112.0
#: The most that the smooth deformation moves a point along one axis.
_WARP_MM = 9.0


def positions(grid: Grid) -> list[Field]:
    """World x, y and z of every voxel centre, each (z, y, x)."""
    steps = [np.arange(n, dtype=np.float32) * s for n, s in zip(grid.shape, grid.spacing_mm, strict=True)]
    k, j, i = np.meshgrid(*steps, indexing="ij", sparse=True)
    a, b, c = grid.axes
    return [k * a[w] + j * b[w] + i * c[w] + grid.origin_mm[w] for w in range(3)]


def waves(at: list[Field], rng: Rng, wavelength_mm: float) -> Field:
    """Smooth noise within -1..1: plane waves in random directions."""
    total = np.zeros_like(at[0])
    for _ in range(3):
        k = rng.standard_normal(3)
        a, b, c = triple(k * 2 * math.pi / (np.linalg.norm(k) * wavelength_mm * rng.uniform(0.8, 1.25)))
        total += np.sin(at[0] * a + at[1] * b + at[2] * c + rng.uniform(0, 2 * math.pi))
    return total / 3


def soft_min(a: Field, b: Field, blend_mm: float) -> Field:
    """The lower of two fields, with the crease between them rounded."""
    h = np.maximum(blend_mm - np.abs(a - b), 0) / blend_mm
    return np.minimum(a, b) - h * h * (blend_mm / 4)


def ellipsoid_radius(at: list[Field], centre: Triple, radii: Triple, turn_deg: float = 0) -> Field:
    """Distance of the points `at` from `centre` in units of an ellipsoid's radii, the ellipsoid turned about z."""
    x, y, z = (p - c for p, c in zip(at, centre, strict=True))
    c, s = math.cos(math.radians(turn_deg)), math.sin(math.radians(turn_deg))
    x, y = (x * c + y * s) / radii[0], (y * c - x * s) / radii[1]
    length: Field = np.sqrt(x * x + y * y + (z / radii[2]) ** 2)
    return length


class Scene:
    """The picture being painted: `hu`, what is `taken` (closed to the liver), and each voxel in the reference body."""

    def __init__(self, grid: Grid, scale: Triple, rng: Rng) -> None:
        self.grid, self.scale, self.rng = grid, scale, rng
        world = positions(grid)
        self.at: list[Field] = [(w + _WARP_MM * waves(world, rng, 170)) / s for w, s in zip(world, scale, strict=True)]
        self.hu: Field = np.full(grid.shape, -1000, np.float32)
        self.taken: Mask = np.zeros(grid.shape, bool)
        self.fat_mm = rng.uniform(10, 22)
        x, y, z = self.at
        ratio = (np.abs(x / HALF_WIDTH_MM) ** 2.3 + np.abs(y / HALF_DEPTH_MM) ** 2.3) ** (1 / 2.3)
        #: Depth below the skin along the radius, negative outside of the body.
        self.depth: Field = np.hypot(x, y) * (1 / np.maximum(ratio, 1e-3) - 1)
        #: Height above the diaphragm: a dome over the liver, a lower one on the left.
        back = 42 * ((y + 5) / 90) ** 2
        self.height: Field = soft_min(
            z - 74 + 55 * ((x + 62) / 92) ** 2 + back, z - 60 + 55 * ((x - 75) / 95) ** 2 + back, 30
        )

    def near(self, a: Triple, b: Triple, reach_mm: float) -> tuple[slice, slice, slice]:
        """The voxels that can be within `reach_mm` of the line from `a` to `b` (reference body)."""
        ends = np.array([self.grid.index_at(triple(np.array(p) * self.scale)) for p in (a, b)])
        margin = (reach_mm * max(self.scale) + 2 * _WARP_MM) / np.array(self.grid.spacing_mm)
        start, stop = np.floor(ends.min(0) - margin).astype(int), np.ceil(ends.max(0) + margin).astype(int)
        z, y, x = (slice(max(0, a), max(0, b)) for a, b in zip(start, stop, strict=True))
        return z, y, x

    def blob(
        self, hu: float, centre: Triple, radii: Triple, *, turn_deg: float = 0, keep: bool = False, y_max: float = 1e3
    ) -> None:
        """Paint an ellipsoid, a little varied, in front of `y_max` and below the diaphragm; `keep` bars the liver."""
        centre = triple(np.array(centre) + self.rng.uniform(-3, 3, 3))
        radii = triple(np.array(radii) * self.rng.uniform(0.92, 1.08, 3))
        box = self.near(centre, centre, max(radii))
        at: list[Field] = [p[box] for p in self.at]
        inside = (ellipsoid_radius(at, centre, radii, turn_deg) < 1) & (at[1] < y_max)
        self.put(hu, box, inside & (self.depth[box] > self.fat_mm + 12) & (self.height[box] < -3), keep)

    def tube(self, hu: float, a: Triple, b: Triple, radii: tuple[float, float], *, within: Mask | None = None) -> None:
        """Paint a tapered capsule: all of it, closed to the liver, or the part of it `within` a mask."""
        box = self.near(a, b, max(radii))
        offset = [p[box] - q for p, q in zip(self.at, a, strict=True)]
        ahead = [q - p for p, q in zip(a, b, strict=True)]
        dot: Field = offset[0] * ahead[0] + offset[1] * ahead[1] + offset[2] * ahead[2]
        along = np.clip(dot / sum(v * v for v in ahead), 0, 1)
        x, y, z = (o - along * v for o, v in zip(offset, ahead, strict=True))
        inside = x * x + y * y + z * z < (radii[0] + along * (radii[1] - radii[0])) ** 2
        self.put(hu, box, inside if within is None else inside & within[box], within is None)

    def put(self, hu: float, box: tuple[slice, slice, slice], inside: Mask, keep: bool) -> None:
        """Paint a mask of the voxels in `box`."""
        self.hu[box][inside] = hu
        if keep:
            self.taken[box] |= inside
