"""What a folder holds: its visible entries, and which kind of label it is. Reads names only, no pixel."""

from __future__ import annotations

from pathlib import Path

from preprocess.cases import DicomMasks, Label, LabelFile, PngMasks, natural_key
from preprocess.errors import ResourceError


def entries(folder: Path) -> list[Path]:
    """What a folder holds, in natural order of name, without hidden files (`.DS_Store`, macOS's `._*` copies).

    Does not descend, so a loop of links cannot hold it. A folder that is absent, or a file, holds nothing.
    Raises ResourceError when the folder may not be read.
    """
    try:
        found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ResourceError(f"{folder} cannot be listed ({error.strerror}); check its permissions") from error
    return sorted(found, key=lambda path: natural_key(path.name))


def is_there(path: Path) -> bool:
    """Whether a file or folder exists, links followed; False for a name that no file can have."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def label_at(path: Path) -> Label:
    """What kind of label a path is: a 3D-IRCADb mask folder, a CHAOS picture folder, or a label file or series."""
    if not path.is_dir():
        return LabelFile(path)
    return ircadb_masks(path) or (PngMasks(path) if _holds_png(path) else LabelFile(path))


def _holds_png(folder: Path) -> bool:
    return any(path.suffix.lower() == ".png" for path in entries(folder))


def ircadb_masks(folder: Path) -> DicomMasks | None:
    """The liver and tumour masks in a `MASKS_DICOM` folder of 3D-IRCADb-01; None when it holds no `liver`.

    Tumours are all folders named livertumor*, whatever follows (`livertumor`, `livertumors`, `livertumor01`, ...).
    Not cysts, and not the plain `tumor` of patient 7, which is no liver tumour: LiTS 34, the same scan, has none.
    """
    found = {path.name.lower(): unnested(path) for path in entries(folder) if path.is_dir()}
    if "liver" not in found:
        return None
    return DicomMasks(found["liver"], tuple(path for name, path in found.items() if name.startswith("livertumor")))


def unnested(folder: Path) -> Path:
    """`folder`, or the folder of the same name in it: unpacking a ZIP into a folder of its name nests the two."""
    inner = folder / folder.name
    return inner if inner.is_dir() else folder
