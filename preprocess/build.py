"""Writes a prepared dataset (`preprocess.prepared`), once, for both trainings: `cascade prepare`.

A case is keyed by the bytes of its files, its preparation and `FORMAT`; one whose key still fits, and whose arrays have
their full length, is not built again. `case.json` and `dataset.json` are removed first and written last, so what a
killed run left half built is built anew and never taken for whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.archive import reading_error
from preprocess.case_checks import repeated_scans
from preprocess.cases import Case, label_files
from preprocess.errors import CascadeError, InputError, ResourceError
from preprocess.examine import examine
from preprocess.files import remove_leftovers, write_atomic, write_json
from preprocess.geometry import Box, Grid
from preprocess.io import read_scan
from preprocess.layouts import read_label
from preprocess.measures import widened
from preprocess.preparation import Preparation, SpacingPlan
from preprocess.prepared import FORMAT, PreparedDataset, Survey, load_dataset, read_survey
from preprocess.resample import resample_labels
from preprocess.workers import outcomes

TrainingBox = Callable[[NDArray[np.uint8], Grid], Box]


@dataclass(frozen=True)
class StagePlan:
    """What preparing needs to know of a stage: its spacing policy and which part of a scan it trains on.

    Unless `fixed_window`, the HU window is widened where liver or tumours reach beyond it.
    """

    spacing: SpacingPlan
    training_box: TrainingBox
    fixed_window: bool = False

    def resolved(self, surveys: Sequence[Survey]) -> Preparation:
        """The preparation for a dataset of these cases."""
        chosen = self.spacing.resolved([survey.spacing_mm for survey in surveys])
        measures = [survey.measures for survey in surveys if survey.measures]
        return chosen if self.fixed_window else replace(chosen, window_hu=widened(chosen.window_hu, measures))


@dataclass(frozen=True)
class Progress:
    """One finished step of preparing, for a progress bar: `done` of `total`, and the case it was."""

    done: int
    total: int
    case: str


def prepare_dataset(
    cases: Sequence[Case], folder: Path, plans: Mapping[str, StagePlan], jobs: int, report: Callable[[Progress], None]
) -> PreparedDataset:
    """Measure and build every labelled case into `folder`, in `jobs` processes.

    Raises InputError that lists every case that cannot be used, or names two that are one scan, before any is built.
    """
    usable = [case for case in cases if case.label is not None and case.liver_label != "none"]
    if not usable:
        raise InputError("no case has a liver label: nothing to train on")
    _make(folder / "cases")
    surveys = _gather(_survey, [(c, folder / "cases" / c.name) for c in usable], jobs, report, 0)
    for finding in repeated_scans({name: survey.content for name, (survey, _) in surveys.items()}):
        raise InputError(finding.text)
    preparations = {name: plan.resolved([survey for survey, _ in surveys.values()]) for name, plan in plans.items()}
    stages = {name: (preparations[name], plan.training_box) for name, plan in plans.items()}
    (folder / "dataset.json").unlink(missing_ok=True)
    tasks = [(c, folder / "cases" / c.name, surveys[c.name], stages) for c in usable]
    _gather(_build, tasks, jobs, report, len(usable))
    write_json(
        folder / "dataset.json",
        {
            "format": FORMAT,
            "cases": [{"name": c.name, "patient": c.patient, "scores_tumor": c.scores_tumor} for c in usable],
            "preparations": {name: asdict(p) for name, p in preparations.items()},
        },
    )
    return load_dataset(folder)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"{folder}: cannot be made ({error.strerror}); choose another -o") from error


def _gather(
    work: Callable[..., Any],
    tasks: Sequence[tuple[Any, ...]],
    jobs: int,
    report: Callable[[Progress], None],
    before: int,
) -> dict[str, Any]:
    """What `work` makes of each task, by the name of its case. Raises an error that lists every case that failed."""
    found, faults = {}, []
    for done, (number, result) in enumerate(outcomes(work, tasks, jobs), 1):
        name = tasks[number][0].name
        if isinstance(result, CascadeError):
            # The name is in some of the messages.
            faults.append((f"{name}: " + str(result).removeprefix(f"case {name}: "), result))
        found[name] = result
        report(Progress(before + done, 2 * len(tasks), name))
    if faults:
        texts = sorted(text for text, _ in faults)
        kind = ResourceError if all(isinstance(error, ResourceError) for _, error in faults) else InputError
        raise kind(f"{len(faults)} of {len(tasks)} cases cannot be used: " + " | ".join(texts))
    return found


def _files_key(case: Case) -> str:
    """Identifies the bytes of a case's files."""
    digest = hashlib.sha256()
    for path in (case.image, *label_files(case)):
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                digest.update(_file_digest(file))
    return digest.hexdigest()


def _file_digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise reading_error(path, error) from error


def _survey(case: Case, folder: Path) -> tuple[Survey, str]:
    files = _files_key(case)
    try:
        old, key = read_survey(folder)
        if key["files"] == files and key["format"] == FORMAT and old.measures is not None:
            return old, files
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing usable from an earlier run
    seen = examine(case)
    return Survey(
        content=seen.content,
        spacing_mm=seen.spacing_mm,
        liver_ml=seen.liver_ml,
        tumor_ml=seen.tumor_ml,
        lesions=seen.lesions,
        context=seen.context,
        warnings=tuple(finding.text for finding in seen.findings),
        measures=seen.measures,
    ), files


def _build(
    case: Case, folder: Path, survey: tuple[Survey, str], stages: Mapping[str, tuple[Preparation, TrainingBox]]
) -> None:
    key = {
        "files": survey[1],
        "format": FORMAT,
        "stages": {name: asdict(preparation) for name, (preparation, _) in stages.items()},
    }
    key = json.loads(json.dumps(key))
    if not _is_built(folder, key):
        _build_arrays(case, folder, stages)
    elif read_survey(folder)[0] == survey[0]:
        return
    sizes = {path.name: path.stat().st_size for path in sorted(folder.glob("*.npy"))}
    write_json(folder / "case.json", {"key": key, "survey": asdict(survey[0]), "bytes": sizes})


def _build_arrays(case: Case, folder: Path, stages: Mapping[str, tuple[Preparation, TrainingBox]]) -> None:
    _make(folder)
    remove_leftovers(folder)
    (folder / "case.json").unlink(missing_ok=True)
    volume = read_scan(case.image).volume
    labels = read_label(case, volume.grid)
    for name, (preparation, training_box) in stages.items():
        box = training_box(labels.array, labels.grid)
        part = volume.cropped(box)
        _save(folder / f"{name}_image.npy", preparation.prepared(part).astype(np.float16))
        small = resample_labels(labels.cropped(box), preparation.working_grid(part.grid))
        _save(folder / f"{name}_labels.npy", small.array)


def _is_built(folder: Path, key: Mapping[str, Any]) -> bool:
    try:
        table = json.loads((folder / "case.json").read_text("utf-8"))
        whole = all((folder / name).stat().st_size == size for name, size in table["bytes"].items())
        return bool(table["key"] == key and whole)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False  # not built, or not to its end


def _save(path: Path, array: NDArray[Any]) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.save(file, array, allow_pickle=False)

    write_atomic(path, write)
