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

from preprocess.case_checks import check_cases, check_pairs, listed, unique
from preprocess.cases import Case, DicomMasks, Label, LabelFile, PngMasks, natural_key
from preprocess.errors import InputError, ResourceError
from preprocess.folders import entries, ircadb_masks, unnested
from preprocess.geometry import Grid
from preprocess.io import read_labels
from preprocess.masks import GRID_TOLERANCE_MM, read_dicom_masks, read_png_masks
from preprocess.tables import read_dataset_json, read_table
from preprocess.volume import LabelMap

_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
_LITS_FILE = re.compile(r"(volume|segmentation)-(\d+)\.nii(\.gz)?", re.IGNORECASE)
_LITS_FOLDER = re.compile(r"data|ct|labels?|segmentations?|volume_pt\d|training[ _]?batch[ _]?\d", re.IGNORECASE)
_IRCADB_FOLDER = re.compile(r"3dircadb1\.(\d+)", re.IGNORECASE)
#: LiTS volume-28 to volume-47 are patients 1 to 20 of 3D-IRCADb-01.
_IRCADB_IN_LITS, _IRCADB_OFFSET = range(28, 48), 27


def find_cases(source: Path) -> list[Case]:
    """The cases of a dataset folder or CSV table, in natural order of name.

    Raises InputError when no layout matches, or more than one; when no case has a label; for images without label
    and labels without image; for files that are missing; for two cases of one name or one and the same image.
    Raises ResourceError where a file or folder may not be read.
    """
    try:
        is_table = source.is_file() and source.suffix.lower() == ".csv"
        cases = read_table(source) if is_table else _in_folder(source)
        check_cases(cases, source)
    except OSError as error:
        raise ResourceError(f"{source} cannot be read: {error}; check its permissions") from error
    return sorted(cases, key=lambda case: natural_key(case.name))


