"""A synthetic scan of any size with its liver: what all sides of a comparison get."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from preprocess.geometry import Grid, Index, Triple
from preprocess.io import write_image
from preprocess.phantom import make_phantom
from preprocess.resample import resample_labels, slabs
from preprocess.volume import LabelMap, Volume


def labelled_scan(folder: Path, name: str, shape: Index, spacing_mm: Triple, seed: int = 0) -> tuple[Path, Path]:
    """`name`.nii.gz and `name`-label.nii.gz in `folder`: the phantom of `seed` in the middle of `shape` (z, y, x).

    Beyond the phantom its last slices are repeated without liver, and air lies around it; grain is made anew.
    """
    phantom = make_phantom(seed, oriented=False, tumors=3)
    source = Grid(phantom.volume.grid.shape, phantom.volume.grid.spacing_mm)
    fine = source.respaced(spacing_mm)
    body = np.stack([np.float16(slab) for slab in slabs(phantom.volume.array, source, fine)])
    truth = resample_labels(LabelMap(phantom.labels.array, source), fine).array
    rng = np.random.default_rng(seed)
    hu, labels = np.empty(shape, np.int16), np.zeros(shape, np.uint8)
    inner, outer = zip(*(_middle(a, b) for a, b in zip(fine.shape, shape, strict=True)), strict=True)
    for z in range(shape[0]):
        plane = np.full(shape[1:], -1000.0, np.float32)
        row = inner[0].start + z - outer[0].start
        plane[outer[1:]] = body[np.clip(row, 0, len(body) - 1)][inner[1:]]
        hu[z] = np.round(plane + rng.normal(0, 8, plane.shape))
    labels[outer] = truth[inner]
    image, label = folder / f"{name}.nii.gz", folder / f"{name}-label.nii.gz"
    grid = Grid(shape, spacing_mm)
    write_image(image, Volume(hu, grid))
    write_image(label, LabelMap(labels, grid))
    return image, label


def _middle(have: int, want: int) -> tuple[slice, slice]:
    """The middle parts of two axes that lie on each other."""
    both = min(have, want)
    a, b = (have - both) // 2, (want - both) // 2
    return slice(a, a + both), slice(b, b + both)
