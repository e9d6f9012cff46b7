"""Fuzz target: of a folder with broken DICOM files `read_scan` makes a sound scan or one line, in bounded time."""

import random
import tempfile
from pathlib import Path

import numpy as np

from preprocess.io import read_scan
from tests.fuzz.common import expected_errors, main, mutated
from tests.made_dicom import STORED, series

#: Stands between the files of a folder, so that one input is one run of bytes.
_SEAM = b"\n--- next file ---\n"


def seeds() -> list[bytes]:
    """Folders of four slices: plain, unsigned 8 bit, without rescale, coronal."""
    folders: list[dict[str, object]] = [
        {},
        {"array": (STORED % 200).astype(np.uint8), "intercept": "-100"},
        {"slope": None, "intercept": None},
        {"orientation": "1\\0\\0\\0\\0\\-1", "heights": (0, 0, 0, 0)},
    ]
    found = []
    for number, tags in enumerate(folders):
        with tempfile.TemporaryDirectory() as name:
            files = sorted(series(Path(name) / str(number), **tags).iterdir())  # type: ignore[no-untyped-call]
            found.append(_SEAM.join(file.read_bytes() for file in files))
    return found


def mutate(content: bytes, rng: random.Random) -> bytes:
    """One file changed, or all of them in the same way; digits often change into digits."""
    files = content.split(_SEAM)
    which = rng.randrange(len(files))
    if rng.random() < 0.3:
        state = rng.getrandbits(32)
        return _SEAM.join(_change(file, random.Random(state)) for file in files)
    files[which] = _change(files[which], rng)
    return _SEAM.join(files)


def _change(file: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.7:
        return mutated(file, rng)
    data = bytearray(file)
    digits = [at for at, byte in enumerate(data) if chr(byte) in "0123456789.-\\"]
    for at in rng.sample(digits, min(2, len(digits))):
        data[at] = ord(rng.choice("0123456789.-\\eE "))
    return bytes(data)


def check(content: bytes, folder: Path) -> None:
    """The property: finite HU in the promised range on a grid of that shape, or a CascadeError."""
    for number, file in enumerate(content.split(_SEAM)):
        (folder / f"{number}.dcm").write_bytes(file)
    with expected_errors():
        scan = read_scan(folder)
        array = scan.volume.array
        assert array.dtype in (np.int16, np.float32)
        assert array.shape == scan.volume.grid.shape
        assert -1024 <= array.min() <= array.max() <= 30000
        assert scan.volume.grid == scan.native.canonical()


if __name__ == "__main__":
    main(check, seeds(), mutate)
