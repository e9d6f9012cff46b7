"""Masks whose surfaces and distances are known."""

import numpy as np


def block(shape, *spans):
    """A box of voxels: `spans` are (start, stop) along z, y and x."""
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*span) for span in spans)] = True
    return mask


def ball(shape, centre_mm, radius_mm, spacing_mm):
    """The voxels whose centres lie within `radius_mm` of `centre_mm`, which is measured from voxel (0, 0, 0)."""
    places = [np.arange(n) * s - c for n, s, c in zip(shape, spacing_mm, centre_mm, strict=True)]
    z, y, x = np.meshgrid(*places, indexing="ij")
    return z**2 + y**2 + x**2 <= radius_mm**2


def rough_pair(seed):
    """Two ragged masks that overlap in part, both of several pieces, one touching the border."""
    rng = np.random.default_rng(seed)
    shape, spacing = (9, 14, 11), (2.0, 0.8, 1.3)
    a = ball(shape, (7, 5, 6), 4.5, spacing) & (rng.random(shape) < 0.9)
    b = ball(shape, (9, 6, 5), 4.0, spacing) | block(shape, (0, 2), (10, 14), (9, 11))
    return a, b, spacing
