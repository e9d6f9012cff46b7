"""A trained network turned into an `Infer`: in one pass, or in overlapping windows with Gaussian weights.

Knows neither spacing nor classes; arrays in, probabilities out.
"""

from __future__ import annotations

import itertools
import logging
import math
from contextlib import suppress
from dataclasses import replace
from typing import Protocol, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cascade.augment import AIR
from cascade.machine import autocast_dtype, on_device
from cascade.settings import Window
from preprocess.errors import ResourceError
from preprocess.geometry import Index, index3
from preprocess.preparation import Infer
from preprocess.resample import FloatArray

_LOG = logging.getLogger(__name__)


class Network(Protocol):
    """What predicts: images (n, 1, z, y, x), whose sides are multiples of `multiple`, to logits (n, regions, z, y, x).

    A torch module, `UNet3d` or what stands for it (`cascade.engine`).
    """

    multiple: int
    regions: int

    def __call__(self, image: Tensor, /) -> Tensor:
        """Logits of one batch."""

    def eval(self) -> Self:
        """The network as it predicts."""


def as_infer(network: Network, window: Window, device: torch.device, at_once: int = 1) -> Infer:
    """`network` as a function from a prepared image (z, y, x) to probabilities (regions, z, y, x).

    An image of up to `window.one_pass_voxels` is taken whole, a larger one in windows, `at_once` of them as one batch;
    windows without a voxel of `where` are left out and their probability is 0. When a GPU's memory is too small, half
    as many windows are taken at once from then on, at last one, which gives the same; an image for which that is still
    too much is taken in windows of half the size. Each is said in a warning. Raises ResourceError when that does not
    fit either.
    """
    network = on_device(network, device).eval()
    half = replace(window, size=index3([max(1, n // 2) for n in window.size]), one_pass_voxels=0)
    counts = list(dict.fromkeys((at_once, max(1, at_once // 2), 1)))

    def infer(image: FloatArray, where: NDArray[np.bool_] | None = None) -> FloatArray:
        while True:
            with suppress(torch.OutOfMemoryError):
                return _infer(network, image, where, (window, counts[0]), device)
            if len(counts) == 1:
                break
            del counts[0]
            _LOG.warning("%s: out of memory: windows in batches of %d from now on", device, counts[0])
        _LOG.warning("%s: out of memory: windows of %s voxels instead, which may differ a little", device, half.size)
        with suppress(torch.OutOfMemoryError):
            return _infer(network, image, where, (half, 1), device)
        raise ResourceError(
            f"{device}: out of memory with windows of {half.size} voxels; free the GPU or use --device cpu"
        )

    return infer


@torch.inference_mode()
def _infer(
    network: Network,
    image: FloatArray,
    where: NDArray[np.bool_] | None,
    windows: tuple[Window, int],
    device: torch.device,
) -> FloatArray:
    if image.size <= windows[0].one_pass_voxels:
        return _forward(network, torch.from_numpy(image)[None], device)[0].cpu().numpy()
    return _windowed(network, image, where, windows, device)


def _forward(network: Network, images: Tensor, device: torch.device) -> Tensor:
    """Probabilities (n, regions, z, y, x) of pieces (n, z, y, x), padded with air to what the network can halve."""
    shape = images.shape[1:]
    pad = [-n % network.multiple for n in shape]
    # At least two voxels on the deepest level: a single one has no variance to normalise by.
    pad = [p + (network.multiple if n + p == network.multiple else 0) for n, p in zip(shape, pad, strict=True)]
    padded = F.pad(images.to(device)[:, None], [v for p in reversed(pad) for v in (0, p)], value=AIR)
    dtype = autocast_dtype(device)
    with torch.autocast(device.type, dtype, enabled=dtype is not None):
        logits = network(padded)
    if dtype == torch.float16 and not torch.isfinite(logits).all():  # beyond its range: an empty mask without a word
        logits = network(padded)
    z, y, x = shape
    return torch.sigmoid(logits[:, :, :z, :y, :x].float())


def _windowed(
    network: Network,
    image: FloatArray,
    where: NDArray[np.bool_] | None,
    windows: tuple[Window, int],
    device: torch.device,
) -> FloatArray:
    window, count = windows
    size = index3([min(w, n) for w, n in zip(window.size, image.shape, strict=True)])
    starts = window_starts(index3(image.shape), size, window.step)
    parts = [tuple(slice(a, a + n) for a, n in zip(start, size, strict=True)) for start in starts]
    if where is not None:
        parts = [part for part in parts if where[part].any()]
    weight = torch.from_numpy(gaussian(size)).to(device)
    total = torch.zeros((network.regions, *image.shape), device=device)
    norm = torch.zeros(image.shape, device=device)
    for first in range(0, len(parts), count):
        batch = parts[first : first + count]
        pieces = torch.from_numpy(np.stack([image[part] for part in batch]))
        for part, probability in zip(batch, _forward(network, pieces, device), strict=True):
            total[(slice(None), *part)] += probability * weight
            norm[part] += weight
    total /= norm.clamp(min=1e-8)
    return np.asarray(total.cpu().numpy())


def window_starts(shape: Index, size: Index, step: float) -> list[Index]:
    """First voxels (z, y, x) of windows that cover `shape`, evenly spread, at most `step * size` apart."""
    axes = []
    for n, w in zip(shape, size, strict=True):
        count = 1 + math.ceil((n - w) / max(1, int(w * step)))
        axes.append([round(i * (n - w) / max(1, count - 1)) for i in range(count)])
    return [index3(start) for start in itertools.product(*axes)]


def gaussian(size: Index) -> FloatArray:
    """Weights (z, y, x) that fall from 1 in the middle to the rim, sigma an eighth of the size (as nnU-Net)."""
    axes = [np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (n / 8)) ** 2) for n in size]
    weight = axes[0][:, None, None] * axes[1][None, :, None] * axes[2][None, None, :]
    return np.asarray(weight.clip(1e-4), np.float32)
