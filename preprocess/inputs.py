"""Which images a folder stands for, when it is given to `cascade run`."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
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
#: What a folder with the result of a case holds.
_RESULT = ("segmentation.nii.gz", "report.json")


def find_images(folder: Path) -> list[Path]:
    """The cases in `folder`: its image files and its subfolders with DICOM files; or itself, when it holds DICOM files.

    Hidden files are ignored, and so are the labels of a LiTS folder (`segmentation-N` beside `volume-N`). What lies
    deeper is no case, and there is a warning for it (see `too_deep`). Raises InputError when there is no case, and for
    a folder that holds images and DICOM slices side by side.
    """
    images, deep = _images(folder), too_deep(folder)
    told = f"lie too deep to be cases: {listed([path.relative_to(folder) for path in deep])}; give what holds them"
    if _holds_dicom(folder):
        if images:
            raise InputError(f"{folder}: holds DICOM slices and also {images[0].name}; give one or the other")
        found = [folder]
    else:
        names = {path.name.lower() for path in images}
        images = [path for path in images if not _is_lits_label(path.name.lower(), names)]
        found = sorted([*images, *(path for path in _subfolders(folder) if _holds_dicom(path))])
    if not found and deep:
        raise InputError(f"{folder}: no case in it; folders with images {told}")
    if not found:
        raise InputError(
            f"{folder}: no case in it; give a folder of {', '.join(IMAGE_ENDINGS)} files or of DICOM folders, "
            "or a DICOM folder itself"
        )
    if deep:
        _LOG.warning("%s: folders with images in it %s", folder, told)
    return found


def too_deep(folder: Path) -> list[Path]:
    """Folders with images that `find_images` passes over: of DICOM slices below a folder of such, or two below any
    other; of image files below any. Down to `_DEPTH`; results of `cascade run` are none.

    A folder that may not be read is none: it is no case, and must not keep the others from being done.
    """
    taken = [] if _holds_dicom(folder) else _subfolders(folder)
    return [path for inside in _subfolders(folder) for path in _with_images(inside, taken, _DEPTH)]


def _with_images(folder: Path, taken: Sequence[Path], depth: int) -> Iterator[Path]:
    with suppress(OSError):
        if _holds_dicom(folder):
            if folder not in taken:
                yield folder
        elif _images(folder) and not all((folder / name).is_file() for name in _RESULT):
            yield folder
        for inside in _subfolders(folder) if depth > 1 else ():
            yield from _with_images(inside, taken, depth - 1)


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