def read_label(case: Case, grid: Grid) -> LabelMap:
    """The classes 0, 1 and 2 of `case`, uint8 (z, y, x), on `grid`: the canonical grid of its image.

    Corners may be up to `GRID_TOLERANCE_MM` off, so the result carries the image's grid, not the label's.
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
    if off_mm > GRID_TOLERANCE_MM:
        raise InputError(
            f"case {case.name}: the label lies {off_mm:.3g} mm off the image (allowed: {GRID_TOLERANCE_MM} mm); "
            "use image and label of one source (LiTS and MSD Task03 headers differ)"
        )
    return LabelMap(labels.array, grid)


def label_files(case: Case) -> tuple[Path, ...]:
    """The files and folders that the label of `case` is read from; none for a case without label."""
    match case.label:
        case None:
            return ()
        case LabelFile(path):
            return (path,)
        case DicomMasks(liver, tumors):
            return (liver, *tumors)
        case PngMasks(folder):
            return (folder,)


def _read(label: Label, image: Path) -> LabelMap:
    match label:
        case LabelFile(path):
            return read_labels(path)
        case DicomMasks():
            return read_dicom_masks(label)
        case PngMasks():
            return read_png_masks(label, image)


def _in_folder(source: Path) -> list[Case]:
    finders: dict[str, Callable[[Path], list[Case]]] = {
        "LiTS (volume-N.nii, segmentation-N.nii)": _lits,
        f"MSD or nnU-Net (imagesTr, labelsTr with {', '.join(_ENDINGS)})": _msd,
        "3D-IRCADb-01 (3Dircadb1.N/PATIENT_DICOM, MASKS_DICOM)": _ircadb,
        "CHAOS CT (N/DICOM_anon, Ground)": _chaos,
    }
    found = {}
    if source.is_dir():
        found = {layout: cases for layout, finder in finders.items() if (cases := finder(source))}
    if not found:
        raise InputError(
            f"no dataset at {source}; looked for {', '.join(finders)}, or a CSV table with the ending .csv"
        )
    if len(found) > 1:
        raise InputError(f"{source} holds several datasets: {', '.join(found)}; give the folder of one")
    (cases,) = found.values()
    unlabelled = [case.image for case in cases if case.label is None]
    if unlabelled:
        raise InputError(f"images without label: {listed(unlabelled)}; add the labels or move them out of the dataset")
    return cases


def _lits(source: Path) -> list[Case]:
    """LiTS: all in one folder, or in the sub-folders that its downloads and copies come in."""
    folders = [source, *(f for f in entries(source) if _LITS_FOLDER.fullmatch(f.name) and f.is_dir())]
    files = [(m, path) for f in folders for path in entries(f) if (m := _LITS_FILE.fullmatch(path.name))]
    images = unique((int(m[2]), path) for m, path in files if m[1].lower() == "volume")
    labels = unique((int(m[2]), path) for m, path in files if m[1].lower() == "segmentation")
    check_pairs(images, labels)
    return [Case(_stem(images[n]), images[n], LabelFile(labels[n]), patient=_lits_patient(n)) for n in images]


def _lits_patient(number: int) -> str:
    """The patient of LiTS volume-N and MSD Task03 liver_N, as 3D-IRCADb-01 is in both; volumes 0 and 1 are one."""
    if number in _IRCADB_IN_LITS:
        return f"ircadb-{number - _IRCADB_OFFSET:02d}"
    return "lits-0" if number == 1 else f"lits-{number}"


def _msd(source: Path) -> list[Case]:
    """MSD and nnU-Net: the pairs that `dataset.json` lists, else all in imagesTr and labelsTr."""
    image_folder, label_folder = source / "imagesTr", source / "labelsTr"
    if not image_folder.is_dir() and not label_folder.is_dir():
        return []
    described = read_dataset_json(source)
    if described.training:
        labels = unique((_listed_stem(label), label) for _, label in described.training)
        images = {_stem(label): _listed_image(image) for image, label in described.training}
    else:
        labels = unique((stem, path) for path in entries(label_folder) if (stem := _stem(path)))
        images = unique((_case_of(stem, labels), path) for path in entries(image_folder) if (stem := _stem(path)))
    check_pairs(images, labels)
    drawn = "expert" if described.has_tumor else "none"
    return [Case(n, images[n], LabelFile(labels[n]), patient=_msd_patient(n), tumor_label=drawn) for n in images]


def _stem(path: Path) -> str:
    """The name without its image ending; empty for a file that is no image."""
    ending = next((e for e in _ENDINGS if path.name.lower().endswith(e)), None)
    return path.name[: -len(ending)] if ending else ""


def _listed_stem(path: Path) -> str:
    stem = _stem(path)
    if not stem:
        raise InputError(f"dataset.json lists {path}, which ends in none of {', '.join(_ENDINGS)}; convert it")
    return stem


def _listed_image(path: Path) -> Path:
    """The image file that `dataset.json` means: nnU-Net 1 lists liver_0.nii.gz for the file liver_0_0000.nii.gz."""
    stem = _listed_stem(path)
    return path if path.exists() else path.with_name(f"{stem}_0000{path.name[len(stem) :]}")


def _case_of(stem: str, labels: dict[str, Path]) -> str:
    """The case of an image name, which may carry nnU-Net's channel number; any number but 0000 is a second channel."""
    name, _, channel = stem.rpartition("_")
    if stem in labels or name not in labels or not re.fullmatch(r"\d{4}", channel):
        return stem
    if channel != "0000":
        raise InputError(f"case {name} has a second channel, {stem}; CT has one, keep only {name}_0000")
    return name


def _msd_patient(name: str) -> str:
    task03 = re.fullmatch(r"liver_(\d+)", name)
    return _lits_patient(int(task03[1])) if task03 else name


def _ircadb(source: Path) -> list[Case]:
    """3D-IRCADb-01: the folder of one patient, or of many."""
    cases = []
    for folder in (source, *entries(source)):
        image, masks = folder / "PATIENT_DICOM", folder / "MASKS_DICOM"
        if image.is_dir() or masks.is_dir():
            cases.append(Case(_ircadb_name(folder), unnested(image), ircadb_masks(unnested(masks))))
    return cases


def _ircadb_name(folder: Path) -> str:
    name = _name(folder)
    numbered = _IRCADB_FOLDER.fullmatch(name)
    return f"ircadb-{int(numbered[1]):02d}" if numbered else name


def _chaos(source: Path) -> list[Case]:
    """CHAOS CT: the folder of one donor, or of many. Donors are healthy, so an absent tumour is known to be absent."""
    cases = []
    for folder in (source, *entries(source)):
        image, ground = folder / "DICOM_anon", folder / "Ground"
        if image.is_dir() or ground.is_dir():
            cases.append(Case(f"chaos-{_name(folder)}", image, PngMasks(ground) if ground.is_dir() else None))
    return cases


def _name(folder: Path) -> str:
    # abspath, because the name of `.` is empty; links are not followed.
    return Path(os.path.abspath(folder)).name
