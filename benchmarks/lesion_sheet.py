"""True lesions beside synthetic ones: how they look on one sheet, and what their contrast and edges measure.

    python -m benchmarks.lesion_sheet DATA SHEET.png [TABLE.KEY=VALUE ...]

DATA is a prepared dataset (`cascade prepare`), or `phantom`: the synthetic abdomen with its own tumours, which shows
nobody's tissue. Each tile is an axial patch of 64 mm, once plain and once with the lesion's contour. Above: the largest
true lesions of each case; below: as many, drawn by [lesions] of the shipped recipe with the given changes. Whoever
cannot tell which are which is well trained by them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import find_boundaries

from benchmarks.process import asked_for_help
from cascade.painting import paint_lesions
from cascade.settings import load_settings
from evaluate.lesions import sphere_diameter_mm
from evaluate.pictures import Picture, png
from preprocess.components import components
from preprocess.geometry import Box, Triple
from preprocess.phantom import make_phantom
from preprocess.preparation import Preparation
from preprocess.prepared import load_dataset
from preprocess.resample import resample_labels
from stage2_tumor.lesions import Lesions

_TILE_MM, _PIXEL_MM = 64.0, 0.5
_COLUMNS, _ROWS = 8, 3
_DRAWS = 60
_CONTOUR = (240, 228, 66)
_LEAST_VOXELS = 20
#: Depths in mm, negative outside, between which a profile across the edge is averaged.
_EDGE_MM = (-6.0, -4.5, -3.0, -1.5, 0.0, 1.5, 3.0, 4.5)

#: Of a Gaussian; what is left over is fine.
_GRAIN_MM = 2.0

Case = tuple[NDArray[Any], NDArray[Any], Preparation]


@dataclass(frozen=True, eq=False)
class Lesion:
    """A lesion `mask` in a prepared `image` whose liver without tumour is `plain`, all (z, y, x)."""

    image: NDArray[Any]
    mask: NDArray[np.bool_]
    plain: NDArray[np.bool_]
    preparation: Preparation


def main() -> None:
    """Write the sheet and print the table."""
    source, out, *assignments = sys.argv[1:]
    cases = list(_phantoms() if source == "phantom" else _prepared(Path(source)))
    kinds = {"true": list(_true(cases)), "synthetic": list(_synthetic(cases, load_settings("tumor", (), assignments)))}
    Path(out).write_bytes(png(np.concatenate([_rows([_tile(lesion) for lesion in kind]) for kind in kinds.values()])))
    print(
        "Median and quartiles over the lesions; HU against the liver 4 to 12 mm around, by depth below the contour in"
    )
    print(f"mm; grain: what varies within {_GRAIN_MM:g} mm, in percent of that of the liver around\n")
    steps = [f"{a:g}..{b:g}" for a, b in pairwise(_EDGE_MM)]
    print("| lesions | diameter, mm | grain, % | innermost 40 %, HU | " + " | ".join(steps) + " |")
    print("| --- |" + " ---: |" * (3 + len(steps)))
    for name, lesions in kinds.items():
        table = np.array([_looks(lesion) for lesion in lesions])
        low, middle, high = np.nanpercentile(table, (25, 50, 75), axis=0)
        cells = [f"{m:.0f} ({a:.0f} to {b:.0f})" for a, m, b in zip(low, middle, high, strict=True)]
        print(f"| {name}, {len(table)} | " + " | ".join(cells) + " |")


def _prepared(folder: Path) -> Iterator[Case]:
    dataset = load_dataset(folder)
    for case in dataset.cases:
        if case.scores_tumor:
            yield case.image("tumor").astype(np.float32), case.labels("tumor"), dataset.preparations["tumor"]


def _phantoms() -> Iterator[Case]:
    preparation = Preparation((1.5, 1.25, 1.25), (-160.0, 240.0))
    for seed in range(4):
        phantom = make_phantom(seed, tumors=6, oriented=False)
        grid = preparation.working_grid(phantom.volume.grid)
        yield preparation.prepared(phantom.volume), resample_labels(phantom.labels, grid).array, preparation


def _true(cases: list[Case]) -> Iterator[Lesion]:
    for image, labels, preparation in cases:
        numbered, sizes = components(labels == 2)
        for k in np.argsort(-sizes[1:], kind="stable")[:_COLUMNS] + 1:
            if sizes[k] >= _LEAST_VOXELS:
                yield Lesion(image, numbered == k, labels == 1, preparation)


def _synthetic(cases: list[Case], settings: Any) -> Iterator[Lesion]:
    lesions: Lesions = settings.lesions
    for draw in range(_DRAWS):
        image, labels, preparation = cases[draw % len(cases)]
        rng = np.random.default_rng(draw)
        middle = rng.choice(np.argwhere(labels[::4, ::4, ::4] == 1)) * 4
        part = tuple(slice(max(0, m - 64), m + 64) for m in middle)
        liver, taken = labels[part] > 0, labels[part] == 2
        around, free, drawn = (torch.from_numpy(array) for array in (image[part], liver, taken))
        painted = paint_lesions(around, free, drawn, preparation, rng, lesions)
        tumor = painted.tumor.numpy()
        numbered, sizes = components(tumor)
        large = np.flatnonzero(sizes[1:] >= _LEAST_VOXELS) + 1
        if large.size:
            plain = liver & ~taken & ~tumor
            yield Lesion(painted.image.numpy(), numbered == rng.choice(large), plain, preparation)


def _looks(lesion: Lesion) -> list[float]:
    """Diameter, grain, contrast of the innermost part, profile across the edge; nan where there is too little."""
    spacing = lesion.preparation.spacing_mm
    box = Box.around(lesion.mask)
    assert box is not None
    part = tuple(slice(max(0, s.start - 12), s.stop + 12) for s in box.slices)
    mask, plain = lesion.mask[part], lesion.plain[part]
    low, high = lesion.preparation.window_hu
    hu = (lesion.image[part].astype(np.float32) + 1) / 2 * (high - low) + low
    depth = ndimage.distance_transform_edt(mask, spacing) - ndimage.distance_transform_edt(~mask, spacing)
    liver = _mean(hu, plain & (depth < -4) & (depth > -12))
    diameter = sphere_diameter_mm(float(np.count_nonzero(mask) * np.prod(spacing) / 1000))
    edges = pairwise(_EDGE_MM)
    profile = [_mean(hu, (plain | mask) & (depth > a) & (depth <= b)) - liver for a, b in edges]
    around = _grain(hu, plain & (depth < -4) & (depth > -12), spacing)
    grain = 100 * _grain(hu, mask & (depth > 1), spacing) / around
    return [diameter, grain, _mean(hu, depth >= 0.6 * depth.max()) - liver, *profile]


def _grain(hu: NDArray[Any], where: NDArray[np.bool_], spacing: Triple) -> float:
    """The standard deviation in `where` of what varies within a few voxels."""
    if np.count_nonzero(where) < 20:
        return float("nan")
    width = [_GRAIN_MM / s for s in spacing]
    share = ndimage.gaussian_filter(where.astype(np.float32), width).clip(1e-3)
    return float((hu - ndimage.gaussian_filter(hu * where, width) / share)[where].std())


def _mean(hu: NDArray[Any], where: NDArray[np.bool_]) -> float:
    return float(hu[where].mean()) if np.count_nonzero(where) >= 5 else float("nan")


def _tile(lesion: Lesion) -> Picture:
    """Plain above, with the contour below."""
    z, y, x = (int(np.median(axis)) for axis in np.nonzero(lesion.mask))
    spacing = lesion.preparation.spacing_mm[1:]
    half = [round(_TILE_MM / 2 / s) for s in spacing]
    parts = []
    for array, fill, order in ((lesion.image.astype(np.float32), -1, 1), (lesion.mask.astype(np.uint8), 0, 0)):
        padded = np.pad(array[z], [(h, h) for h in half], constant_values=fill)
        part = padded[y : y + 2 * half[0], x : x + 2 * half[1]]
        zoom = [s / _PIXEL_MM for s in spacing]
        parts.append(ndimage.zoom(part, zoom, order=order, grid_mode=True, mode="nearest"))
    plain = np.repeat(((parts[0] + 1) * 127.5).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    drawn = plain.copy()
    drawn[find_boundaries(parts[1] > 0, mode="outer")] = _CONTOUR
    return np.pad(np.concatenate([plain, drawn]), ((0, 4), (0, 4), (0, 0)))


def _rows(tiles: list[Picture]) -> Picture:
    tiles = tiles[: _COLUMNS * _ROWS]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % _COLUMNS)
    rows = [np.concatenate(tiles[i : i + _COLUMNS], axis=1) for i in range(0, len(tiles), _COLUMNS)]
    return np.pad(np.concatenate(rows), ((0, 24), (0, 0), (0, 0)))


if __name__ == "__main__":
    asked_for_help(__doc__)
    main()
