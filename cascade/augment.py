"""Random changes to one training patch: in space while it is cut out, in intensity afterwards.

All randomness comes from the generator that is handed in, so a patch is a pure function of (seed, step). Patches are
cut out on the device that trains, a GPU too, and stay there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cascade.settings import Augmentation
from preprocess.geometry import Index, index3

#: What lies outside a scan, in prepared units: below the HU window, as air.
AIR = -1.0
#: Distance of the nodes of an elastic deformation.
_NODE_VOXELS = 24
#: Straight pieces of a random tone curve.
_TONES = 5
#: Steps that values are rounded to: of .1 HU, where noise is some HU.
_LEVELS = 4000
#: How much narrower a narrow HU window is at most at either end, in prepared units: 80 of 400 HU.
_NARROWER = 0.4
#: How many times wider large pixels are, as of a large field of view.
_PIXELS = (1.2, 2.0)
_CPU = torch.device("cpu")


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


def random_bend(
    rng: np.random.Generator, size: Index, reach: NDArray[np.float64], device: torch.device = _CPU
) -> Tensor:
    """An elastic deformation: offsets (3, size) in voxels of the scan, each axis within +-`reach` (z, y, x) of it.

    Random at nodes `_NODE_VOXELS` apart and smooth between them, after Ronneberger et al., MICCAI 2015.
    """
    nodes = [3, *(n // _NODE_VOXELS + 2 for n in size)]
    drawn = torch.from_numpy(rng.uniform(-1, 1, nodes) * reach[:, None, None, None]).float().to(device)
    coarse = F.interpolate(drawn[None], size=[n // 4 + 2 for n in size], mode="trilinear", align_corners=True)
    for _ in range(2):  # smooth out the kinks at the nodes; on the whole patch this would cost more than the training
        coarse = F.avg_pool3d(F.pad(coarse, [2] * 6, mode="replicate"), 5, stride=1)
    bent = F.interpolate(coarse, size=size, mode="trilinear", align_corners=True)
    return bent[0]


@dataclass(frozen=True, eq=False)
class Warp:
    """Where a patch looks: `matrix` (3, 3) for offsets from its centre, and `bend` (3, size) voxels from there.

    `device` is where it is computed, and where the patch then lies.
    """

    matrix: NDArray[np.float64]
    bend: Tensor | None = None
    device: torch.device = _CPU

    @property
    def is_identity(self) -> bool:
        """Whether the patch is a plain crop."""
        return self.bend is None and np.array_equal(self.matrix, np.eye(3))


def cut_patch(
    image: NDArray[Any], labels: NDArray[Any], centre: Index, size: Index, warp: Warp, regions: int
) -> tuple[Tensor, Tensor]:
    """A patch around `centre` (z, y, x): image (size) and regions 0/1 (regions, size).

    Voxel i of the patch shows the scan at `centre` + matrix (i - size // 2) + bend[i]. Beyond the scan the image is
    `AIR` and the label background. Linear for both; region k holds every class above k.
    """
    device = warp.device
    if warp.is_identity:
        first = np.array(centre) - np.array(size) // 2
        plain = _window(image, first, first + size, AIR, device)
        return plain, _regions(_window(labels, first, first + size, 0, device), regions)
    matrix, bend = warp.matrix, warp.bend
    # The middle of a patch of even size lies half a voxel before voxel size // 2.
    middle = np.array(centre) + matrix @ ((np.array(size) - 1) / 2 - np.array(size) // 2)
    half = np.abs(matrix) @ (np.array(size) / 2) + 1
    if bend is not None:
        half = half + bend.abs().amax((1, 2, 3)).cpu().numpy()
    start = np.floor(middle - half).astype(int)
    stop = np.ceil(middle + half).astype(int) + 1
    scan = _window(image, start, stop, AIR, device)
    classes = _window(labels, start, stop, 0, device)
    # Tumours are in few patches, and an empty region would take as long as a full one.
    held = min(regions, int(labels[_inside(start, stop, labels.shape)].max(initial=0)))
    stack = torch.cat([scan[None], _regions(classes, held)]) if held else scan[None]
    # affine_grid wants (x, y, z) and -1..1 over the source; offsets are scaled from voxels on both sides.
    source = np.array(stop - start, float)
    theta = np.zeros((3, 4))
    theta[:, :3] = (matrix * np.array(size) / source[:, None])[::-1, ::-1]
    theta[:, 3] = ((2 * (middle - start) + 1 - source) / source)[::-1]
    grid = F.affine_grid(torch.from_numpy(theta).float().to(device)[None], [1, 1, *size], align_corners=False)
    if bend is not None:
        unit = torch.from_numpy(2 / source).float().to(device)
        grid = grid + (bend * unit[:, None, None, None]).flip(0).permute(1, 2, 3, 0)
    patch = F.grid_sample(stack[None], grid, align_corners=False, padding_mode="border")[0]
    empty = patch.new_zeros(regions - held, *size)
    return patch[0], torch.cat([(patch[1:] >= 0.5).float(), empty])


def _regions(classes: Tensor, count: int) -> Tensor:
    return torch.stack([(classes > k).float() for k in range(count)])


def _window(array: NDArray[Any], start: NDArray[Any], stop: NDArray[Any], fill: float, device: torch.device) -> Tensor:
    out = torch.full(index3(stop - start), fill, dtype=torch.float32, device=device)
    # Copied as it is stored, half as large as float32 or less: the way to a GPU is long.
    stored = array[_inside(start, stop, array.shape)].copy()
    out[_inside(-start, array.shape - start, out.shape)] = torch.from_numpy(stored).to(device).float()
    return out


def _inside(start: NDArray[Any], stop: NDArray[Any], shape: Sequence[int]) -> tuple[slice, ...]:
    """What of `start` to `stop` lies within an array of `shape`; empty where nothing does."""
    return tuple(slice(max(a, 0), max(a, 0, min(b, n))) for a, b, n in zip(start, stop, shape, strict=True))


def mirrored(image: Tensor, regions: Tensor, axes: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
    """Image (z, y, x) and regions (regions, z, y, x) reversed along those of the three `axes` that are true."""
    chosen = [axis - 3 for axis in range(3) if axes[axis]]
    return image.flip(chosen), regions.flip(chosen)


def change_intensity(patch: Tensor, rng: np.random.Generator, settings: Augmentation) -> Tensor:
    """A patch (z, y, x) in -1..1, as it stays: narrower window, tone curve, contrast, brightness, gamma, blur, thick
    slices, large pixels, noise.
    """
    levels = torch.linspace(-1, 1, _LEVELS + 1)
    place = ((patch.clamp(-1, 1) + 1) * (_LEVELS / 2)).round().int()
    patch = _graded(levels, rng, settings).to(patch.device).index_select(0, place.flatten()).view(patch.shape)
    if rng.random() < settings.blur_share:
        patch = _smoothed(patch, (3, 3, 3))
    if rng.random() < settings.thick_slices_share:
        patch = _thickened(patch, int(rng.integers(2, 5)))
    if drawn(rng, settings.large_pixels_share):
        patch = _with_large_pixels(patch, float(rng.uniform(*_PIXELS)))
    noise = np.abs(rng.normal(0, settings.noise / 2))
    seed = torch.Generator(patch.device).manual_seed(int(rng.integers(2**31)))
    return cast(Tensor, (patch + noise * torch.randn(patch.shape, generator=seed, device=patch.device)).clamp(-1, 1))


def _graded(levels: Tensor, rng: np.random.Generator, settings: Augmentation) -> Tensor:
    """What becomes of each of `levels` in -1..1 by all that depends on a voxel's value alone; so a patch needs but look
    its values up.
    """
    if drawn(rng, settings.narrow_window_share):
        levels = levels.clamp(-1 + rng.uniform(0, _NARROWER), 1 - rng.uniform(0, _NARROWER))
    if settings.tone > 0:
        levels = _toned(levels, np.exp(rng.uniform(-settings.tone, settings.tone, _TONES)))
    levels = levels * (1 + rng.uniform(-settings.contrast, settings.contrast))
    levels = levels + rng.uniform(-settings.brightness, settings.brightness)
    exponent = math.exp(rng.uniform(-settings.gamma, settings.gamma))
    return ((levels.clamp(-1, 1) + 1) / 2) ** exponent * 2 - 1


def drawn(rng: np.random.Generator, share: float) -> bool:
    """True for `share` of the calls. A share of 0 draws nothing: patches without the setting stay as they were."""
    return share > 0 and rng.random() < share


def _toned(patch: Tensor, slopes: NDArray[np.float64]) -> Tensor:
    """`patch` through a rising curve of straight pieces from (-1, -1) to (1, 1), as steep as `slopes` to each other.

    Tissues come nearer or part, as with another contrast phase or tube voltage; after Zhou et al., Models Genesis,
    MICCAI 2019.
    """
    rise = torch.from_numpy(slopes / slopes.sum() * 2).float().to(patch.device)
    start = torch.cumsum(rise, 0) - rise - 1
    place = (patch.clamp(-1, 1) + 1) * (_TONES / 2)
    piece = place.long().clamp(max=_TONES - 1)
    return start[piece] + (place - piece) * rise[piece]


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


def _with_large_pixels(patch: Tensor, times: float) -> Tensor:
    # In y and x; what thick slices do along z is another matter, and comes from another setting of the scanner.
    size = patch.shape[1:]
    few = [max(1, round(n / times)) for n in size]
    coarse = F.interpolate(patch[:, None], size=few, mode="bilinear", align_corners=False, antialias=True)
    return F.interpolate(coarse, size=list(size), mode="bilinear", align_corners=False)[:, 0]


def cut_scan(image: Tensor, regions: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Make the patch end early above or below, as a scan that starts in mid-liver does."""
    slices = image.shape[0]
    gone = int(rng.integers(1, slices // 2 + 1)) if slices > 1 else 0
    part = slice(0, gone) if rng.random() < 0.5 else slice(slices - gone, slices)
    image, regions = image.clone(), regions.clone()
    image[part] = AIR
    regions[:, part] = 0
    return image, regions


def cut_field(image: Tensor, regions: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Make the patch end early at one side, along an arc in y and x, as a small reconstructed field of view does.

    Up to 40 % of its width are gone; the circle has one to three times that width as its radius.
    """
    width = min(image.shape[1:])
    angle, radius = rng.uniform(0, 2 * math.pi), width * rng.uniform(1, 3)
    away = radius - width * (0.5 - rng.uniform(0.05, 0.4))  # of the circle's middle from the patch's
    middle = [
        (n - 1) / 2 + away * way for n, way in zip(image.shape[1:], (math.sin(angle), math.cos(angle)), strict=True)
    ]
    y, x = (torch.arange(n, device=image.device) - m for n, m in zip(image.shape[1:], middle, strict=True))
    gone = y[:, None].square() + x.square() > radius**2
    return image.masked_fill(gone, AIR), regions.masked_fill(gone, 0)
