"""`cascade run` over many inputs: find the cases, do each, let one bad case not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from cascade.checkpoint import Model
from cascade.locks import locked
from cascade.outputs import REPORT, case_report, is_done, source_id, write_case
from cascade.pipeline import LiverStage, Stopwatch, TumorStage, liver_stage, segment, tumor_stage
from preprocess.errors import BatchError, CascadeError, InputError
from preprocess.files import write_json
from preprocess.inputs import find_images
from preprocess.io import case_name, read_scan


@dataclass(frozen=True, eq=False)
class Runner:
    """The two stages, ready, with the sha256 of their files; `tumor` None: stop after stage 1.

    `trained_on` and `chosen_on` are the content ids of the scans that either model has seen (see `Model`).
    """

    liver: LiverStage
    tumor: TumorStage | None
    models: dict[str, str]
    trained_on: frozenset[str]
    chosen_on: frozenset[str]

    @staticmethod
    def of(liver: Model, tumor: Model | None, device: torch.device) -> Runner:
        """A runner from model files."""
        models = {model.stage.name: model for model in (liver, tumor) if model is not None}
        return Runner(
            liver=liver_stage(liver, device),
            tumor=tumor_stage(tumor, device) if tumor else None,
            models={name: model.sha256 for name, model in models.items()},
            trained_on=frozenset(content for model in models.values() for content in model.trained_on),
            chosen_on=frozenset(content for model in models.values() for content in model.chosen_on),
        )


@dataclass(frozen=True)
class Outputs:
    """Where results go and how: replace what is there, keep what the stages saw."""

    folder: Path
    overwrite: bool = False
    keep_stages: bool = False


def run_case(path: Path, runner: Runner, outputs: Outputs) -> str:
    """One case from its file to its result; returns a line to show. Raises CascadeError."""
    case = case_name(path)
    folder = outputs.folder / case
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder")
    with locked(folder):
        source = source_id(path)
        if not outputs.overwrite and is_done(folder, source, runner.models):
            return f"{case}: done before, skipped"
        watch = Stopwatch()
        with watch.step("read"):
            scan = read_scan(path)
        result = segment(scan.volume, runner.liver, runner.tumor, watch)
        with watch.step("write"):
            write_case(folder, scan, result, keep_stages=outputs.keep_stages)
        report = case_report(case, scan, result, watch.seconds, source, runner.models)
        write_json(folder / REPORT, report)
    line = f"{case}: {report['status']}, liver {report['liver_ml']:.0f} mL"
    if runner.tumor is not None:
        line += f", tumour {report['tumor_ml']:.1f} mL in {len(report['lesions'])} lesions"
    line += f", {report['seconds']['total']:.1f} s"
    return "\n".join([line, *(f"  warning: {warning}" for warning in report["warnings"])])


def expand(inputs: Sequence[Path]) -> list[Path]:
    """The images that the arguments stand for, in order. Raises InputError where two have one case name."""
    paths = [image for path in inputs for image in (find_images(path) if path.is_dir() else [path])]
    seen: dict[str, Path] = {}
    for path in paths:
        other = seen.setdefault(case_name(path), path)
        if other != path:
            raise InputError(f"{other} and {path} have one case name, {case_name(path)}: run them into two -o folders")
    return paths


def run_all(paths: Sequence[Path], runner: Runner, outputs: Outputs, say: Callable[[str], None]) -> None:
    """Every case; a failed one is said and the others go on.

    Raises the error itself when there is one case, and BatchError with the list when some of several failed.
    """
    failed = []
    for path in paths:
        try:
            say(run_case(path, runner, outputs))
        except CascadeError as error:
            if len(paths) == 1:
                raise
            say(f"{case_name(path)}: FAILED: {error}")
            failed.append(case_name(path))
    if failed:
        raise BatchError(f"{len(failed)} of {len(paths)} cases failed: {', '.join(failed)}")
