"""Synthetic tumours painted into healthy liver, so that a few labelled lesions, or none at all, train a network.

After the idea of Hu et al., "Label-Free Liver Tumor Segmentation", CVPR 2023, with a generator of our own: a lobed
ellipsoid with an uneven surface replaces the vessels below it by tissue that keeps the scanner's noise; it is darker or
brighter than the liver, may have a rim, a necrotic core, calcifications, a soft edge and push its surroundings aside.
All is done on the patch's own device; the random numbers come from the host, so that a seed paints the same everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from preprocess.geometry import Box, Index, Triple, index3
from preprocess.preparation import Preparation
from stage2_tumor.lesions import Lesions

Rng = np.random.Generator

#: Around a painted lesion this much liver is known to be no tumour: it looked like plain liver when it was chosen.
KNOWN_MM = 8.0
#: A place is plain liver when its mean lies within this of the liver's median.
PLAIN_HU = 25.0
#: What varies by less over some millimetres is uneven liver or noise, and stays in a tumour; more is a vessel.
UNEVEN_HU = 15.0
#: Share of the lesions above 8 mm radius that push their surroundings aside.
PUSH_SHARE = 0.3
#: Places looked at for one lesion.
_TRIES = 12
#: No lesion is painted darker than fluid.
FLUID_HU = 0.0


@dataclass(frozen=True, eq=False)
class Painted:
    """What `paint_lesions` made: the image, the voxels that are tumour now, and those whose class is known by it."""

    image: Tensor
    tumor: Tensor
    known: Tensor


def paint_lesions(
    image: Tensor, liver: Tensor, taken: Tensor, preparation: Preparation, rng: Rng, lesions: Lesions
) -> Painted:
    """`image` (z, y, x) with up to `lesions.most` tumours inside `liver`, none of them in `taken` (true tumours).

    `image` is as `preparation` made it, `liver` and `taken` are masks; all is done on their device. Where no place fits
    (no plain liver is left) the image stays as it is.
    """
    free = liver & ~taken
    canvas = _Canvas(image.clone(), free, torch.zeros_like(free), torch.zeros_like(free), preparation)
    if canvas.free.any():
        median = image[canvas.free][::7].median()
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

    image: Tensor
    free: Tensor
    tumor: Tensor
    known: Tensor
    preparation: Preparation


@dataclass(frozen=True, eq=False)
class _Form:
    """Depth in mm (z, y, x) below the surface of one lesion, in the part of the patch that it reaches."""

    depth: Tensor
    radius_mm: float
    spacing_mm: Triple


def _hu_per_unit(preparation: Preparation) -> float:
    return (preparation.window_hu[1] - preparation.window_hu[0]) / 2


def _place(canvas: _Canvas, median: Tensor, rng: Rng) -> Index | None:
    """A free voxel whose neighbourhood looks like plain liver, None when a few tries find none."""
    candidates = (canvas.free & ~canvas.tumor).nonzero()
    if not len(candidates):
        return None
    tried = candidates[torch.from_numpy(rng.integers(len(candidates), size=_TRIES)).to(candidates.device)]
    near = torch.cartesian_prod(*(torch.arange(-n, n + 1, device=tried.device) for n in (1, 2, 2)))
    last = torch.tensor(canvas.image.shape, device=tried.device) - 1
    z, y, x = (tried[:, None] + near).clamp(min=torch.zeros_like(last), max=last).unbind(-1)
    # Of the liver there alone: many a true tumour lies at the surface, and the fat beside it is no reason against it.
    liver = canvas.free[z, y, x]
    mean = (canvas.image[z, y, x] * liver).sum(1) / liver.sum(1)
    plain = (mean - median).abs() < PLAIN_HU / _hu_per_unit(canvas.preparation)
    fitting = tried[plain].cpu().numpy()
    return index3(fitting[0]) if len(fitting) else None


def _paint_one(canvas: _Canvas, centre: Index, radius_mm: float, rng: Rng, lesions: Lesions) -> None:
    spacing_mm = canvas.preparation.spacing_mm
    reach = np.ceil((1.6 * radius_mm + KNOWN_MM) / np.array(spacing_mm)).astype(int)
    start = np.maximum(np.array(centre) - reach, 0)
    stop = np.minimum(np.array(centre) + reach + 1, canvas.image.shape)
    box = Box(index3(start), index3(stop)).slices
    old, free = canvas.image[box], canvas.free[box]
    at = [
        (torch.arange(a, b, device=old.device) - c) * s
        for a, b, c, s in zip(start, stop, centre, spacing_mm, strict=True)
    ]
    form = _form(at, radius_mm, spacing_mm, rng)
    below = _pushed(old, form, rng) if radius_mm > 8 and rng.random() < PUSH_SHARE else old
    edge = float(rng.uniform(*lesions.edge_mm)) / 4  # of a logistic curve, which rises over about four of these
    cover = _smoothed(free * torch.sigmoid(form.depth / edge), (0.5, 0.5, 0.5))
    tissue = _tissue(old, free, form, canvas.preparation, rng, lesions)
    canvas.image[box] = torch.where(free, below + cover * (tissue - below), old).clamp(-1, 1)
    canvas.tumor[box] |= free & (form.depth > 0)
    canvas.known[box] |= free & (form.depth > -KNOWN_MM)


def _form(at: list[Tensor], radius_mm: float, spacing_mm: Triple, rng: Rng) -> _Form:
    """A lobed, uneven ellipsoid about the origin; `at` are the places of the voxels along z, y, x in mm."""
    z, y, x = at[0][:, None, None], at[1][:, None], at[2]
    lobes = []
    for lobe in range(1 + int(rng.integers(0, 3)) * int(rng.random() < 0.4)):
        centre = rng.normal(0, 0.55 * radius_mm, 3) if lobe else np.zeros(3)
        size = radius_mm * rng.uniform(0.75, 1.3, 3) * (0.7 if lobe else 1.0)
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0] / size[:, None]
        p, q, r = z - float(centre[0]), y - float(centre[1]), x - float(centre[2])
        ratio = sum(((a * p + b * q + c * r).square() for a, b, c in turn.tolist()), torch.zeros(())).sqrt()
        lobes.append((1 - ratio) * float(size.min()))
    depth = torch.stack(lobes).amax(0)
    bumps = _smooth_noise(depth, max(1.5, 0.45 * radius_mm), spacing_mm, rng)
    return _Form(depth + bumps * float(radius_mm * rng.uniform(0.05, 0.25)), radius_mm, spacing_mm)


def _smooth_noise(like: Tensor, length_mm: float, spacing_mm: Triple, rng: Rng) -> Tensor:
    """Noise of unit variance with structures about `length_mm` wide, of the shape of `like` and on its device.

    So smooth a thing is made of few nodes, linear between them: drawing and filtering each voxel took most of the time.
    """
    shape = like.shape
    sigma = [min(length_mm / s, n) for s, n in zip(spacing_mm, shape, strict=True)]
    steps = [max(1, int(width / 2)) for width in sigma]
    nodes = [-(-(n - 1) // step) + 1 for n, step in zip(shape, steps, strict=True)]
    drawn = torch.from_numpy(rng.standard_normal(nodes, np.float32)).to(like.device)
    coarse = _smoothed(drawn, [width / step for width, step in zip(sigma, steps, strict=True)])
    places = [torch.arange(n, device=like.device) / step for n, step in zip(shape, steps, strict=True)]
    between = [
        (1 - (at[:, None] - torch.arange(n, device=like.device)).abs()).clamp(min=0)
        for at, n in zip(places, nodes, strict=True)
    ]
    smooth = _along(coarse, between)
    return smooth / smooth.std().clamp(min=1e-6)


def _smoothed(values: Tensor, sigma: Sequence[float]) -> Tensor:
    """`values` (z, y, x) through a Gaussian of `sigma` voxels; at the border its weights are those that are left."""
    matrices = []
    for n, width in zip(values.shape, sigma, strict=True):
        at = torch.arange(n, device=values.device)
        weight = torch.exp(-0.5 * ((at[:, None] - at) / width).square())
        matrices.append(weight / weight.sum(1, keepdim=True))
    return _along(values, matrices)


def _along(values: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """`values` (z, y, x) with a matrix applied along each axis; for patches faster than convolutions, on any device."""
    z, y, x = matrices
    result: Tensor = torch.tensordot(z, y @ (values @ x.T), 1)
    return result


def _tissue(patch: Tensor, free: Tensor, form: _Form, preparation: Preparation, rng: Rng, lesions: Lesions) -> Tensor:
    """What the lesion is made of: a level, slow variation, the scanner's own noise, and now and then a rim or core."""
    depth, radius_mm, spacing_mm = form.depth, form.radius_mm, form.spacing_mm
    level = patch[free].median()
    grain = _grain(patch, free, level, spacing_mm, UNEVEN_HU / _hu_per_unit(preparation))
    bright = rng.random() < lesions.bright_share
    contrast = rng.uniform(*lesions.bright_hu) if bright else -rng.uniform(*lesions.dark_hu)
    hu = contrast + _smooth_noise(depth, rng.uniform(2.0, 6.0), spacing_mm, rng) * rng.uniform(0, 8)
    if rng.random() < lesions.rim_share:
        width = rng.uniform(1.0, min(4.0, 0.5 * radius_mm + 1.0))
        hu += ((depth - 0.5 * width).abs() < 0.5 * width) * rng.uniform(10, 60)
    if radius_mm > 6 and rng.random() < lesions.core_share:
        core = depth > radius_mm * rng.uniform(0.3, 0.6)
        hu += core * (-rng.uniform(15, 60) if rng.random() < 0.8 else rng.uniform(15, 50))
    if radius_mm > 4 and rng.random() < lesions.calcified_share:
        spots = _smooth_noise(depth, 1.5, spacing_mm, rng) > 2.2
        hu += (spots & (depth > 0)) * rng.uniform(100, 400)
    fluid = float(preparation.normalised(np.array(FLUID_HU)))
    value = torch.maximum(level + hu / _hu_per_unit(preparation), level.clamp(max=fluid))
    return value + grain * rng.uniform(0.8, 1.1)


