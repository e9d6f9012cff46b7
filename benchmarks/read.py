"""How fast a scan is read and verified, and what a hostile file costs.

    python benchmarks/read.py [FILE ...]

Without files: a synthetic abdomen as .nii.gz, deflated as most programs do. "look" is the whole gzip stream with its
CRC; "read" all of `read_scan` up to HU in canonical order, with the census of the values. Rates are uncompressed
megabytes per second, once by the clock and once by this process's CPU time, which depends less on other work.
"""

from __future__ import annotations

import gzip
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.process import asked_for_help
from preprocess.archive import GzipPieces
from preprocess.geometry import Grid
from preprocess.io import read_scan
from preprocess.nifti_header import NiftiHeader
from preprocess.phantom import make_phantom

_REPEATS = 3
_REFUSED = """
import time; from pathlib import Path; import sys; from preprocess.io import read_scan
start = time.perf_counter()
try: read_scan(Path(sys.argv[1]))
except Exception as error: print(f"{time.perf_counter() - start:.3f} s,", end=" ")
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0], "kB at most (with all imports)")
"""


def main() -> None:
    """Print a table."""
    with tempfile.TemporaryDirectory() as name:
        files = [Path(file) for file in sys.argv[1:]] or [synthetic(Path(name) / "synthetic.nii.gz")]
        print(f"{'':28}{'MB':>7}{'look, MB/s':>16}{'read, MB/s':>16}    (clock, CPU)")
        for file in files:
            size = sum(map(len, GzipPieces(file.open("rb")))) / 1e6
            rates = [best(size, work, file) for work in (look, read_scan)]
            print(f"{file.name[-26:]:28}{size:7.0f}" + "".join(f"{a:9.0f}{b:7.0f}" for a, b in rates), flush=True)
        for kind, content in hostile().items():
            (path := Path(name) / "hostile.nii.gz").write_bytes(content)
            done = subprocess.run(
                [sys.executable, "-c", _REFUSED, str(path)], capture_output=True, text=True, check=True
            )
            print(f"{kind:28}{done.stdout.strip()}")


def look(file: Path) -> None:
    """The whole stream, nothing kept."""
    with file.open("rb") as stream:
        for _ in GzipPieces(stream):
            pass


def best(size_mb: float, work: Callable[[Path], object], file: Path) -> tuple[float, float]:
    """The best of a few rates, by the clock and by CPU time."""
    rates = []
    for _ in range(_REPEATS):
        clock, cpu = time.perf_counter(), time.process_time()
        work(file)
        rates.append((size_mb / (time.perf_counter() - clock), size_mb / (time.process_time() - cpu)))
    return max(r[0] for r in rates), max(r[1] for r in rates)


def synthetic(path: Path) -> Path:
    """A scan of 105 MB in which a phantom is repeated in plane and along z."""
    hu = make_phantom(0, oriented=False).volume.array
    hu = np.tile(hu, (3, 4, 3))[:200, :512, :512]
    header = NiftiHeader.of(Grid(hu.shape, (1.0, 0.8, 0.8)))
    from preprocess.nifti import write_nifti

    write_nifti(path, np.ascontiguousarray(hu), header)
    return path


def hostile() -> dict[str, bytes]:
    """A header of 30000 cubed, and a gigabyte of zeros behind a header of 8 MB."""
    fields = np.array(NiftiHeader.of(Grid((16, 512, 512), (1.0, 1.0, 1.0))).fields)
    fields["sizeof_hdr"], fields["magic"], fields["vox_offset"], fields["datatype"] = 348, b"n+1", 352, 4
    fields["dim"] = (3, 512, 512, 16, 1, 1, 1, 1)
    bomb = gzip.compress(fields.tobytes() + bytes(1 << 30), 9)
    fields["dim"] = (3, 30000, 30000, 30000, 1, 1, 1, 1)
    return {"header of 30000^3": gzip.compress(fields.tobytes() + bytes(1000)), "bomb of 1 GB": bomb}


if __name__ == "__main__":
    asked_for_help(__doc__)
    main()
