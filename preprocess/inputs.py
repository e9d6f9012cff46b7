"""Which images a folder stands for, when it is given to `cascade run`."""

from __future__ import annotations

from pathlib import Path

from preprocess.errors import InputError

#: Endings of image files that are one case each.
IMAGE_ENDINGS = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".zip")


def find_images(folder: Path) -> list[Path]:
    """The cases in `folder`: its image files and its subfolders with DICOM files; or itself, when it holds DICOM files.

    Hidden files are ignored, and so are the labels of a LiTS folder (`segmentation-N` beside `volume-N`).
    Raises InputError when there is none.
    """
    if _holds_dicom(folder):
        return [folder]
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or _is_lits_label(path):
            continue
        if path.is_dir():
            found += [path] if _holds_dicom(path) else []
        elif path.name.lower().endswith(IMAGE_ENDINGS):
            found.append(path)
    if not found:
        raise InputError(
            f"{folder}: no case in it; give a folder of {', '.join(IMAGE_ENDINGS)} files or of DICOM folders, "
            "or a DICOM folder itself"
        )
    return found


def _holds_dicom(folder: Path) -> bool:
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    if any(path.name.lower().endswith(IMAGE_ENDINGS) for path in files):
        return False  # a stray DICOM file among images does not make the folder a series
    return any(path.suffix.lower() in (".dcm", ".ima") or _has_magic(path) for path in files[:10])


def _has_magic(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _is_lits_label(path: Path) -> bool:
    stem = path.name.split(".")[0].replace("segmentation-", "volume-", 1)
    return path.name.startswith("segmentation-") and any(path.parent.glob(f"{stem}.nii*"))