def _grain(patch: Tensor, free: Tensor, level: Tensor, spacing_mm: Triple, limit: float) -> Tensor:
    """What varies in the liver `free` about its `level`, but for vessels: all that is fine, and of the rest +-`limit`.

    Without the rest a tumour would be more even than any liver. Smoothed within the liver: fat beside it would leave a
    bright rim (`benchmarks.lesion_sheet`).
    """
    width = [2.0 / s for s in spacing_mm]
    coarse = _smoothed(patch * free, width) / _smoothed(free.float(), width).clamp(min=1e-3)
    return patch - coarse + (coarse - level).clamp(-limit, limit)


def _pushed(patch: Tensor, form: _Form, rng: Rng) -> Tensor:
    """The surroundings moved outwards along the gradient of the depth, most at the surface: mass effect on vessels."""
    radius_mm = form.radius_mm
    shift = radius_mm * rng.uniform(0.1, 0.35) * torch.exp(-form.depth.abs() / (0.6 * radius_mm))
    slope = torch.gradient(form.depth, spacing=list(form.spacing_mm))
    length = torch.stack(slope).square().sum(0).sqrt() + 1e-6
    unit = []
    for axis, (g, s) in enumerate(zip(slope, form.spacing_mm, strict=True)):
        index = torch.arange(patch.shape[axis], device=patch.device).view([-1, *[1] * (2 - axis)])
        unit.append((index + g / length * shift / s) * (2 / max(patch.shape[axis] - 1, 1)) - 1)
    grid = torch.stack(unit[::-1], -1)  # grid_sample wants x, y, z in -1..1
    return F.grid_sample(patch[None, None], grid[None], padding_mode="border", align_corners=True)[0, 0]
