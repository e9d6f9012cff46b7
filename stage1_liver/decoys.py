"""Scans that hold no liver and no body: quality phantoms, heads, water bottles. Without them a network that has only
ever seen abdomens finds a liver in everything.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.geometry import Index, Triple

FloatArray = NDArray[np.float32]
Rng = np.random.Generator

#: Most things put into one object.
_INSERTS = 7


def decoy_hu(shape: Index, spacing_mm: Triple, rng: Rng) -> FloatArray:
    """An object in air, HU, float32 (z, y, x): a cylinder or ellipsoid, now and then in a shell, with things in it."""
    z, y, x = (
        ((np.arange(n) - (n - 1) / 2) * s).reshape([-1 if i == axis else 1 for i in range(3)]).astype(np.float32)
        for axis, (n, s) in enumerate(zip(shape, spacing_mm, strict=True))
    )
    radii, depth = rng.uniform(55, 170, 3), 1 if rng.random() < 0.5 else 0  # depth 0: a cylinder along z
    distance = np.sqrt((z / radii[0]) ** 2 * depth + (y / radii[1]) ** 2 + (x / radii[2]) ** 2)
    hu = np.full(shape, -1000, np.float32)
    hu[distance < 1] = rng.uniform(-120, 130)
    if rng.random() < 0.4:
        shell = rng.uniform(0.03, 0.12)
        hu[(distance < 1) & (distance > 1 - shell)] = rng.uniform(20, 60)
        hu[(distance < 1 - shell) & (distance > 1 - 2 * shell)] = rng.uniform(300, 1200)
    for _ in range(int(rng.integers(0, _INSERTS + 1))):
        hu[_insert((z, y, x), radii, rng) & (distance < 0.9)] = rng.choice([rng.uniform(-200, 200), -1000, 400])
    return np.asarray(hu + rng.normal(0, rng.uniform(3, 25), shape), np.float32)


def _insert(at: tuple[FloatArray, FloatArray, FloatArray], radii: NDArray[Any], rng: Rng) -> NDArray[np.bool_]:
    """A ball or a rod along z somewhere in the object."""
    z, y, x = at
    centre, radius, ball = rng.uniform(-0.8, 0.8, 3) * radii, rng.uniform(5, 45), int(rng.random() < 0.6)
    squares = ball * (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2
    return np.asarray(np.broadcast_to(squares < radius**2, (z.size, y.size, x.size)))
