"""One case of `cascade run`, from its file to its result, and the models that it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from cascade.ahead import Ahead, Early, read_ahead, source_id
from cascade.batch import REPORT, Outputs
from cascade.checkpoint import Model, load_stage_models
from cascade.engine import Engine, learned_mirrored, mirroring, pick_engine
from cascade.locks import locked
from cascade.machine import heard
from cascade.outputs import case_report, is_done, write_case
from cascade.pipeline import LiverStage, Stopwatch, TumorStage, liver_stage, segment, tumor_stage
from preprocess.errors import UsageError, missing
from preprocess.files import write_json
from preprocess.io import read_scan
from preprocess.text import printable


@dataclass(frozen=True, eq=False)
class Runner:
    """The two stages, ready; `tumor` None: stop after stage 1.

    `models`: the sha256 of each stage's file, of several joined by +, and under "mirrored" the stages that see mirror
    images too, if any do.

    `trained_on` and `chosen_on` are what either model has seen (see `Model`).
    """

    liver: LiverStage
    tumor: TumorStage | None
    models: dict[str, str]
    trained_on: frozenset[str]
    chosen_on: frozenset[str]

    @staticmethod
    def of(liver: Sequence[Model], tumor: Sequence[Model] | None, engine: Engine) -> Runner:
        """A runner from the models of each stage, which predict together."""
        stages = {models[0].stage.name: models for models in (liver, tumor) if models}
        every = [model for models in stages.values() for model in models]
        return Runner(
            liver=liver_stage(liver, engine),
            tumor=tumor_stage(tumor, engine) if tumor else None,
            models={name: "+".join(model.sha256 for model in models) for name, models in stages.items()},
            trained_on=frozenset(known for model in every for known in model.trained_on),
            chosen_on=frozenset(content for model in every for content in model.chosen_on),
        )


def load_runner(
    liver: Path | None, tumor: Path | None, device: str, *, liver_only: bool, mirror: bool = False
) -> Runner:
    """A runner from the paths of model files or folders of folds (see `load_stage_models`).

    Raises ModelError, ResourceError without the device, and UsageError for `mirror` (see `mirroring`) where no model
    has learned from mirrored images.
    """
    first = load_stage_models(liver, "liver")
    second = None if liver_only else load_stage_models(tumor, "tumor")
    if not mirror:
        return Runner.of(first, second, pick_engine(device))
    able = sorted({model.stage.name for model in (*first, *(second or ())) if learned_mirrored(model)})
    if not able:
        raise UsageError(
            "--mirror: no model has learned from mirrored images (augmentation.mirror_share); leave it out"
        )
    runner = Runner.of(first, second, mirroring(pick_engine(device)))
    return replace(runner, models={**runner.models, "mirrored": " ".join(able)})


def begin_case(path: Path, runner: Runner, outputs: Outputs, early: Early | None = None) -> Callable[[], str]:
    """`run_case` in two steps: reads the scan, unless its result stands already, and returns the rest.

    `early` may have read it already. Nothing is raised: whatever goes wrong, the rest reads again by itself, at its
    turn, when there may be more memory.
    """
    ahead = None
    with suppress(Exception):
        taken = early.take(path) if early else None
        done = not outputs.overwrite and _is_done(path, source_id(path), runner, outputs)
        ahead = None if done else taken or read_ahead(path)
    return partial(run_case, path, runner, outputs, ahead)


def run_case(path: Path, runner: Runner, outputs: Outputs, ahead: Ahead | None = None) -> str:
    """One case from its file to its result; returns a line to show. Raises CascadeError.

    `ahead` counts only if the file is still the one that it was read from.
    """
    case, folder = outputs.case(path), outputs.of(path)
    if not path.exists():
        raise missing(path)
    with locked(folder):
        source = source_id(path)
        if not outputs.overwrite and _is_done(path, source, runner, outputs):
            return f"{printable(case)}: done before, skipped"
        watch = Stopwatch()
        with heard() as warnings:
            if ahead is not None and ahead.source == source:
                scan, watch.seconds["read"] = ahead.scan, ahead.seconds
            else:
                with watch.step("read"):
                    scan = read_scan(path)
            result = segment(scan.volume, runner.liver, runner.tumor, watch)
        with watch.step("write"):
            write_case(folder, scan, result, keep_stages=outputs.keep_stages)
        report = case_report(case, scan, result, watch.seconds, source, runner.models)
        report["warnings"] += warnings
        write_json(folder / REPORT, report)
    line = f"{printable(case)}: {report['status']}, liver {report['liver_ml']:.0f} mL"
    if runner.tumor is not None:
        line += f", tumour {report['tumor_ml']:.1f} mL in {len(report['lesions'])} lesions"
    line += f", {report['seconds']['total']:.1f} s"
    return "\n".join([line, *(f"  warning: {warning}" for warning in report["warnings"])])


def _is_done(path: Path, source: str, runner: Runner, outputs: Outputs) -> bool:
    return is_done(outputs.of(path), source, runner.models, keep_stages=outputs.keep_stages)
