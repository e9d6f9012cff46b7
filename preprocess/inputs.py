"""Which images a folder stands for, when it is given to `cascade run`."""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from pathlib import Path

from preprocess.dicom_files import DICOM_ENDINGS, is_dicom
from preprocess.errors import InputError
from preprocess.findings import listed

_LOG = logging.getLogger(__name__)

#: Endings of image files that are one case each; of a pair (.hdr, .img) the half that is the header.
IMAGE_ENDINGS = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".zip", ".hdr", ".hdr.gz")


def find_images(folder: Path) -> list[Path]:
    """The cases in `folder`: its image files and its subfolders with DICOM files; or itself, when it holds DICOM files.

    Hidden files are ignored, and so are the labels of a LiTS folder (`segmentation-N` beside `volume-N`). DICOM folders
    that lie deeper are no cases, and there is a warning for them (see `too_deep`). Raises InputError when there is no
    case, and for a folder that holds images and DICOM slices side by side.
    """
    if deep := too_deep(folder):
        told = listed([path.relative_to(folder) for path in deep])
        _LOG.warning("%s: DICOM folders in it that lie too deep to be cases: %s; give what holds them", folder, told)
    paths = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    images = [path for path in paths if path.is_file() and path.name.lower().endswith(IMAGE_ENDINGS)]
    if _holds_dicom(folder):
        if images:
            raise InputError(f"{folder}: holds DICOM slices and also {images[0].name}; give one or the other")
        return [folder]
    names = {path.name.lower() for path in images}
    images = [path for path in images if not _is_lits_label(path.name.lower(), names)]
    found = sorted([*images, *(path for path in paths if path.is_dir() and _holds_dicom(path))])
    if not found:
        raise InputError(
            f"{folder}: no case in it; give a folder of {', '.join(IMAGE_ENDINGS)} files or of DICOM folders, "
            "or a DICOM folder itself"
        )
    return found


def too_deep(folder: Path) -> list[Path]:
    """DICOM folders that `find_images` passes over: below a folder of DICOM slices, or two below any other.

    A folder that may not be read is none: it is no case, and must not keep the others from being done.
    """
    inside = _subfolders(folder)
    if not _holds_dicom(folder):
        inside = [path for middle in inside for path in _subfolders(middle)]
    found = []
    for path in inside:
        with suppress(OSError):
            found += [path] if _holds_dicom(path) else []
    return found


def _subfolders(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]


def _holds_dicom(folder: Path) -> bool:
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    slices = [path for path in files if not path.name.lower().endswith(IMAGE_ENDINGS)]
    return any(path.suffix.lower() in DICOM_ENDINGS or is_dicom(path) for path in slices[:10])


def _is_lits_label(name: str, names: set[str]) -> bool:
    match = re.fullmatch(r"segmentation-(.+?)\.nii(\.gz)?", name)
    return match is not None and not names.isdisjoint({f"volume-{match[1]}.nii", f"volume-{match[1]}.nii.gz"})
