"""Synthetic tumours painted into healthy liver, so that a few labelled lesions, or none at all, train a network.

After the idea of Hu et al., "Label-Free Liver Tumor Segmentation", CVPR 2023, with a generator of our own: a lobed
ellipsoid with an uneven surface replaces the vessels below it by tissue that keeps the scanner's noise; it is darker or
brighter than the liver, may have a rim, a necrotic core, calcifications, a soft edge and push its surroundings aside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preprocess.errors import UsageError
from preprocess.geometry import Box, Index, Triple, index3
from preprocess.preparation import Preparation

FloatArray = NDArray[np.float32]
Mask = NDArray[np.bool_]
Rng = np.random.Generator

#: Around a painted lesion this much liver is known to be no tumour: it looked like plain liver when it was chosen.
KNOWN_MM = 8.0
#: A place is plain liver when its mean lies within this of the liver's median.
PLAIN_HU = 25.0
#: Share of the lesions above 8 mm radius that push their surroundings aside.
PUSH_SHARE = 0.3
#: No lesion is painted darker than fluid.
FLUID_HU = 0.0


@dataclass(frozen=True)
class Lesions:
    """How synthetic tumours are drawn; ranges are uniform, the diameter's logarithm is.

    `share` of the patches get up to `most` of them; `bright_share` of these are brighter than the liver. Contrasts are
    HU against the liver around; `edge_mm` is the width over which a lesion fades into the liver.
    Raises UsageError for values that cannot work.
    """

    share: float
    most: int
    diameter_mm: tuple[float, float]
    dark_hu: tuple[float, float]
    bright_hu: tuple[float, float]
    bright_share: float
    rim_share: float
    core_share: float
    calcified_share: float
    edge_mm: tuple[float, float]

    def __post_init__(self) -> None:
        shares = (self.share, self.bright_share, self.rim_share, self.core_share, self.calcified_share)
        if not all(0 <= share <= 1 for share in shares):
            raise UsageError("lesions: every share must lie in 0..1")
        if self.most < 1:
            raise UsageError(f"lesions.most = {self.most} must be at least 1")
        for name in ("diameter_mm", "dark_hu", "bright_hu", "edge_mm"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise UsageError(f"lesions.{name} = {[low, high]} must be positive, the smaller number first")


@dataclass(frozen=True, eq=False)
class Painted:
    """What `paint_lesions` made: the image, the voxels that are tumour now, and those whose class is known by it."""

    image: FloatArray
    tumor: Mask
    known: Mask


def paint_lesions(
    image: FloatArray, liver: Mask, taken: Mask, preparation: Preparation, rng: Rng, lesions: Lesions
) -> Painted:
    """`image` (z, y, x) with up to `lesions.most` tumours inside `liver`, none of them in `taken` (true tumours).

    `image` is as `preparation` made it. Where no place fits (no plain liver is left) it stays as it is.
    """
    canvas = _Canvas(
        image.copy(), liver & ~taken, np.zeros(image.shape, bool), np.zeros(image.shape, bool), preparation
    )
    if canvas.free.any():
        median = float(np.median(image[canvas.free][::7]))
        low, high = np.log(lesions.diameter_mm)
        for _ in range(int(rng.integers(1, lesions.most + 1))):
            radius_mm = float(np.exp(rng.uniform(low, high))) / 2
            centre = _place(canvas, median, rng)
            if centre is None:
                break
            _paint_one(canvas, centre, radius_mm, rng, lesions)
    return Painted(canvas.image, canvas.tumor, canvas.known)


@dataclass(frozen=True, eq=False)
class _Canvas:
    """The picture being painted; `free` is liver without true tumour."""

    image: FloatArray
    free: Mask
    tumor: Mask
    known: Mask
    preparation: Preparation


def _hu_per_unit(preparation: Preparation) -> float:
    return (preparation.window_hu[1] - preparation.window_hu[0]) / 2


def _place(canvas: _Canvas, median: float, rng: Rng) -> Index | None:
    """A free voxel whose neighbourhood looks like plain liver, None when a few tries find none."""
    candidates = np.flatnonzero(canvas.free & ~canvas.tumor)
    tolerance = PLAIN_HU / _hu_per_unit(canvas.preparation)
    for voxel in rng.choice(candidates, 12) if candidates.size else ():
        z, y, x = index3(np.array(np.unravel_index(voxel, canvas.free.shape)))
        near = canvas.image[max(0, z - 1) : z + 2, max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
        if abs(float(near.mean()) - median) < tolerance:
            return z, y, x
    return None


def _paint_one(canvas: _Canvas, centre: Index, radius_mm: float, rng: Rng, lesions: Lesions) -> None:
    spacing_mm = canvas.preparation.spacing_mm
    reach = np.ceil((1.6 * radius_mm + KNOWN_MM) / np.array(spacing_mm)).astype(int)
    start = np.maximum(np.array(centre) - reach, 0)
    stop = np.minimum(np.array(centre) + reach + 1, canvas.image.shape)
    box = Box(index3(start), index3(stop)).slices
    at = [
        ((np.arange(a, b) - c) * s).astype(np.float32)
        for a, b, c, s in zip(start, stop, centre, spacing_mm, strict=True)
    ]
    depth = _depth(at, radius_mm, spacing_mm, rng)
    old, free = canvas.image[box], canvas.free[box]
    below = _pushed(old, depth, radius_mm, spacing_mm, rng) if radius_mm > 8 and rng.random() < PUSH_SHARE else old
    edge = float(rng.uniform(*lesions.edge_mm)) / 4  # of a logistic curve, which rises over about four of these
    cover = ndimage.gaussian_filter(free / (1 + np.exp(-np.clip(depth / edge, -30, 30))), 0.5)
    tissue = _tissue(old, free, (depth, radius_mm), canvas.preparation, rng, lesions)
    canvas.image[box] = np.where(free, below + cover * (tissue - below), old).clip(-1, 1)
    canvas.tumor[box] |= free & (depth > 0)
    canvas.known[box] |= free & (depth > -KNOWN_MM)


def _depth(at: list[FloatArray], radius_mm: float, spacing_mm: Triple, rng: Rng) -> FloatArray:
    """Depth in mm (z, y, x) below the surface of a lobed, uneven ellipsoid about the origin; `at` are z, y, x in mm."""
    z, y, x = np.meshgrid(*at, indexing="ij", sparse=True)
    depth: Any = -np.inf
    for lobe in range(1 + int(rng.integers(0, 3)) * int(rng.random() < 0.4)):
        centre = rng.normal(0, 0.55 * radius_mm, 3) if lobe else np.zeros(3)
        size = radius_mm * rng.uniform(0.75, 1.3, 3) * (0.7 if lobe else 1.0)
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0] / size[:, None]
        p, q, r = z - centre[0], y - centre[1], x - centre[2]
        ratio = np.sqrt(sum((row[0] * p + row[1] * q + row[2] * r) ** 2 for row in turn))
        one = (1 - ratio) * float(size.min())
        depth = np.maximum(depth, one)
    bumps = _smooth_noise(depth.shape, max(1.5, 0.45 * radius_mm), spacing_mm, rng)
    return np.asarray(depth + bumps * radius_mm * rng.uniform(0.05, 0.25), np.float32)


def _smooth_noise(shape: tuple[int, ...], length_mm: float, spacing_mm: Triple, rng: Rng) -> FloatArray:
    """Noise of unit variance with structures about `length_mm` wide."""
    noise = rng.standard_normal(shape, np.float32)
    smooth = ndimage.gaussian_filter(noise, [min(length_mm / s, n) for s, n in zip(spacing_mm, shape, strict=True)])
    return np.asarray(smooth / max(float(smooth.std()), 1e-6), np.float32)


def _tissue(
    patch: FloatArray,
    free: Mask,
    form: tuple[FloatArray, float],
    preparation: Preparation,
    rng: Rng,
    lesions: Lesions,
) -> FloatArray:
    """What the lesion is made of: a level, slow variation, the scanner's own noise, and now and then a rim or core."""
    (depth, radius_mm), spacing_mm = form, preparation.spacing_mm
    level = float(np.median(patch[free]))
    noise = patch - ndimage.gaussian_filter(patch, [2.0 / s for s in spacing_mm])  # the image without its vessels
    bright = rng.random() < lesions.bright_share
    contrast = rng.uniform(*lesions.bright_hu) if bright else -rng.uniform(*lesions.dark_hu)
    hu = np.full(depth.shape, contrast, np.float32)
    hu += _smooth_noise(depth.shape, rng.uniform(2.0, 6.0), spacing_mm, rng) * rng.uniform(0, 12)
    if rng.random() < lesions.rim_share:
        width = rng.uniform(1.0, min(4.0, 0.5 * radius_mm + 1.0))
        hu[np.abs(depth - 0.5 * width) < 0.5 * width] += rng.uniform(10, 60)
    if radius_mm > 6 and rng.random() < lesions.core_share:
        core = depth > radius_mm * rng.uniform(0.3, 0.6)
        hu[core] += -rng.uniform(15, 60) if rng.random() < 0.8 else rng.uniform(15, 50)
    if radius_mm > 4 and rng.random() < lesions.calcified_share:
        spots = _smooth_noise(depth.shape, 1.5, spacing_mm, rng) > 2.2
        hu[spots & (depth > 0)] += rng.uniform(100, 400)
    fluid = float(preparation.normalised(np.array(FLUID_HU)))
    value = np.maximum(level + hu / _hu_per_unit(preparation), min(level, fluid))
    return np.asarray(value + noise * rng.uniform(0.8, 1.2), np.float32)


def _pushed(patch: FloatArray, depth: FloatArray, radius_mm: float, spacing_mm: Triple, rng: Rng) -> FloatArray:
    """The surroundings moved outwards along the gradient of `depth`, most at the surface: mass effect on vessels."""
    shift = radius_mm * rng.uniform(0.1, 0.35) * np.exp(-np.abs(depth) / (0.6 * radius_mm))
    slope = np.gradient(depth, *spacing_mm)
    length = np.sqrt(sum(g * g for g in slope)) + 1e-6
    index = np.indices(patch.shape, np.float32)
    moved = [i + g / length * shift / s for i, g, s in zip(index, slope, spacing_mm, strict=True)]
    result: Any = ndimage.map_coordinates(patch, moved, order=1, mode="nearest")
    return np.asarray(result, np.float32)
