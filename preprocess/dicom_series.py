"""Which files of a folder are the one CT series, and why the others are not. Messages name no patient and no UID."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from preprocess.dicom_files import DicomFile
from preprocess.errors import InputError

#: A series of fewer slices is no volume.
LEAST_SLICES = 3

_NO_PICTURES = ("SEG", "RTDOSE", "RTSTRUCT")


def chosen_series(folder: Path, files: list[DicomFile], *, ct_only: bool) -> tuple[list[DicomFile], tuple[str, ...]]:
    """The files of the only series of at least `LEAST_SLICES` slices, and a warning about the rest.

    With `ct_only` only CT counts. Raises InputError when there is none, and a list when there are several.
    """
    series: dict[str, list[DicomFile]] = defaultdict(list)
    for file in files:
        if _counts(file, ct_only):
            series[file.text("SeriesInstanceUID")].append(file)
    if not series:
        found = ", ".join(sorted({file.text("Modality") or "unknown" for file in files}))
        raise InputError(f"{folder} holds no CT slices (modality {found}); give an axial CT series")
    # Colour pictures in a CT series are screen saves, dose charts or renderings.
    usable = [grey for s in series.values() if (grey := [file for file in s if file.is_grey])]
    if not usable:
        raise InputError(f"{folder} holds colour pictures, not CT in HU; give the original series")
    for file in (file for s in usable for file in s):
        check_one_frame(file)
    usable.sort(key=len, reverse=True)
    large = [s for s in usable if len(s) >= LEAST_SLICES]
    if not large:
        counts = ", ".join(str(len(s)) for s in usable)
        raise InputError(f"{folder} has too few slices for a volume ({counts}; at least {LEAST_SLICES} are needed)")
    if len(large) > 1:
        raise InputError(f"{folder} holds several series ({_listed(large)}); put the one to use in its own folder")
    rest = len(files) - len(large[0])
    return large[0], ((f"{rest} DICOM files skipped (localizers, other series or objects)",) if rest else ())


def check_one_frame(file: DicomFile) -> None:
    """Raises InputError for a file of several pictures."""
    if file.frames != 1:
        raise InputError(f"{file.path} is a multi-frame DICOM object; export the CT with one file a slice")


def check_slice(file: DicomFile) -> None:
    """Raises InputError for a file that is no slice of a CT."""
    modality = file.text("Modality")
    if not _counts(file, ct_only=True):
        kind = "a localizer" if file.is_localizer else f"modality {modality or 'unknown'}"
        raise InputError(f"{file.path} is no CT slice ({kind}); give an axial CT series")
    if not file.is_grey:
        raise InputError(f"{file.path} is a colour picture, not CT in HU; give the original series")
    check_one_frame(file)


def _counts(file: DicomFile, ct_only: bool) -> bool:
    modality = file.text("Modality")
    return not file.is_localizer and (modality == "CT" if ct_only else modality not in _NO_PICTURES)


def _listed(series: list[list[DicomFile]], most: int = 6) -> str:
    """Number, length and slice thickness of each series, from the longest on."""
    rows = []
    for files in series[:most]:
        number, thickness = files[0].text("SeriesNumber"), files[0].text("SliceThickness")
        name = f"number {number[:12]}: " if number else ""
        rows.append(f"{name}{len(files)} slices" + (f" of {thickness[:8]} mm" if thickness else ""))
    return "; ".join(rows + (["..."] if len(series) > most else []))
