"""A whole case by cascade and by nnU-Net v2, with the same network, in turns: seconds by step and peak memory.

    python -m benchmarks.rivals [--slices 256 600] [--rounds 3] [--windows 4] [--nnunet PYTHON] [--tiny]

A synthetic abdomen of 512 x 512 voxels of 0.78 mm and slices of 1 mm. Both sides take 128^3 windows at a step of a
half, of a plain U-Net with six stages of 32 to 320 channels and random weights, at 1.0 x 0.768 x 0.768 mm, without
mirroring. cascade gets the liver's mask and does the rest as `cascade run` does; nnU-Net takes the whole scan. Each
case is a process of its own; reading and writing are included, the start of the process only in "process". nnU-Net
runs one step after the other in one process, with the allocator as installed and tuned. Only a few of its windows are
computed, after one to warm up; the others are extrapolated, all else is timed.

nnU-Net is run by the interpreter --nnunet (default: this one), an environment with cascade's packages and those of
benchmarks/nnunet.txt (`pip install --no-deps -r benchmarks/nnunet.txt`). --tiny tries all that out in a minute.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import given_liver
from benchmarks.process import TUNED, machine, spread, times, watched
from benchmarks.scans import labelled_scan
from preprocess.geometry import Triple

#: The working spacing that nnU-Net plans for LiTS, in mm.
WORKING_MM = (1.0, 0.767578125, 0.767578125)
SIDES = ("nnU-Net as installed", "nnU-Net, tuned allocator", "cascade")
_COLUMNS = ("before", "predict", "after", "outside", "case", "process", "peak")


@dataclass(frozen=True)
class Setup:
    """The size of everything: voxels in plane and of a window's side, channels, both spacings (z, y, x) in mm."""

    plane: int
    window: int
    features: list[int]
    spacing_mm: Triple
    working_mm: Triple


FULL = Setup(512, 128, [32, 64, 128, 256, 320, 320], (1.0, 0.78, 0.78), WORKING_MM)
TINY = Setup(96, 32, [4, 8, 8], (4.0, 4.2, 4.2), (4.0, 4.1, 4.1))


def main() -> None:
    """Print Markdown tables, one a size; each run as it ends on stderr."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, nargs="+", default=[256, 600])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--windows", type=int, default=4, help="of nnU-Net that are timed")
    parser.add_argument("--nnunet", default=sys.executable, metavar="PYTHON", help="an interpreter that has nnunetv2")
    parser.add_argument("--tiny", action="store_true", help="a tiny network on a tiny scan, to try the script out")
    options = parser.parse_args()
    setup = TINY if options.tiny else FULL
    print(machine(options.nnunet))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = given_liver.model(folder / "tumor.safetensors", setup.features, [setup.window] * 3, setup.working_mm)
        for slices in options.slices:
            shape = (slices, setup.plane, setup.plane)
            image, liver = labelled_scan(folder, f"scan-{slices}", shape, setup.spacing_mm)
            runs: dict[str, list[Mapping[str, float]]] = {side: [] for side in SIDES}
            for number in range(options.rounds):
                for side in SIDES:
                    out = folder / f"out-{slices}"
                    if side == "cascade":
                        files = {"image": str(image), "liver": str(liver), "tumor": str(model), "out": str(out)}
                        run = _cascade(files, shape, setup.spacing_mm)
                    else:
                        run = _nnunet(options.nnunet, image, out, options.windows, setup, tuned="tuned" in side)
                    shutil.rmtree(out)
                    runs[side].append(run)
                    print(
                        f"{slices} slices, round {number + 1}, {side}: {json.dumps(run)}", file=sys.stderr, flush=True
                    )
            print(f"\n{slices} slices, {times(options.rounds)}\n\n{table(runs)}")


def _cascade(files: Mapping[str, str], shape: Sequence[int], spacing_mm: Triple) -> dict[str, float]:
    given = json.dumps({"files": files, "shape": shape, "spacing_mm": spacing_mm})
    done = watched([sys.executable, "-m", "benchmarks.given_liver", given])
    own = json.loads(done.last)
    before = own["step read"] + own["step stage1"]
    return {
        "windows": own["windows"],
        "timed": own["windows"],
        "window": own["window"],
        "before": before,
        "predict": own["step stage2"],
        "after": own["total"] - before - own["step stage2"],
        "outside": own["total"] - own["network"],
        "case": own["total"],
        "process": done.seconds,
        "peak": done.peak_gb,
        "liver_ml": own["liver_ml"],
    }


def _nnunet(python: str, image: Path, out: Path, windows: int, setup: Setup, *, tuned: bool) -> dict[str, float]:
    out.mkdir()
    plan = {"features": setup.features, "patch": [setup.window] * 3, "spacing_mm": setup.working_mm}
    given = json.dumps({"image": str(image), "out": str(out / "mask"), "windows": windows, **plan})
    done = watched([python, "-m", "benchmarks.nnunet", "predict", given], TUNED if tuned else {})
    own = json.loads(done.last)
    case = own["prepare"] + own["predict"] + own["export"]
    return {
        "windows": own["windows"],
        "timed": own["timed"],
        "window": own["window"],
        "before": own["prepare"],
        "predict": own["predict"],
        "after": own["export"],
        "outside": case - own["network"],
        "case": case,
        "process": done.seconds + own["left out"],
        "peak": done.peak_gb,
    }


def table(runs: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """One line a side: median, smallest and largest of its rounds; then cascade's ratio to each, round by round."""
    lines = [
        "| | windows (timed) | a window, s | read and prepare, s | predict, s | finish and write, s "
        "| outside the network, s | case, s | process, s | peak, GB |",
        "| --- |" + " ---: |" * (2 + len(_COLUMNS)),
    ]
    for side, each in runs.items():
        counts = f"{each[0]['windows']:.0f} ({each[0]['timed']:.0f})"
        cells = [spread([run[name] for run in each]) for name in ("window", *_COLUMNS)]
        lines.append(f"| {side} | {counts} | {' | '.join(cells)} |")
    lines.append("")
    ours = runs["cascade"]
    for side, each in runs.items():
        if side != "cascade":
            times = [a["case"] / b["case"] for a, b in zip(each, ours, strict=True)]
            share = median(b["peak"] / a["peak"] for a, b in zip(each, ours, strict=True))
            lines.append(f"- cascade against {side}: {spread(times, 1)} times as fast, {share:.2f} of the peak memory")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
