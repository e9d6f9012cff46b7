"""Fuzz target: of a broken .nii or .nii.gz `read_scan` makes a sound scan or one line, in bounded time and memory."""

import gzip
import random
from pathlib import Path

import numpy as np

from preprocess.io import read_scan
from tests.fuzz.common import expected_errors, main, mutated
from tests.made_nifti import HU, TYPES, nifti, nifti2


def seeds() -> list[bytes]:
    """Small files of every type, in both byte orders and both versions."""
    plain = [nifti(HU.astype(kind), order) for kind in TYPES for order in "<>"] + [nifti2(order) for order in "<>"]
    return plain + [gzip.compress(content, mtime=0) for content in plain[::4]]


def mutate(content: bytes, rng: random.Random) -> bytes:
    """The bytes as they are, or the content of a gzip stream that is whole again afterwards."""
    changed = mutated(content, rng)
    return gzip.compress(changed, 1, mtime=0) if rng.random() < 0.3 else changed


def check(content: bytes, folder: Path) -> None:
    """The property: finite HU in the promised range on a grid of that shape, or a CascadeError."""
    path = folder / "a.nii.gz"
    path.write_bytes(content)
    with expected_errors():
        scan = read_scan(path)
        array = scan.volume.array
        assert array.dtype in (np.int16, np.float32)
        assert array.shape == scan.volume.grid.shape
        assert sorted(array.shape) == sorted(scan.native.shape)
        assert -1024 <= array.min() <= array.max() <= 30000
        assert scan.volume.grid == scan.native.canonical()


if __name__ == "__main__":
    main(check, seeds(), mutate)
