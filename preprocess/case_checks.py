"""What must hold of the cases of any dataset before one of them is read: partners, names, files, no scan twice."""

from __future__ import annotations

import filecmp
import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from preprocess.cases import Case, label_files, lits_number, natural_key, public_patient
from preprocess.errors import InputError, UsageError
from preprocess.findings import Finding, error, listed
from preprocess.folders import is_there

#: Most that file systems take as one name.
_NAME_BYTES = 255

Key = TypeVar("Key")


@dataclass
class Listing:
    """The cases of a dataset as its names say, and what does not fit: files without partner, and other faults."""

    cases: list[Case] = field(default_factory=list)
    lone_images: list[Path] = field(default_factory=list)
    lone_labels: list[Path] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all was found."""
        return not (self.cases or self.lone_images or self.lone_labels or self.faults)

    def unique(self, pairs: Iterable[tuple[Key, Path]]) -> dict[Key, Path]:
        """A dictionary of `pairs`; a key that comes twice (volume-1.nii beside volume-1.nii.gz) is a fault."""
        found: dict[Key, Path] = {}
        for key, path in pairs:
            if key in found:
                self.faults.append(f"{found[key]} and {path} are the same case; keep one")
            found.setdefault(key, path)
        return found

    def paired(self, images: Mapping[Key, Path], labels: Mapping[Key, Path]) -> list[Key]:
        """The keys of `images` that have a label; files without partner are noted."""
        self.lone_images += [path for key, path in images.items() if key not in labels]
        self.lone_labels += [path for key, path in labels.items() if key not in images]
        return [key for key in images if key in labels]

    def findings(self) -> Iterator[Finding]:
        """What does not fit, each as one error."""
        for path in self.lone_images:
            yield error(f"image without label: {path}; add the label or move the image out of the dataset")
        for path in self.lone_labels:
            yield error(f"label without image: {path}; add the image or move the label out of the dataset")
        yield from map(error, self.faults)

    def check(self) -> None:
        """Raises InputError for what does not fit: lone files in one list, or the first other fault."""
        if self.faults:
            raise InputError(self.faults[0])
        alone = {"images without label": self.lone_images, "labels without image": self.lone_labels}
        if any(alone.values()):
            found = "; ".join(f"{kind}: {listed(paths)}" for kind, paths in alone.items() if paths)
            raise InputError(f"{found}; add the partners or move them out of the dataset")


def check_cases(cases: Sequence[Case], source: Path) -> None:
    """Raises InputError for what makes `cases` unfit as a dataset, and UsageError where there is none."""
    if not cases:
        raise UsageError(f"{source} holds no case; add cases or give another dataset")
    _raise_first(name_findings(cases, source))
    missing = [path for case in cases for path in (case.image, *label_files(case)) if not is_there(path)]
    if missing:
        raise InputError(f"{source} names files that are missing or broken links: {listed(missing)}; restore them")
    if all(case.label is None for case in cases):
        raise InputError(f"{source} has no case with a label; give at least one")
    _raise_first(scan_findings(cases))


def _raise_first(findings: Iterable[Finding]) -> None:
    for finding in findings:
        raise InputError(finding.text)


def name_findings(cases: Sequence[Case], source: Path) -> Iterator[Finding]:
    """What the names alone show: given twice, unfit as file names, files or patients of published cases mixed up."""
    repeated = [name for name, count in Counter(case.name for case in cases).items() if count > 1]
    if repeated:
        yield error(f"{source} has more than one case named {listed(repeated)}; give each its own name", *repeated)
    # The name of a case becomes the name of its result.
    unsafe = [case.name for case in cases if not _names_a_file(case.name)]
    if unsafe:
        shown = listed([repr(name) for name in unsafe])
        yield error(f"{source} has case names that are no file names: {shown}; rename them", *unsafe)
    yield from _mispaired(cases)
    yield from _split_patients(cases)


def _names_a_file(name: str) -> bool:
    return name not in (".", "..") and not set(name) & set("/\\\0") and len(os.fsencode(name)) <= _NAME_BYTES


def _mispaired(cases: Sequence[Case]) -> Iterator[Finding]:
    """Image and label that are named after two cases of LiTS (volume-27 with segmentation-28)."""
    for case in cases:
        pair = (case.image, *label_files(case)[:1])
        if len({number for path in pair if (number := lits_number(_stem(path))) is not None}) > 1:
            image, label = (path.name for path in pair)
            yield error(f"case {case.name}: {image} and {label} are two cases of LiTS; pair files of one", case.name)


def _split_patients(cases: Sequence[Case]) -> Iterator[Finding]:
    """One published patient under several names of patients, which would let a split tear it apart."""
    known: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        known[public_patient(case.name)].append(case)
    for patient, group in known.items():
        if patient and len({case.patient for case in group}) > 1:
            names = [case.name for case in group]
            yield error(
                f"cases {listed(names)} are one patient ({patient} of LiTS, MSD Task03 and 3D-IRCADb-01) but have "
                "several in the column patient; give them one, or rename those that are of another dataset",
                *names,
            )


def _stem(path: Path) -> str:
    return path.name.split(".nii")[0]


def scan_findings(cases: Sequence[Case]) -> Iterator[Finding]:
    """Two names for one scan, which would put it on both sides of a split. Images that are missing are left out.

    Files of one size are compared byte by byte, which ends at the first difference: of two CTs, within the first slice.
    """
    alike: dict[tuple[int, int], list[Case]] = defaultdict(list)
    for case in sorted(cases, key=lambda case: natural_key(case.name)):
        if is_there(case.image):
            stat = case.image.stat()
            # A folder is only the same scan when it is the same folder.
            alike[(0, stat.st_size) if case.image.is_file() else (stat.st_dev, stat.st_ino)].append(case)
    for group in alike.values():
        for a, b in itertools.combinations(group, 2):
            if not a.image.is_file() or _same_bytes(a.image, b.image):
                names = (a.name, b.name)
                yield error(f"cases {a.name} and {b.name} are one scan ({a.image}, {b.image}); keep one", *names)


def _same_bytes(a: Path, b: Path) -> bool:
    """Whether two files hold the same. One that may not be read is left to its reader, which says so."""
    try:
        return filecmp.cmp(a, b, shallow=False)
    except OSError:
        return False


def repeated_scans(contents: Mapping[str, str]) -> Iterator[Finding]:
    """Cases whose images hold the same voxels, in whatever files; `contents` is the content id of each case by name."""
    names_of: dict[str, list[str]] = defaultdict(list)
    for name in sorted(contents, key=natural_key):
        names_of[contents[name]].append(name)
    for names in names_of.values():
        if len(names) > 1:
            yield error(f"cases {listed(names)} hold the same voxels: one scan under several names; keep one", *names)
