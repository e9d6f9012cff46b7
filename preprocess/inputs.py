"""Which images a folder stands for, when it is given to `cascade run`."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Set
from contextlib import suppress
from pathlib import Path

from preprocess.dicom_files import DICOM_ENDINGS, is_dicom
from preprocess.errors import InputError
from preprocess.findings import listed

_LOG = logging.getLogger(__name__)

#: Endings of image files that are one case each; of a pair (.hdr, .img) the half that is the header.
IMAGE_ENDINGS = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".zip", ".hdr", ".hdr.gz")

#: How deep folders are looked for that somebody may have meant: patient, study, series.
_DEPTH = 4
#: The images of a case's result.
_RESULT = {"segmentation.nii.gz", "stage1_liver.nii.gz", "stage2_tumor.nii.gz"}


def find_images(folder: Path) -> list[Path]:
    """The cases in `folder`: its image files and its subfolders with DICOM files; or itself, when it holds DICOM files.

    Hidden files are ignored, and so are the labels of a LiTS folder (`segmentation-N` beside `volume-N`). What lies
    deeper is no case, and there is a warning for it (see `too_deep`). Raises InputError when there is no case, and for
    a folder that holds images and DICOM slices side by side.
    """
    images, deep = _images(folder), too_deep(folder)
    if _holds_dicom(folder):
        if images:
            raise InputError(f"{folder}: holds DICOM slices and also {images[0].name}; give one or the other")
        found = [folder]
    else:
        names = {path.name.lower() for path in images}
        images = [path for path in images if not _is_lits_label(path.name.lower(), names)]
        found = sorted([*images, *(path for path in _subfolders(folder) if _holds_dicom(path))])
    told = f"{listed([path.relative_to(folder) for path in deep])}: images in it lie too deep to be cases; give that"
    if not found and deep:
        raise InputError(f"{folder}: no case in it; {told}")
    if not found:
        raise InputError(
            f"{folder}: no case in it; give a folder of {', '.join(IMAGE_ENDINGS)} files or of DICOM folders, "
            "or a DICOM folder itself"
        )
    if deep:
        _LOG.warning("%s: in %s", folder, told)
    return found


def too_deep(folder: Path) -> list[Path]:
    """What to give instead of `folder` for the images in it that `find_images` passes over.

    These are DICOM folders below a folder of DICOM slices, or two below any other, and image files below any, down to
    `_DEPTH`; but for results of `cascade run`, and for folders of labels. A folder that may not be read is none: it is
    no case, and must not keep the others from being done.
    """
    taken = frozenset() if _holds_dicom(folder) else frozenset(_subfolders(folder))
    found = [path for inside in _subfolders(folder) for path in _with_images(inside, taken, _DEPTH)]
    return list(dict.fromkeys(path if path != folder else inside for path, inside in found))


def _with_images(folder: Path, taken: Set[Path], depth: int) -> Iterator[tuple[Path, Path]]:
    """Folders to give, each with the one in it that holds images."""
    with suppress(OSError):
        if _holds_dicom(folder):
            if folder not in taken:
                yield folder.parent, folder
        elif _is_of_scans(folder):
            yield folder, folder
        for inside in _subfolders(folder) if depth > 1 else ():
            yield from _with_images(inside, taken, depth - 1)


def _is_of_scans(folder: Path) -> bool:
    names = {path.name for path in _images(folder)}
    return bool(names - _RESULT) and not folder.name.lower().startswith("label")


def _images(folder: Path) -> list[Path]:
    paths = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    return [path for path in paths if path.is_file() and path.name.lower().endswith(IMAGE_ENDINGS)]


def _subfolders(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]


def _holds_dicom(folder: Path) -> bool:
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    slices = [path for path in files if not path.name.lower().endswith(IMAGE_ENDINGS)]
    return any(path.suffix.lower() in DICOM_ENDINGS or is_dicom(path) for path in slices[:10])


def _is_lits_label(name: str, names: set[str]) -> bool:
    match = re.fullmatch(r"segmentation-(.+?)\.nii(\.gz)?", name)
    return match is not None and not names.isdisjoint({f"volume-{match[1]}.nii", f"volume-{match[1]}.nii.gz"})
