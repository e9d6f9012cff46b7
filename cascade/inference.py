"""A trained network turned into an `Infer`: in one pass, or in overlapping windows with Gaussian weights.

Knows neither spacing nor classes; arrays in, probabilities out.
"""

from __future__ import annotations

import itertools
import logging
import math
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cascade.augment import AIR
from cascade.machine import autocast_dtype
from cascade.settings import Window
from cascade.unet import UNet3d
from preprocess.errors import ResourceError
from preprocess.geometry import Index, index3
from preprocess.preparation import Infer
from preprocess.resample import FloatArray

_LOG = logging.getLogger(__name__)


def as_infer(network: UNet3d, window: Window, device: torch.device) -> Infer:
    """`network` as a function from a prepared image (z, y, x) to probabilities (regions, z, y, x).

    An image of up to `window.one_pass_voxels` is taken whole, a larger one in windows; windows without a voxel of
    `where` are left out and their probability is 0. When a GPU's memory is too small the image is taken once more in
    windows of half the size, with a warning. Raises ResourceError when that does not fit either.
    """
    network = network.to(device).eval()

    def infer(image: FloatArray, where: NDArray[np.bool_] | None = None) -> FloatArray:
        try:
            return _infer(network, image, where, window, device)
        except torch.OutOfMemoryError:
            half = replace(window, size=index3([max(1, n // 2) for n in window.size]), one_pass_voxels=0)
        _LOG.warning("%s: out of memory: windows of %s voxels instead, which may differ a little", device, half.size)
        try:
            return _infer(network, image, where, half, device)
        except torch.OutOfMemoryError as error:
            raise ResourceError(
                f"{device}: out of memory with windows of {half.size} voxels; free the GPU or use --device cpu"
            ) from error

    return infer


@torch.inference_mode()
def _infer(
    network: UNet3d, image: FloatArray, where: NDArray[np.bool_] | None, window: Window, device: torch.device
) -> FloatArray:
    if image.size <= window.one_pass_voxels:
        return _forward(network, torch.from_numpy(image), device).cpu().numpy()
    return _windowed(network, image, where, window, device)


def _forward(network: UNet3d, image: Tensor, device: torch.device) -> Tensor:
    """Probabilities of one piece of any size, padded with air to what the network can halve."""
    pad = [-n % network.multiple for n in image.shape]
    # At least two voxels on the deepest level: a single one has no variance to normalise by.
    pad = [p + (network.multiple if n + p == network.multiple else 0) for n, p in zip(image.shape, pad, strict=True)]
    padded = F.pad(image.to(device)[None, None], [v for p in reversed(pad) for v in (0, p)], value=AIR)
    dtype = autocast_dtype(device)
    with torch.autocast(device.type, dtype, enabled=dtype is not None):
        logits = network(padded)
    z, y, x = image.shape
    return torch.sigmoid(logits[0, :, :z, :y, :x].float())


def _windowed(
    network: UNet3d, image: FloatArray, where: NDArray[np.bool_] | None, window: Window, device: torch.device
) -> FloatArray:
    size = index3([min(w, n) for w, n in zip(window.size, image.shape, strict=True)])
    weight = torch.from_numpy(gaussian(size)).to(device)
    total: Tensor | None = None
    norm = torch.zeros(image.shape, device=device)
    for start in window_starts(index3(image.shape), size, window.step):
        part = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
        if where is not None and not where[part].any():
            continue
        probability = _forward(network, torch.from_numpy(np.ascontiguousarray(image[part])), device)
        if total is None:
            total = torch.zeros((probability.shape[0], *image.shape), device=device)
        total[(slice(None), *part)] += probability * weight
        norm[part] += weight
    if total is None:
        return np.zeros((network.head.out_channels, *image.shape), np.float32)
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
