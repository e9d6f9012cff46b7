"""What must hold of the cases of any dataset before one of them is read: partners, names, files, no scan twice."""

from __future__ import annotations

import filecmp
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from preprocess.cases import Case, DicomMasks, Label, LabelFile, natural_key
from preprocess.errors import InputError

Key = TypeVar("Key")

_LISTED = 10


def listed(items: Iterable[object]) -> str:
    """The first ten items in one line, and how many more there are."""
    names = [str(item) for item in items]
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def unique(pairs: Iterable[tuple[Key, Path]]) -> dict[Key, Path]:
    """A dictionary of `pairs`. Raises InputError when a key comes twice (volume-1.nii beside volume-1.nii.gz)."""
    found: dict[Key, Path] = {}
    for key, path in pairs:
        if key in found:
            raise InputError(f"{found[key]} and {path} are the same case; keep one")
        found[key] = path
    return found


def check_pairs(images: Mapping[Key, Path], labels: Mapping[Key, Path]) -> None:
    """Raises InputError that lists the images without label and the labels without image."""
    alone = {
        "images without label": [path for key, path in images.items() if key not in labels],
        "labels without image": [path for key, path in labels.items() if key not in images],
    }
    if any(alone.values()):
        found = "; ".join(f"{kind}: {listed(paths)}" for kind, paths in alone.items() if paths)
        raise InputError(f"{found}; add the partners or move them out of the dataset")


def check_cases(cases: Sequence[Case], source: Path) -> None:
    """Raises InputError for what makes `cases` unfit as a dataset: see the message of each check."""
    repeated = [name for name, count in Counter(case.name for case in cases).items() if count > 1]
    if repeated:
        raise InputError(f"{source} has more than one case named {listed(repeated)}; give each its own name")
    unsafe = [case.name for case in cases if case.name in (".", "..") or set(case.name) & set("/\\\0")]
    if unsafe:
        # The name of a case becomes the name of its result.
        raise InputError(f"{source} has case names that are no file names: {listed(map(repr, unsafe))}; rename them")
    missing = [path for case in cases for path in (case.image, *_label_paths(case.label)) if not path.exists()]
    if missing:
        raise InputError(f"{source} names files that are missing or broken links: {listed(missing)}; restore them")
    if all(case.label is None for case in cases):
        raise InputError(f"{source} has no case with a label; give at least one")
    _check_scans_differ(cases)


def _label_paths(label: Label | None) -> tuple[Path, ...]:
    if label is None:
        return ()
    if isinstance(label, LabelFile):
        return (label.path,)
    return (label.liver, *label.tumors) if isinstance(label, DicomMasks) else (label.folder,)


def _check_scans_differ(cases: Sequence[Case]) -> None:
    """Two names for one scan would put it on both sides of a split.

    Files of one size are compared byte by byte, which ends at the first difference: of two CTs, within the first slice.
    """
    alike: dict[tuple[int, int], list[Case]] = defaultdict(list)
    for case in sorted(cases, key=lambda case: natural_key(case.name)):
        stat = case.image.stat()
        # A folder is only the same scan when it is the same folder.
        alike[(0, stat.st_size) if case.image.is_file() else (stat.st_dev, stat.st_ino)].append(case)
    for group in alike.values():
        for a, b in itertools.combinations(group, 2):
            if not a.image.is_file() or filecmp.cmp(a.image, b.image, shallow=False):
                raise InputError(f"cases {a.name} and {b.name} are one scan ({a.image}, {b.image}); keep one")
