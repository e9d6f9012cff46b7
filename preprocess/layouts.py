"""Finds the cases of a dataset in the layouts they are published in, and reads a case's labels onto its image's grid.

Supported: LiTS, MSD and nnU-Net, 3D-IRCADb-01, CHAOS CT, and a CSV table (see `preprocess.tables`). Looks at fixed
places a level or two down and nowhere else: it does not walk trees, so loops of links cannot hold it. Files of
other names are left alone (`test-volume-N`, `imagesTs`), but an image or a label without its partner is an error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from preprocess.case_checks import Listing, check_cases
from preprocess.cases import Case, DicomMasks, Label, LabelFile, PngMasks, natural_key
from preprocess.errors import InputError, ResourceError, UsageError
from preprocess.folders import entries, ircadb_masks, is_there, unnested
from preprocess.geometry import Grid, Triple
from preprocess.io import read_labels
from preprocess.masks import read_dicom_masks, read_png_masks
from preprocess.tables import read_dataset_json, read_table
from preprocess.text import short
from preprocess.volume import LabelMap

#: Most that a corner of a label may be off that of its image. Headers hold float32, which rounds positions, and
#: directions over the length of a body, to about 0.0001 mm; what is ten times more was not written from one geometry.
LABEL_TOLERANCE_MM = 1e-3

_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
_LITS_FILE = re.compile(r"(volume|segmentation)-(\d+)\.nii(\.gz)?", re.IGNORECASE)
_LITS_FOLDER = re.compile(r"data|ct|labels?|segmentations?|volume_pt\d|training[ _]?batch[ _]?\d", re.IGNORECASE)
_IRCADB_FOLDER = re.compile(r"3dircadb1\.(\d+)", re.IGNORECASE)


def find_cases(source: Path) -> list[Case]:
    """The cases of a dataset folder or CSV table, in natural order of name.

    Raises InputError when no layout matches, or more than one; when no case has a label; for images without label
    and labels without image; for files that are missing; for two cases of one name or one and the same image; for one
    published patient under several. Raises UsageError for a dataset without any case, and ResourceError where a file
    or folder may not be read.
    """
    listing = list_cases(source)
    try:
        listing.check()
        check_cases(listing.cases, source)
    except OSError as error:
        raise ResourceError(f"{source} cannot be read: {error}; check its permissions") from error
    return listing.cases


def list_cases(source: Path) -> Listing:
    """What a dataset folder or CSV table holds by its names, with what does not fit: `find_cases` before it refuses.

    Raises InputError when no layout matches, or more than one, or a table cannot be read; UsageError for an empty
    folder; ResourceError where a file or folder may not be read.
    """
    try:
        is_table = source.is_file() and source.suffix.lower() == ".csv"
        listing = read_table(source) if is_table else _in_folder(source)
    except OSError as error:
        raise ResourceError(f"{source} cannot be read: {error}; check its permissions") from error
    listing.cases.sort(key=lambda case: natural_key(case.name))
    return listing


def read_label(case: Case, grid: Grid) -> LabelMap:
    """The classes 0, 1 and 2 of `case`, uint8 (z, y, x), on `grid`: the canonical grid of its image.

    Corners may be up to `LABEL_TOLERANCE_MM` off, so the result carries the image's grid, not the label's.
    Raises InputError naming the case when it has no label, one that cannot be read, or one that lies elsewhere.
    """
    if case.label is None:
        raise InputError(f"case {case.name} has no label; leave it out of training and evaluation")
    try:
        labels = _read(case.label, case.image)
    except InputError as error:
        raise InputError(f"case {case.name}: {error}") from error
    if labels.grid.shape != grid.shape:
        raise InputError(
            f"case {case.name}: the label has shape {labels.grid.shape} and the image {grid.shape} (z, y, x); "
            "use the label that was drawn on this image"
        )
    off_mm = labels.grid.mismatch_mm(grid)
    if off_mm > LABEL_TOLERANCE_MM:
        raise InputError(
            f"case {case.name}: the label lies {off_mm:.3g} mm off the image (allowed: {LABEL_TOLERANCE_MM} mm), "
            f"{_difference(labels.grid, grid)}; use image and label of one source (LiTS and MSD Task03 headers differ)"
        )
    return LabelMap(labels.array, grid)


def _difference(label: Grid, image: Grid) -> str:
    """The first part of two headers that differs, with both values."""
    if not np.allclose(label.spacing_mm, image.spacing_mm, atol=1e-5):
        return f"spacing {_numbers(label.spacing_mm)} against {_numbers(image.spacing_mm)} mm (z, y, x)"
    if not np.allclose(label.axes, image.axes, atol=1e-6):
        return "turned against it"
    return f"position {_numbers(label.origin_mm)} against {_numbers(image.origin_mm)} mm (x, y, z)"


def _numbers(values: Triple) -> str:
    return "(" + ", ".join(f"{value:.7g}" for value in values) + ")"


def _read(label: Label, image: Path) -> LabelMap:
    match label:
        case LabelFile(path):
            return read_labels(path)
        case DicomMasks():
            return read_dicom_masks(label)
        case PngMasks():
            return read_png_masks(label, image)


def _in_folder(source: Path) -> Listing:
    finders: dict[str, Callable[[Path], Listing]] = {
        "LiTS (volume-N.nii, segmentation-N.nii)": _lits,
        f"MSD or nnU-Net (imagesTr, labelsTr with {', '.join(_ENDINGS)})": _msd,
        "3D-IRCADb-01 (3Dircadb1.N/PATIENT_DICOM, MASKS_DICOM)": _ircadb,
        "CHAOS CT (N/DICOM_anon, Ground)": _chaos,
    }
    found = {}
    if source.is_dir():
        if not any(source.iterdir()):
            raise UsageError(f"{source} is empty: no case in it; give the folder or CSV table of a dataset")
        found = {layout: listing for layout, finder in finders.items() if not (listing := finder(source)).is_empty}
    if not found:
        tables = sorted(path for path in (source.iterdir() if source.is_dir() else ()) if path.suffix.lower() == ".csv")
        hint = f"; is {tables[0]} the table of one? give that" if tables else ""
        raise InputError(
            f"no dataset at {source}; looked for {', '.join(finders)}, or a CSV table with the ending .csv{hint}"
        )
    if len(found) > 1:
        raise InputError(f"{source} holds several datasets: {', '.join(found)}; give the folder of one")
    (listing,) = found.values()
    listing.lone_images += [case.image for case in listing.cases if case.label is None]
    listing.cases = [case for case in listing.cases if case.label is not None]
    return listing


def _lits(source: Path) -> Listing:
    """LiTS: all in one folder, or in the sub-folders that its downloads and copies come in."""
    listing = Listing()
    folders = [source, *(f for f in entries(source) if _LITS_FOLDER.fullmatch(f.name) and f.is_dir())]
    files = [(m, path) for f in folders for path in entries(f) if (m := _LITS_FILE.fullmatch(path.name))]
    images = listing.unique((int(m[2]), path) for m, path in files if m[1].lower() == "volume")
    labels = listing.unique((int(m[2]), path) for m, path in files if m[1].lower() == "segmentation")
    listing.cases = [Case(_stem(images[n]), images[n], LabelFile(labels[n])) for n in listing.paired(images, labels)]
    return listing


def _msd(source: Path) -> Listing:
    """MSD and nnU-Net: the pairs that `dataset.json` lists, else all in imagesTr and labelsTr."""
    image_folder, label_folder = source / "imagesTr", source / "labelsTr"
    listing = Listing()
    if not image_folder.is_dir() and not label_folder.is_dir():
        return listing
    described = read_dataset_json(source)
    if described.training:
        labels = listing.unique((_listed_stem(label), label) for _, label in described.training)
        images = {_stem(label): _listed_image(image) for image, label in described.training}
    else:
        labels = listing.unique((stem, path) for path in entries(label_folder) if (stem := _stem(path)))
        found = [(_case_of(stem, labels), path) for path in entries(image_folder) if (stem := _stem(path))]
        images = listing.unique(found)
    drawn = "expert" if described.has_tumor else "none"
    names = listing.paired(images, labels)
    listing.cases = [Case(n, images[n], LabelFile(labels[n]), tumor_label=drawn) for n in names]
    if listing.is_empty:
        raise UsageError(f"{source} holds no case: imagesTr and labelsTr are empty; add cases or give another dataset")
    return listing


def _stem(path: Path) -> str:
    """The name without its image ending; empty for a file that is no image."""
    ending = next((e for e in _ENDINGS if path.name.lower().endswith(e)), None)
    return path.name[: -len(ending)] if ending else ""


def _listed_stem(path: Path) -> str:
    stem = _stem(path)
    if not stem:
        raise InputError(f"dataset.json lists {short(path)}, which ends in none of {', '.join(_ENDINGS)}; convert it")
    return stem


def _listed_image(path: Path) -> Path:
    """The image file that `dataset.json` means: nnU-Net 1 lists liver_0.nii.gz for the file liver_0_0000.nii.gz."""
    stem = _listed_stem(path)
    return path if is_there(path) else path.with_name(f"{stem}_0000{path.name[len(stem) :]}")


def _case_of(stem: str, labels: dict[str, Path]) -> str:
    """The case of an image name, which may carry nnU-Net's channel number; any number but 0000 is a second channel."""
    name, _, channel = stem.rpartition("_")
    if stem in labels or name not in labels or not re.fullmatch(r"\d{4}", channel):
        return stem
    if channel != "0000":
        raise InputError(f"case {name} has a second channel, {stem}; CT has one, keep only {name}_0000")
    return name


def _ircadb(source: Path) -> Listing:
    """3D-IRCADb-01: the folder of one patient, or of many."""
    cases = []
    for folder in (source, *entries(source)):
        image, masks = folder / "PATIENT_DICOM", folder / "MASKS_DICOM"
        if image.is_dir() or masks.is_dir():
            cases.append(Case(_ircadb_name(folder), unnested(image), ircadb_masks(unnested(masks))))
    return Listing(cases)


def _ircadb_name(folder: Path) -> str:
    name = _name(folder)
    numbered = _IRCADB_FOLDER.fullmatch(name)
    return f"ircadb-{int(numbered[1]):02d}" if numbered else name


def _chaos(source: Path) -> Listing:
    """CHAOS CT: the folder of one donor, or of many. Donors are healthy, so an absent tumour is known to be absent."""
    cases = []
    for folder in (source, *entries(source)):
        image, ground = folder / "DICOM_anon", folder / "Ground"
        if image.is_dir() or ground.is_dir():
            cases.append(Case(f"chaos-{_name(folder)}", image, PngMasks(ground) if ground.is_dir() else None))
    return Listing(cases)


def _name(folder: Path) -> str:
    # abspath, because the name of `.` is empty; links are not followed.
    return Path(os.path.abspath(folder)).name
