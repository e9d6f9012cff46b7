"""A scan beside other work on the same cores: what it costs that torch's threads soon sleep when they wait.

    python -m benchmarks.beside [FILE] [--rounds 3]

Seconds of the whole process of `cascade run` with the installed models on one scan (default: a synthetic abdomen of
256 slices): alone, two at once, and beside a network that computes on all cores all the time. Each as cascade sets it
and as libgomp has it by itself, in turns. Nothing is extrapolated.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.case import synthetic
from benchmarks.process import machine, seconds_of, spread, times

#: Ways to wait, as environments: what is set already, `cascade.machine.share_cores` leaves alone.
_WAYS = {"cascade": {}, "libgomp's own": {"GOMP_SPINCOUNT": "300000"}}
_LOAD = """
from cascade.machine import share_cores
share_cores()
import torch
net = torch.nn.Sequential(*[torch.nn.Conv3d(16, 16, 3, padding=1) for _ in range(4)])
image = torch.randn(1, 16, 48, 48, 48)
with torch.no_grad():
    while True:
        net(image)
"""


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scan", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scan = args.scan or synthetic(Path(name) / "256.nii.gz", 256)
        rounds = [[_row(scan, Path(name), way) for way in _WAYS.values()] for _ in range(args.rounds)]
    print(f"{machine()}; {scan.name}; median of {times(args.rounds)}, least and most in brackets\n")
    print("| threads that wait | alone, s | two at once, s | beside a busy network, s |\n| --- | ---: | ---: | ---: |")
    for way, runs in zip(_WAYS, zip(*rounds, strict=True), strict=True):
        print(f"| {way} | " + " | ".join(spread(column, 1) for column in zip(*runs, strict=True)) + " |")


def _row(scan: Path, out: Path, way: dict[str, str]) -> tuple[float, float, float]:
    """Seconds alone, of the later of two at once, and beside a load that waits in the same way."""
    env = {**os.environ, **way}
    alone = seconds_of(lambda: _wait([_start(scan, out / "1", env)]))
    both = seconds_of(lambda: _wait([_start(scan, out / k, env) for k in "12"]))
    with subprocess.Popen([sys.executable, "-c", _LOAD], env=env) as load:
        try:
            beside = seconds_of(lambda: _wait([_start(scan, out / "1", env)]))
        finally:
            load.kill()
    return alone, both, beside


def _start(scan: Path, out: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "cascade", "run", str(scan), "-o", str(out), "--overwrite"]
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)


def _wait(processes: list[subprocess.Popen[bytes]]) -> None:
    codes = [process.wait() for process in processes]
    if any(codes):
        raise RuntimeError("cascade run failed; its message stands above")


if __name__ == "__main__":
    main()
