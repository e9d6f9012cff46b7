"""Is it CT in HU? A look at the values of a volume before they are clamped, slice by slice.

CT of a body shows air near -1000 HU, or a window's lower edge where it was clipped, and soft tissue around 0 to 100 HU.
What is no CT at all, a label map, is refused; everything else that is odd is said, because a wrong guess must not stop
a scan. Thresholds were set on the public scans that the tests read: there the most equal neighbours of a CT are 8 %
(8-bit slices) and the fewest of a label map 82 %.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.errors import InputError

#: Histogram: one bin for each of these values, in HU; what is beyond falls into the outermost bins.
_LOW, _HIGH = -4096, 4095

#: A label map: few values, large patches of one value, one value (the background) in much of the volume.
_LABEL_VALUES, _LABEL_EQUAL, _LABEL_BACKGROUND = 256, 0.7, 0.25
#: Fewer sampled voxels say nothing about patches.
_LABEL_VOXELS = 1000

#: Share of voxels at the lowest value of a scan that was clipped to a window: the air around the body.
_CLIPPED = 0.05
#: Voxels below air that are neither noise of air nor one padding value.
_BELOW_AIR, _BELOW_AIR_SHARE = -1150, 0.02
#: HU of a CT lie further apart.
_LEAST_SPAN = 300
#: What stored values of CT are above HU.
UNSCALED = 1024
#: Stored values (HU + 1024 or + 1000) of soft tissue, and the least share of them in an abdomen without rescale.
_SOFT_STORED, _SOFT_SHARE = (950, 1200), 0.05


class Census:
    """The values of a volume: the whole range, and a histogram and patches from a sample of the rows."""

    def __init__(self) -> None:
        self.low, self.high, self.whole = np.inf, -np.inf, True
        self.blank: dict[int, float] = {}  # planes of one value, by number
        self.planes = 0
        self._counts = np.zeros(_HIGH - _LOW + 1, np.int64)
        self._equal, self._different = np.zeros_like(self._counts), 0
        self._highest_beneath = -np.inf  # of the values that share the lowest bin

    def add(self, plane: NDArray[Any]) -> None:
        """One slice (y, x) of finite values."""
        low, high = float(plane.min()), float(plane.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        if low == high:
            self.blank[self.planes] = low
        self.planes += 1
        rows = plane[:: max(1, plane.shape[0] // 128)]
        beneath = rows[rows < _LOW]
        if beneath.size:
            self._highest_beneath = max(self._highest_beneath, float(beneath.max()))
        self.whole = self.whole and (rows.dtype.kind != "f" or bool((np.rint(rows) == rows).all()))
        bins = np.clip(rows, _LOW, _HIGH).astype(np.int32) - _LOW
        self._counts += np.bincount(bins.ravel(), minlength=self._counts.size)
        equal = bins[:, 1:] == bins[:, :-1]
        self._equal += np.bincount(bins[:, 1:][equal], minlength=self._counts.size)
        self._different += int(equal.size - np.count_nonzero(equal))

    def share(self, low: int, high: int) -> float:
        """Share of the voxels with `low` <= value <= `high`."""
        return float(self._counts[low - _LOW : high + 1 - _LOW].sum() / self._counts.sum())

    @property
    def values(self) -> int:
        """Number of different values in the sample."""
        return int(np.count_nonzero(self._counts))

    def padding_share(self) -> float:
        """Share of the most common value below air: around a round field of view it is one number."""
        counts = self._counts[: _BELOW_AIR - _LOW + 1].copy()
        if self._highest_beneath > self.low:  # several values beneath the histogram are no padding
            counts[0] = 0
        return float(counts.max() / self._counts.sum())

    def is_unscaled(self) -> bool:
        """Whether these are stored values of a CT, HU + 1024, whose rescale was lost: soft tissue and air say so."""
        soft = self.low >= 0 and self.high - self.low >= _LEAST_SPAN and self.share(*_SOFT_STORED) >= _SOFT_SHARE
        return soft and self.share(0, 100) >= _SOFT_SHARE

    def is_label_map(self) -> bool:
        """Whether these are classes and not measurements: whole numbers from 0 on in large patches."""
        if not self.whole or self.low != 0 or not 2 <= self.values <= _LABEL_VALUES or self.high > _HIGH:
            return False
        background = int(self._counts.argmax())
        if self._counts.sum() < _LABEL_VOXELS or self._counts[background] < _LABEL_BACKGROUND * self._counts.sum():
            return False
        # Background beside background says nothing: a CT may be clipped there.
        equal = int(self._equal.sum() - self._equal[background])
        return equal >= _LABEL_EQUAL * (equal + self._different)


def ct_warnings(path: Path, census: Census) -> tuple[str, ...]:
    """What speaks against the volume being CT in HU. Raises InputError for a label map."""
    low, high = f"{census.low:g}", f"{census.high:g}"
    if census.is_label_map():
        raise InputError(f"{path} is a label map ({census.values} values in patches, 0 to {high}); give the CT itself")
    if low == high:
        return (f"every voxel is {low} HU; is this the right file?",)
    odd = _odd_range(census)
    return (f"values {low} to {high} {odd}",) if odd else ()


def _odd_range(census: Census) -> str:
    low, high = census.low, census.high
    if low >= 0 and high <= 255 and census.whole:
        return "look like an 8-bit picture, not HU; results may be wrong"
    if high - low < _LEAST_SPAN:
        return "span too little to be HU; is this CT?"
    if census.is_unscaled():
        told = f"look like CT without its rescale (HU + {UNSCALED}): {UNSCALED} was subtracted; wrong if it is no CT"
        return f"{told}, and 24 HU too much if it was 1000"
    if low >= 0:
        return "hold no air, so they may not be HU (MR, or rescale missing?)"
    return _odd_hu(census)


def _odd_hu(census: Census) -> str:
    """About values on both sides of 0."""
    # Padding is one value, or a few; air that was shifted twice is noisy, and every voxel of soft tissue is gone.
    below = census.share(_LOW, _BELOW_AIR) - census.padding_share()
    if below >= _BELOW_AIR_SHARE:
        return f"hold {below:.0%} below air (-1000 HU): rescale applied twice? results may be wrong"
    if census.low <= -800:
        if census.share(-150, 250) < _BELOW_AIR_SHARE:
            return "hold hardly any soft tissue (-150 to 250 HU); is this CT of the abdomen, in HU?"
        return ""
    if census.share(int(np.floor(census.low)), int(np.ceil(census.low))) >= _CLIPPED:
        return "are clipped to a window of HU, with no air below; made from pictures?"
    return "hold no air (-1000 HU); is this CT?"
