"""Finds which prediction belongs to which truth, and scores all pairs.

A case that is left out silently flatters the mean, so whatever has no partner is an error that names it, unless the
user asks for what is common.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from evaluate.case_table import CaseFacts
from evaluate.cohort import CohortScore
from evaluate.conventions import Convention
from evaluate.names import MASK_STEM, case_of
from evaluate.scores import CaseScore, score_labels
from preprocess.cases import natural_key
from preprocess.errors import InputError, ResourceError
from preprocess.io import case_name, read_labels

Pair = tuple[str, Path, Path]

#: Endings of files that can hold labels; other files in a folder are not looked at.
LABEL_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")

_MAX_NAMED = 10


def pair_cases(predictions: Path, truth: Path, leave_out: Callable[[str], None] | None = None) -> list[Pair]:
    """Pairs of (case, prediction, truth): of two files, or of two folders of cases, by case name in natural order.

    A folder of cases holds label files (`volume-3.nii.gz`), folders with a `segmentation` file each (the output of
    `cascade run`, the layout of CHAOS), or both. `segmentation-3` is the label of `volume-3` (LiTS), and
    `liver_3_0000` the image of `liver_3` (MSD, nnU-Net): either name pairs. A folder that itself holds a
    `segmentation` file counts as that file. With `leave_out`, cases that only one side has are told to it and left out.
    Raises InputError for a missing path, a file against a folder of cases, one path given twice, two files of one
    case, a case without a partner on either side, and folders without any case; ResourceError for a folder that may
    not be read.
    """
    try:
        return _pair(_single(predictions), _single(truth), leave_out)
    except OSError as error:
        raise ResourceError(f"{error.filename} cannot be read ({error.strerror}); give it read permission") from error


def _pair(left: Path, right: Path, leave_out: Callable[[str], None] | None) -> list[Pair]:
    if left.samefile(right):
        raise InputError(f"{left} is both prediction and truth; a mask always agrees with itself, give another truth")
    if left.is_dir() != right.is_dir():
        raise InputError(
            f"{left} and {right}: one is a file, the other a folder of cases; give two files or two folders"
        )
    if not left.is_dir():
        return [(case_of(left), left, right)]
    found, wanted = _cases_in(left), _cases_in(right)
    for cases, folder in ((found, left), (wanted, right)):
        if not cases:
            raise InputError(
                f"{folder} holds no label file and no folder with a {MASK_STEM}.nii.gz; name a folder of cases"
            )
    common = sorted(found.keys() & wanted.keys(), key=natural_key)
    if odd := _unpaired(found, wanted):
        if leave_out is None or not common:
            raise InputError(
                f"{left} and {right} do not pair: {odd}; add the files, take the others away, or give --common"
            )
        leave_out(odd)
    return [(case, found[case], wanted[case]) for case in common]


def evaluate_pairs(
    pairs: Sequence[Pair],
    facts: Mapping[str, CaseFacts] | None = None,
    *,
    convention: Convention = "lits",
    resample_truth: bool = False,
) -> CohortScore:
    """Read and score all pairs of (case, prediction, truth), one at a time.

    `facts` tells the patient of a case and whether its true tumours are usable; a case without facts is its own patient
    and scored whole. Raises InputError for no pair, a file that is no label map, or grids that disagree (see
    `evaluate.scores.score_labels`, also for `resample_truth`).
    """
    if not pairs:
        raise InputError("there is no pair of prediction and truth to score")

    def scored(case: str, prediction: Path, truth: Path) -> CaseScore:
        known = (facts or {}).get(case, CaseFacts(patient=case))
        result = score_labels(
            read_labels(prediction),
            read_labels(truth),
            case=case,
            convention=convention,
            scores_tumor=known.scores_tumor,
            resample_truth=resample_truth,
        )
        return replace(result, patient=known.patient)

    return CohortScore(tuple(scored(*pair) for pair in pairs))


def _single(path: Path) -> Path:
    """`path`, or the mask that the folder `path` of one case holds."""
    if not path.exists():
        raise InputError(f"{path} does not exist; give a label file or a folder of cases")
    return (_mask_in(path) or path) if path.is_dir() else path


def _mask_in(folder: Path) -> Path | None:
    masks = [folder / f"{MASK_STEM}{ending}" for ending in LABEL_ENDINGS if (folder / f"{MASK_STEM}{ending}").is_file()]
    if len(masks) > 1:
        raise InputError(f"{folder} holds {' and '.join(mask.name for mask in masks)}; keep one of them")
    return masks[0] if masks else None


def _cases_in(folder: Path) -> dict[str, Path]:
    """The label file of each case in a folder of cases."""
    labels: dict[str, list[Path]] = defaultdict(list)
    entries = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    files = [path for path in entries if path.is_file() and path.name.lower().endswith(LABEL_ENDINGS)]
    files += [mask for path in entries if path.is_dir() and (mask := _mask_in(path))]
    # Beside LiTS labels, `volume-N` are the images.
    lits = any(re.fullmatch(r"segmentation-\d+", case_name(path)) for path in files)
    for path in files:
        if not (lits and re.fullmatch(r"volume-\d+", case_name(path))):
            labels[case_of(path)].append(path)
    double = [paths for paths in labels.values() if len(paths) > 1]
    if double:
        names = " and ".join(str(path.relative_to(folder)) for path in double[0])
        raise InputError(f"{folder} holds two masks of one case, {names}; keep one of them")
    return {case: paths[0] for case, paths in labels.items()}


def _unpaired(found: Mapping[str, Path], wanted: Mapping[str, Path]) -> str:
    """The cases of either side that the other has not; empty when there is none."""
    problems = []
    for cases, others, text in ((wanted, found, "no prediction of"), (found, wanted, "no truth for")):
        lonely = sorted(cases.keys() - others.keys(), key=natural_key)
        if lonely:
            more = f" and {len(lonely) - _MAX_NAMED} more" if len(lonely) > _MAX_NAMED else ""
            problems.append(f"{text} {', '.join(lonely[:_MAX_NAMED])}{more}")
    return "; ".join(problems)
