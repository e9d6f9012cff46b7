"""Fuzz target: of a broken .nrrd or .mha `read_scan` makes a sound scan or one line, in bounded time and memory."""

import random
import tempfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import SimpleITK

import preprocess.itk_files
from preprocess.io import read_scan
from preprocess.itk_child import ItkChild
from tests.fuzz.common import expected_errors, main, mutated
from tests.made_nifti import HU


def seeds() -> list[bytes]:
    """Small NRRD and MetaImage files, plain and compressed."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        for kind in (np.int16, np.uint8, np.float32):
            for suffix in (".nrrd", ".mha"):
                for compressed in (False, True):
                    image = SimpleITK.GetImageFromArray(HU.clip(0 if kind is np.uint8 else -1000, 255).astype(kind))
                    SimpleITK.WriteImage(image, str(Path(name) / f"a{suffix}"), useCompression=compressed)
                    found.append((Path(name) / f"a{suffix}").read_bytes())
    return found


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Any change, or a number in the header."""
    if rng.random() < 0.5:
        return mutated(content, rng)
    data = bytearray(content)
    digits = [at for at, byte in enumerate(data[:600]) if chr(byte) in "0123456789.-"]
    for at in rng.sample(digits, min(2, len(digits))):
        data[at : at + 1] = rng.choice((b"0", b"1", b"-", b".", b"9", b"99999", b"e9", b"nan", b"3", b"\n"))
    return bytes(data)


def check(content: bytes, folder: Path) -> None:
    """The property: finite HU in the promised range on a grid of that shape, or a CascadeError."""
    path = folder / ("a.nrrd" if content[:4] == b"NRRD" else "a.mha")
    path.write_bytes(content)
    with expected_errors():
        scan = read_scan(path)
        array = scan.volume.array
        assert array.dtype in (np.int16, np.float32)
        assert array.shape == scan.volume.grid.shape
        assert -1024 <= array.min() <= array.max() <= 30000


if __name__ == "__main__":
    # One reader for all inputs, restarted when one kills it: starting it takes longer than reading.
    child = ItkChild(seconds=15)
    preprocess.itk_files.ItkChild = lambda: nullcontext(child)  # type: ignore[assignment,misc]
    main(check, seeds(), mutate)
