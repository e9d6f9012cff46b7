"""Which case a file stands for, by its name."""

from __future__ import annotations

import os
import re
from pathlib import Path

from preprocess.io import case_name

#: What `cascade run` calls its mask in the folder of a case, without the ending.
MASK_STEM = "segmentation"


def case_key(name: str) -> str:
    """The case that a file or folder name stands for: `segmentation-3` is `volume-3`, `liver_3_0000` is `liver_3`."""
    lits = re.fullmatch(r"segmentation-(\d+)", name)
    return f"volume-{lits[1]}" if lits else re.sub(r"(?<=.)_0000\Z", "", name)


def case_of(path: Path) -> str:
    """The case that a label file is of: its name, or that of its folder for a `segmentation` file."""
    name = case_name(path)
    # abspath, not resolve: a linked mask belongs to the case that its link lies in.
    return case_key(Path(os.path.abspath(path)).parent.name if name == MASK_STEM else name)
