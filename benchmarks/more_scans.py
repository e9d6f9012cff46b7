"""What the installed stage 2 was trained on last: the cases of before, and scans that lie in packages of PyPI.

    make packages
    python -m benchmarks.more_scans packages cases.csv data more

`data` is what `cascade prepare` made of cases.csv. Writes scans and livers, for each of the installed networks a table,
tumor-0.csv and tumor-1.csv, of the cases that it has not left out and its half of those scans, all taken for healthy,
and tumor.toml, by which `cascade prepare` gives both the voxels of `data`. The liver is the one a program drew, if any
did, or what the installed models find, which was looked at. `make models` runs this.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from scipy import ndimage

from benchmarks.elsewhere import SCANS, Found, drawn_liver, unpacked
from benchmarks.process import asked_for_help
from cascade.case import Runner, load_runner
from cascade.commands.training import split_by_fold
from cascade.pipeline import Stopwatch, segment
from preprocess.cases import Case, LabelFile, label_files
from preprocess.components import Mask, largest
from preprocess.files import write_text
from preprocess.geometry import Box
from preprocess.io import read_scan, write_image
from preprocess.layouts import find_cases
from preprocess.prepared import load_dataset
from preprocess.volume import LIVER, LabelMap

#: Each network leaves out one of so many parts of the patients.
_PARTS = 9


def written(found: Found, unpacked_at: Path, folder: Path, runner: Runner) -> Case:
    """The scan `found` as a case: its slices that count, and the liver in them, written into `folder`."""
    volume = read_scan(unpacked_at / found.image).volume
    liver = drawn_liver(found, unpacked_at, volume)
    if liver is None:
        liver = without_spots(segment(volume, runner.liver, runner.tumor, Stopwatch()).labels.array >= LIVER)
    slices = volume.grid.shape[0]
    if found.lower_mm:
        slices = min(slices, round(found.lower_mm / volume.grid.spacing_mm[0]))
    part = Box((0, 0, 0), (slices, *volume.grid.shape[1:]))
    name = found.what.replace(",", "").replace(" ", "-")
    image, label = folder / f"{name}.nii.gz", folder / f"{name}-liver.nii.gz"
    write_image(image, volume.cropped(part))
    write_image(label, LabelMap(liver.astype(np.uint8), volume.grid).cropped(part))
    return Case(name, image, LabelFile(label), liver_label="automatic", tumor_label="automatic")


def without_spots(liver: Mask) -> Mask:
    """`liver` without what hangs on it by a thread in its slices, such as some of a heart."""
    square = np.ones((1, 5, 5))
    core = largest(ndimage.binary_opening(liver, square))
    return np.asarray(liver & ndimage.binary_dilation(core, square))


def write_table(path: Path, cases: Sequence[Case]) -> None:
    """`cases`, whose labels are files, as a table for `cascade prepare`."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["case", "image", "label", "patient", "liver_label", "tumor_label"])
        for case in cases:
            (label,) = label_files(case)
            rows.writerow(
                [case.name, case.image.resolve(), label.resolve(), case.patient, case.liver_label, case.tumor_label]
            )


def main(arguments: Sequence[str] | None = None) -> None:
    """Write scans, livers and tables."""
    asked_for_help(__doc__)
    parser = argparse.ArgumentParser()
    for name in ("packages", "cases", "data", "more"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args(arguments)
    given.more.mkdir(parents=True, exist_ok=True)
    runner = load_runner(None, None, "cpu", liver_only=False)
    before, data = [case for case in find_cases(given.cases) if case.label], load_dataset(given.data)
    if odd := [case.name for case in before if not isinstance(case.label, LabelFile)]:
        sys.exit(f"{given.cases}: {', '.join(odd)}: labels of several files, and a table takes one each: join them")
    with TemporaryDirectory() as folder:
        unpacked(given.packages, Path(folder))
        for network in (0, 1):
            left = {case.name for case in split_by_fold(data.cases, f"{network}/{_PARTS}")[1]}
            more = [written(f, Path(folder), given.more, runner) for f in SCANS if f.learned_by == network]
            write_table(given.more / f"tumor-{network}.csv", [c for c in before if c.name not in left] + more)
    voxels = list(data.preparations["tumor"].spacing_mm)
    write_text(given.more / "tumor.toml", f"[preparation]\nfinest_mm = {voxels}\ncoarsest_mm = {voxels}\n")


if __name__ == "__main__":
    main()
