"""A liver-shaped mask with tumours, and a prediction of it that is a little wrong: for measuring, at any size."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from preprocess.geometry import Index, Triple
from preprocess.volume import LIVER, TUMOR

#: Half axes of the liver in mm (z, y, x), and where its centre is, as a share of the volume.
_HALF_MM, _CENTRE = (75.0, 80.0, 105.0), (0.5, 0.5, 0.42)


def liver_pair(
    shape: Index, spacing_mm: Triple, tumors: int = 20, radii_mm: tuple[float, float] = (4.0, 15.0)
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Labels (z, y, x) of a prediction and of its truth, with `tumors` balls of radii within `radii_mm`.

    A fifth of the balls is missed, the others are displaced and of another
    size. The predicted liver is 2 % larger, moved by a few millimetres and otherwise rough, its Dice about .96.
    """
    truth = _liver(shape, spacing_mm, (0.0, 0.0, 0.0), 1.0, 0.0)
    prediction = _liver(shape, spacing_mm, (1.0, 1.6, -0.8), 1.02, 1.0)
    rng = np.random.default_rng(0)
    for _ in range(tumors):
        centre = [
            n * s * c + rng.uniform(-0.5, 0.5) * h
            for n, s, c, h in zip(shape, spacing_mm, _CENTRE, _HALF_MM, strict=True)
        ]
        radius = rng.uniform(*radii_mm)
        _put_ball(truth, spacing_mm, centre, radius)
        if rng.random() < 0.8:
            _put_ball(prediction, spacing_mm, [c + rng.normal(0, 1.5) for c in centre], radius * rng.uniform(0.7, 1.2))
    return prediction, truth


def _liver(shape: Index, spacing_mm: Triple, shift_mm: Triple, scale: float, phase: float) -> NDArray[np.uint8]:
    z, y, x = (
        ((np.arange(n) * s - n * s * c - shift) / (half * scale)).reshape([-1 if a == axis else 1 for a in range(3)])
        for axis, (n, s, c, shift, half) in enumerate(zip(shape, spacing_mm, _CENTRE, shift_mm, _HALF_MM, strict=True))
    )
    out = np.zeros(shape, np.uint8)
    for i, row in enumerate(z.ravel()):
        bumps = 0.08 * np.sin(7 * x + phase) * np.sin(6 * y) * math.sin(8 * row)
        out[i] = np.where((row**2 + y**2 + x**2 + bumps)[0] < 1, LIVER, 0)
    return out


def _put_ball(labels: NDArray[np.uint8], spacing_mm: Triple, centre_mm: list[float], radius_mm: float) -> None:
    """Make the liver voxels within the ball tumour, in place."""
    cut = tuple(
        slice(max(0, int((c - radius_mm) / s)), max(0, int((c + radius_mm) / s) + 2))
        for c, s in zip(centre_mm, spacing_mm, strict=True)
    )
    part = labels[cut]
    z, y, x = ((np.arange(part.shape[a]) + cut[a].start) * spacing_mm[a] - centre_mm[a] for a in range(3))
    inside = z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 <= radius_mm**2
    part[inside & (part > 0)] = TUMOR
