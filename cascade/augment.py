"""Random changes to one training patch: in space while it is cut out, in intensity afterwards.

All randomness comes from the generator that is handed in, so a patch is a pure function of (seed, step).
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cascade.settings import Augmentation
from preprocess.geometry import Index

#: What lies outside a scan, in prepared units: below the HU window, as air.
AIR = -1.0


def random_affine(rng: np.random.Generator, settings: Augmentation) -> NDArray[np.float64]:
    """A 3x3 matrix (z, y, x) that maps offsets in the patch to offsets in the scan: rotation times scaling."""
    limit = math.radians(settings.rotation_deg)
    matrix = np.diag(1 + rng.uniform(-settings.scale, settings.scale, 3))
    for axis in range(3):
        angle = rng.uniform(-limit, limit)
        a, b = (i for i in range(3) if i != axis)
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        matrix = turn @ matrix
    return matrix


def cut_patch(
    image: NDArray[Any], labels: NDArray[Any], centre: Index, size: Index, matrix: NDArray[np.float64], regions: int
) -> tuple[Tensor, Tensor]:
    """An affine patch around `centre` (z, y, x): image (size) and regions 0/1 (regions, size).

    Voxel i of the patch shows the scan at `centre` + `matrix` (i - size // 2). Beyond the scan the image is `AIR` and
    the label background. Linear for both; region k holds every class above k.
    """
    if np.array_equal(matrix, np.eye(3)):
        first = np.array(centre) - np.array(size) // 2
        plain = _window(image, first, first + size, AIR)
        return plain, _regions(_window(labels, first, first + size, 0), regions)
    # The middle of a patch of even size lies half a voxel before voxel size // 2.
    middle = np.array(centre) + matrix @ ((np.array(size) - 1) / 2 - np.array(size) // 2)
    half = np.abs(matrix) @ (np.array(size) / 2) + 1
    start = np.floor(middle - half).astype(int)
    stop = np.ceil(middle + half).astype(int) + 1
    scan = _window(image, start, stop, AIR)
    classes = _window(labels, start, stop, 0)
    stack = torch.cat([scan[None], _regions(classes, regions)])
    # affine_grid wants (x, y, z) and -1..1 over the source; offsets are scaled from voxels on both sides.
    source = np.array(stop - start, float)
    theta = np.zeros((3, 4))
    theta[:, :3] = (matrix * np.array(size) / source[:, None])[::-1, ::-1]
    theta[:, 3] = ((2 * (middle - start) + 1 - source) / source)[::-1]
    grid = F.affine_grid(torch.from_numpy(theta).float()[None], [1, 1, *size], align_corners=False)
    patch = F.grid_sample(stack[None], grid, align_corners=False, padding_mode="border")[0]
    return patch[0], (patch[1:] >= 0.5).float()


def _regions(classes: Tensor, count: int) -> Tensor:
    return torch.stack([(classes > k).float() for k in range(count)])


def _window(array: NDArray[Any], start: NDArray[Any], stop: NDArray[Any], fill: float) -> Tensor:
    low, high = np.maximum(start, 0), np.minimum(stop, array.shape)
    out = np.full(stop - start, fill, np.float32)
    if (high > low).all():
        inside = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))
        out[inside] = array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return torch.from_numpy(out)


def change_intensity(patch: Tensor, rng: np.random.Generator, settings: Augmentation) -> Tensor:
    """Contrast, brightness, gamma, noise, blur and thick slices on a patch (z, y, x) in -1..1; stays in -1..1."""
    patch = patch * (1 + rng.uniform(-settings.contrast, settings.contrast))
    patch = patch + rng.uniform(-settings.brightness, settings.brightness)
    exponent = math.exp(rng.uniform(-settings.gamma, settings.gamma))
    patch = ((patch.clamp(-1, 1) + 1) / 2) ** exponent * 2 - 1
    if rng.random() < settings.blur_share:
        patch = _smoothed(patch, (3, 3, 3))
    if rng.random() < settings.thick_slices_share:
        patch = _thickened(patch, int(rng.integers(2, 5)))
    noise = np.abs(rng.normal(0, settings.noise / 2))
    seed = torch.Generator().manual_seed(int(rng.integers(2**31)))
    return cast(Tensor, (patch + noise * torch.randn(patch.shape, generator=seed)).clamp(-1, 1))


def _smoothed(patch: Tensor, size: tuple[int, int, int]) -> Tensor:
    padded = F.pad(patch[None, None], [s // 2 for s in reversed(size) for _ in range(2)], mode="replicate")
    return F.avg_pool3d(padded, size, stride=1)[0, 0]


def _thickened(patch: Tensor, slices: int) -> Tensor:
    # Whole thick slices, cut off again: squeezing a broken one in would move the image against its labels.
    missing = -patch.shape[0] % slices
    padded = F.pad(patch[None, None], (0, 0, 0, 0, 0, missing), mode="replicate")
    thick = F.avg_pool3d(padded, (slices, 1, 1))
    fine = F.interpolate(thick, scale_factor=(slices, 1, 1), mode="trilinear", align_corners=False)
    return fine[0, 0, : patch.shape[0]]


def cut_scan(image: Tensor, regions: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Make the patch end early above or below, as a scan that starts in mid-liver does."""
    slices = image.shape[0]
    gone = int(rng.integers(1, slices // 2 + 1)) if slices > 1 else 0
    part = slice(0, gone) if rng.random() < 0.5 else slice(slices - gone, slices)
    image, regions = image.clone(), regions.clone()
    image[part] = AIR
    regions[:, part] = 0
    return image, regions
