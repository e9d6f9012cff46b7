"""What a case is, and which cases train and which are held out.

Knows no layout of files (see `preprocess.layouts`) and draws no random number: a split depends only on the patients,
their weights and the number of folds, so that two machines and two orders of listing agree.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from preprocess.errors import UsageError

#: Who drew a label: a person, a network, or nobody (the class is missing or wrong in the file).
LABEL_SOURCES = ("expert", "automatic", "none")

#: LiTS volume-28 to volume-47 are patients 1 to 20 of 3D-IRCADb-01 (Bilic et al., 2023); the training set ends at 130.
IRCADB_IN_LITS = range(28, 48)
_LITS = range(131)
_LITS_NAME = re.compile(r"(?:lits[-_ ]?)?(?:volume|segmentation)[-_]0*(\d{1,3})|lits[-_ ]?0*(\d{1,3})", re.IGNORECASE)
_MSD_NAME = re.compile(r"liver_0*(\d{1,3})(?:_0000)?", re.IGNORECASE)
_IRCADB_NAME = re.compile(r"(?:3d[-_ ]?ircadb[-_ ]?0?1[-_. ]|ircadb[-_ ]?)0*(\d{1,2})", re.IGNORECASE)


@dataclass(frozen=True)
class LabelFile:
    """One file or DICOM series that holds the classes 0, 1 and 2."""

    path: Path


@dataclass(frozen=True)
class DicomMasks:
    """One DICOM folder a structure, as in 3D-IRCADb-01: nonzero pixels are the liver, or one of the tumours."""

    liver: Path
    tumors: tuple[Path, ...] = ()


@dataclass(frozen=True)
class PngMasks:
    """A folder with one PNG a slice of the image, as in CHAOS: nonzero pixels are the liver; there is no tumour."""

    folder: Path


Label = LabelFile | DicomMasks | PngMasks


@dataclass(frozen=True)
class Case:
    """One scan with what is known about it.

    `image` is a file or a DICOM folder; `label` is None for an unlabelled case. `patient` keeps all scans of a person
    on one side of every split; it defaults to who the scan is known to be of (see `public_patient`), by the names of
    the case, its image and its folder, else to the name. `liver_label` and `tumor_label` are one of `LABEL_SOURCES`.
    Raises ValueError for another one.
    """

    name: str
    image: Path
    label: Label | None
    patient: str = ""
    liver_label: str = "expert"
    tumor_label: str = "expert"

    def __post_init__(self) -> None:
        if not self.patient:
            file = re.sub(r"\.(nii|nrrd|mha)(\.gz)?\Z", "", self.image.name, flags=re.IGNORECASE)
            known = filter(None, map(public_patient, (self.name, file, self.image.parent.name)))
            object.__setattr__(self, "patient", next(known, self.name))
        for field in ("liver_label", "tumor_label"):
            if getattr(self, field) not in LABEL_SOURCES:
                raise ValueError(f"{field} is {getattr(self, field)!r}; use one of {', '.join(LABEL_SOURCES)}")

    @property
    def public_patients(self) -> tuple[str, ...]:
        """Who the scan is known to be of in public datasets, by its name and patient; empty: nobody."""
        return public_patients(self.name, self.patient)

    @property
    def scores_tumor(self) -> bool:
        """Whether this case may train and score tumours: it has a label whose tumours were drawn."""
        return self.label is not None and self.tumor_label != "none"


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


def lits_number(name: str) -> int | None:
    """The N of LiTS volume-N that a published name stands for; None for other names.

    Known: `volume-N`, `segmentation-N` and `lits-N` of LiTS, `liver_N` of MSD Task03 (the same scans and numbers) and
    `3Dircadb1.N` or `ircadb-N` of 3D-IRCADb-01 (patient N is volume N + 27).
    """
    if (match := _LITS_NAME.fullmatch(name)) or (match := _MSD_NAME.fullmatch(name)):
        number = int(next(filter(None, match.groups())))
        return number if number in _LITS else None
    if match := _IRCADB_NAME.fullmatch(name):
        number = int(match[1]) + IRCADB_IN_LITS.start - 1
        return number if number in IRCADB_IN_LITS else None
    return None


def public_patient(name: str) -> str:
    """One id for the patient that a published name stands for, in whichever dataset; empty for other names.

    `volume-44`, `liver_44` and `3Dircadb1.17` are `ircadb-17`. LiTS volumes 0 and 1 are one patient, `lits-0`.
    """
    number = lits_number(name)
    if number is None:
        return ""
    if number in IRCADB_IN_LITS:
        return f"ircadb-{number - IRCADB_IN_LITS.start + 1:02d}"
    return "lits-0" if number == 1 else f"lits-{number}"


def public_patients(*names: str) -> tuple[str, ...]:
    """The `public_patient` of each name that has one."""
    return tuple(dict.fromkeys(filter(None, map(public_patient, names))))


def natural_key(name: str) -> tuple[list[str | tuple[int, str]], str]:
    """A sort key that puts volume-2 before volume-10; the name itself breaks the tie of `a1` and `a01`."""
    parts = re.split("([0-9]+)", name)
    # Not int(): that refuses a name of thousands of digits.
    return [(len(digits := part.lstrip("0")), digits) if i % 2 else part for i, part in enumerate(parts)], name


def folds(cases: Sequence[Case], count: int, weights: Mapping[str, float] | None = None) -> list[list[str]]:
    """The names of the held-out cases of each of `count` folds; every case is in exactly one fold.

    `weights` is a number a case name (such as tumour mL; a missing name counts 0). Patients are ranked by the sum of
    their weights, heaviest first, then by a hash of their id, and dealt in snake order (0 1 2 2 1 0 ...): folds are
    alike in weight and differ by at most one patient. The order of `cases` does not matter.
    Raises UsageError for fewer than 2 folds, or more folds than patients.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        members[case.patient].append(case.name)
    if count < 2:
        raise UsageError(f"{count} folds leave nothing to train on; use at least 2")
    if count > len(members):
        raise UsageError(
            f"{count} folds of {len(members)} patients leave a fold empty; use fewer folds or add patients"
        )
    weights = weights or {}
    # fsum is exact, so the order of a patient's cases cannot change a rank.
    load = {patient: math.fsum(weights.get(name, 0.0) for name in names) for patient, names in members.items()}
    dealt: list[list[str]] = [[] for _ in range(count)]
    for i, patient in enumerate(sorted(members, key=lambda p: (-load[p], _digest(p)))):
        turn, place = divmod(i, count)
        dealt[count - 1 - place if turn % 2 else place] += members[patient]
    return [sorted(names, key=natural_key) for names in dealt]


def _digest(patient: str) -> str:
    # Not hash(): Python salts it anew in every process. surrogateescape: a folder name need not be UTF-8.
    return hashlib.sha256(patient.encode("utf-8", "surrogateescape")).hexdigest()


def split(
    cases: Sequence[Case], fold: int, count: int, weights: Mapping[str, float] | None = None
) -> tuple[list[Case], list[Case]]:
    """The training cases and the held-out cases of fold `fold` of `count` (see `folds`), in the order of `cases`.

    Raises UsageError for a fold outside 0..count-1, and as `folds` does.
    """
    if not 0 <= fold < count:
        raise UsageError(f"fold {fold} is outside 0..{count - 1}; choose one of the {count} folds")
    held_out = set(folds(cases, count, weights)[fold])
    return [c for c in cases if c.name not in held_out], [c for c in cases if c.name in held_out]
