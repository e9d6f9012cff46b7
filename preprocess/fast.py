"""Faster stand-ins for two slow steps, where the extra `[fast]` is installed: the one place that decides which is used.

Inflating gzip streams (isal) and numbering connected parts (cc3d). The results are the same, so nothing says which ran.
Left out: fill_voids, whose result differs from scipy's, and edt: `cascade run`
computes distances only in the small boxes around tumours.
"""

from __future__ import annotations

import importlib
import zlib
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray


def _module(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


_cc3d, _isal = _module("cc3d"), _module("isal.isal_zlib")

#: What `inflater` raises for a damaged stream.
InflateError: tuple[type[Exception], ...] = (zlib.error,) if _isal is None else (zlib.error, _isal.error)


def inflater(window_bits: int) -> Any:
    """As `zlib.decompressobj`, but for its error: see `InflateError`."""
    return (zlib if _isal is None else _isal).decompressobj(window_bits)


def numbered(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """6-connected parts of `mask` (z, y, x), numbered from 1 in the order of their first voxels, and their count."""
    if _cc3d is None:
        from scipy import ndimage  # here, because who reads gzip streams need not wait for it

        parts, count = ndimage.label(mask)
    else:
        whole = np.ascontiguousarray(mask, bool)  # it numbers in the order of memory
        parts, count = _cc3d.connected_components(whole, connectivity=6, return_N=True, out_dtype=np.uint32)
    return np.asarray(parts).view(np.int32), count
