"""What `cascade train-liver` and `cascade train-tumor` do."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from cascade.commands import say
from preprocess.errors import UsageError
from preprocess.files import write_json, write_text

#: Seconds between two lines of progress where no bar can be shown.
TELL_EVERY_S = 60.0


def train(stage_name: str, data: Path, run: Path, **options: Any) -> None:
    """`cascade train-liver` and `cascade train-tumor`: one training, or one after the other those of `folds` folds.

    Of processes that train together (see `cascade.ranks`) the first alone writes and says something.
    """
    from cascade.ranks import joined

    count = options.pop("folds")
    if count and options["fold"]:
        raise UsageError("--fold and --folds exclude each other: one fold, or all of them")
    with joined(options.pop("device")) as ranks:
        same = {f"--{name}": options[name] for name in ("resume", "steps", "minutes")}
        ranks.require_alike({"--folds": count, **same})
        if count:
            _train_folds(stage_name, data, run, count, ranks, **options)
        else:
            _train_one(stage_name, data, run, ranks, **options)


def _train_folds(stage_name: str, data: Path, run: Path, count: int, ranks: Any, **options: Any) -> None:
    from cascade.checkpoint import FOLDS
    from cascade.resume import RESUME
    from preprocess.prepared import load_dataset

    count = min(count, len({case.patient for case in load_dataset(data).cases}))
    # Folds that were not begun are given the length of those that were.
    like = (
        run / "fold-0" if ranks.from_first(lambda: options["resume"] and (run / "fold-0" / RESUME).exists()) else None
    )
    if ranks.first and not (run / FOLDS).exists():
        run.mkdir(parents=True, exist_ok=True)
        write_json(run / FOLDS, {"folds": count})
    for k in range(count):
        part = run / f"fold-{k}"
        again = ranks.from_first(lambda state=part / RESUME: options["resume"] and state.exists())
        begin = None if again else options["init"]
        one = {**options, "fold": f"{k}/{count}", "resume": again, "init": begin}
        _train_one(stage_name, data, part, ranks, like=like, **one)
    if ranks.first:
        _report_folds(stage_name, run, count)


def _report_folds(stage_name: str, run: Path, count: int) -> None:
    from cascade.checkpoint import REPORT

    rows, warnings = [], []
    for k in range(count):
        table = json.loads((run / f"fold-{k}" / REPORT).read_text("utf-8"))
        rows += table["held_out"]
        warnings += [f"fold {k}: {warning}" for warning in table["warnings"]]
    scores = _write_report(run, stage_name, rows, warnings)
    say((run / "report.txt").read_text("utf-8"))
    names = " ".join(f"--{stage_name} {run / f'fold-{k}' / 'best.safetensors'}" for k in range(count))
    say(f"each case above was scored by the model that has not seen it; for cascade report: {names}")
    say("best.safetensors was picked on the same cases, which flatters slightly; last.safetensors was not")
    say(f"best models: {run}, for cascade run --{stage_name} and cascade tune; out of fold: {scores}")


def _train_one(stage_name: str, data: Path, run: Path, ranks: Any, like: Path | None = None, **options: Any) -> None:
    """One training; where it is given no length, it has that of `like`, and a resumed one its own."""
    from cascade.checkpoint import load_model
    from cascade.locks import locked
    from cascade.plan_file import settings_for
    from cascade.resume import RESUME
    from cascade.stages import STAGES
    from cascade.teachers import Teachers
    from cascade.training import train as work
    from cascade.training_state import BEST, LAST, Job
    from preprocess.prepared import load_dataset

    if options["minutes"] and options["steps"]:
        raise UsageError("--minutes and --steps exclude each other: give one")
    if options["init"] and options["resume"]:
        raise UsageError("--init and --resume exclude each other: a run that is resumed remembers what it began from")
    stage, dataset = STAGES[stage_name], load_dataset(data)
    settings = settings_for(data, stage_name, dataset, options["configs"], options["assignments"])
    planned = settings.training.steps
    steps, minutes = _limit(run if options["resume"] else like, planned, ranks, **options)
    settings = replace(settings, training=replace(settings.training, steps=steps))
    training, held_out = split_by_fold(dataset.cases, options["fold"] or "0/5")
    prepared = dataset.preparations[stage_name]
    teachers = [load_model(path, stage) for path in options["teachers"]]
    with locked(run) if ranks.first else nullcontext():
        if ranks.first and not options["resume"] and any((run / name).exists() for name in (RESUME, BEST, LAST)):
            raise UsageError(f"{run}: holds a run already; use --resume to go on with it or another -o")
        job = Job(
            stage=stage,
            settings=settings,
            preparation=prepared,
            train=training,
            held_out=held_out,
            folder=run,
            ranks=ranks,
            minutes=minutes,
            planned_steps=planned,
            resume=options["resume"],
            init=load_model(options["init"], stage) if options["init"] else None,
            teachers=Teachers.of(teachers, prepared, settings.training.teacher_share, ranks.device),
        )
        if not ranks.first:
            work(job, lambda *_: None)
            return
        on = f"{ranks.device}" + (f" and {ranks.world - 1} more" if ranks.world > 1 else "")
        click.echo(f"{stage_name}: {len(training)} cases to train on, {len(held_out)} held out, on {on}")
        if stage_name == "tumor":
            _tell_tumors(training, held_out, painted=settings.lesions.share > 0)
        with click.progressbar(length=1000, label=f"train-{stage_name}", item_show_func=str, show_eta=False) as bar:
            outcome = work(job, _shower(bar) if sys.stdout.isatty() else _teller())
        _write_stage_report(run, stage_name, outcome, held_out)
    say((run / "report.txt").read_text("utf-8"))
    scores = f"held out: {outcome.best.text()}" if outcome.best else "nothing was held out to score it"
    click.echo(f"{outcome.steps} steps; best model: {run / 'best.safetensors'}; {scores}")


def _limit(like: Path | None, planned: int, ranks: Any, **options: Any) -> tuple[int, float | None]:
    """Steps and minutes: as given, else those of the run `like` unless the settings name other steps than it had."""
    from cascade.resume import limit_of

    if options["steps"] or options["minutes"] or like is None:
        return options["steps"] or planned, options["minutes"]
    limit = ranks.from_first(lambda: limit_of(like))
    return (limit.steps, limit.minutes) if limit.planned_steps == planned else (planned, None)


def _tell_tumors(training: Sequence[Any], held_out: Sequence[Any], *, painted: bool) -> None:
    learned, left = (sum(c.survey.lesions for c in cases if c.scores_tumor) for cases in (training, held_out))
    click.echo(f"  drawn tumours: {learned} to train on, {left} held out")
    if not learned and left:
        only = "only synthetic tumours are" if painted else "no tumour is"
        click.echo(f"  warning: {only} learned from; give another --fold, or --fold all")


def _shower(bar: Any) -> Any:
    left = _Left()

    def show(step: int, share: float, loss: float, best: float) -> None:
        bar.update(max(0, int(1000 * share) - bar.pos), _progress(step, loss, best) + left.at(share))

    return show


def _teller() -> Any:
    """In place of the bar where there is no terminal, as in a log file: a line every `TELL_EVERY_S` seconds."""
    left, told = _Left(), time.monotonic()

    def tell(step: int, share: float, loss: float, best: float) -> None:
        nonlocal told
        now, time_left = time.monotonic(), left.at(share)
        if now - told >= TELL_EVERY_S and time_left:
            told = now
            click.echo(f"{_progress(step, loss, best)}; {100 * share:.0f} %{time_left}")

    return tell


class _Left:
    """How long a training will go on, by what share of it this process has done since it first asked: what was done
    before a resumed one began took it no time."""

    def __init__(self) -> None:
        self._begun: tuple[float, float] | None = None

    def at(self, share: float) -> str:
        """`, 0:12:34 left`; empty as long as that is not known."""
        now = time.monotonic()
        since, first = self._begun = self._begun or (now, share)
        if share <= first:
            return ""
        return f", {timedelta(seconds=round((now - since) * (1 - share) / (share - first)))} left"


def _progress(step: int, loss: float, best: float) -> str:
    return f"step {step}, loss {loss:.3f}" + (f", Dice {best:.3f}" if best >= 0 else "")


def split_by_fold(cases: Any, fold: str) -> tuple[list[Any], list[Any]]:
    """Training and held-out cases for `K/N` or `all`, by patient and balanced by tumour volume.

    Both stages get the same parts, so a patient that one has not seen the other has not either. With fewer patients
    than N there are as many parts as patients. Raises UsageError for anything else.
    """
    from preprocess.cases import split

    if fold == "all":
        return list(cases), []
    number, slash, count = fold.partition("/")
    if not (slash and number.isdigit() and count.isdigit()):
        raise UsageError(f"--fold {fold}: write K/N, e.g. 0/5, or all")
    patients = len({case.patient for case in cases})
    if patients < 2:
        raise UsageError(f"--fold {fold}: all cases are of one patient, nothing can be held out; use --fold all")
    weights = {case.name: case.survey.tumor_ml for case in cases}
    return split(cases, int(number), min(int(count), patients), weights)


def _write_stage_report(run: Path, stage: str, outcome: Any, held_out: Any) -> None:
    scored = outcome.best.table() if outcome.best else []
    rows = [{"case": c.name, **row} for c, row in zip(held_out, scored, strict=False)]
    _write_report(run, stage, rows, outcome.warnings)


def _write_report(run: Path, stage: str, rows: Sequence[Mapping[str, Any]], warnings: Sequence[str]) -> str:
    """Write the scores of `rows` as report.json and report.txt, and return them as a line."""
    from cascade.checkpoint import REPORT
    from cascade.validation import Validation

    scores = [{k: v for k, v in row.items() if k != "case"} for row in rows]
    held_out = Validation.from_table(scores)
    means = held_out.means()
    table = {"stage": stage, "convention": "lits", "held_out": rows, "mean": means}
    write_json(run / REPORT, {**table, "warnings": list(warnings)})
    lines = [
        f"Dice of stage {stage} alone, from 0.5 on, on its own grid, held-out cases (convention lits: both empty is 1)",
        "  (cascade report scores what run makes of it, with the thresholds of [policy] and clean-up)",
    ]
    for row, score in zip(rows, scores, strict=True):
        lines.append(f"  {row['case']}: {Validation.from_table([score]).text()}")
    lines.append(f"  mean: {held_out.text()}" if rows else "  none held out")
    for size, count in held_out.found().items():
        lines.append(f"  lesions {size} mm: {count.detected} of {count.truth} found, {count.false} false")
    lines += [f"  warning: {warning}" for warning in warnings]
    write_text(run / "report.txt", "\n".join(lines) + "\n")
    return held_out.text()
