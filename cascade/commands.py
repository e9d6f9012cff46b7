"""What the commands do, between the command line and the parts. Prints what a person wants to see."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import click

from cascade.machine import tune_allocator
from preprocess.errors import InputError, UsageError
from preprocess.files import check_writable, write_bytes, write_json, write_text
from preprocess.text import printable

tune_allocator()  # before torch, which the modules below import


def _say(text: str) -> None:
    """Show lines of text; a name in them must not steer the terminal."""
    click.echo("\n".join(map(printable, text.rstrip("\n").split("\n"))))


def check(source: Path, output: Path | None, jobs: int) -> None:
    """`cascade check`."""
    from evaluate.text import make_folder
    from preprocess.doctor import check_csv, check_dataset, check_text
    from preprocess.findings import listed

    if output is not None:
        make_folder(output)  # before the work, not after it
    with click.progressbar(length=1, label="check") as bar:

        def show(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        checkup = check_dataset(source, jobs, show)
    _say(check_text(checkup))
    if output is not None:
        write_text(output / "check.csv", check_csv(checkup))
        _say(f"one row a case: {output / 'check.csv'}")
    if checkup.failed:
        raise InputError(f"{source}: errors in {listed(checkup.failed)}; the lines above say what to do")


def prepare(
    source: Path, data: Path, configs: Mapping[str, Path | None], jobs: int, memory_gb: float | None = None
) -> None:
    """`cascade prepare`."""
    from cascade.locks import locked
    from cascade.planning import basis
    from preprocess.layouts import find_cases
    from preprocess.prepared import Progress, prepare_dataset

    begun = basis(data, configs)
    cases = find_cases(source)
    with locked(data), click.progressbar(length=2 * len(cases), label="prepare") as bar:

        def show(progress: Progress) -> None:
            bar.length = progress.total
            bar.update(progress.done - bar.pos)

        dataset = prepare_dataset(cases, data, begun.stage_plans(), jobs, show)
        told = begun.write(dataset, memory_gb)
    for case in dataset.cases:
        row = case.survey
        tumor = f"{row.tumor_ml:8.1f} mL in {row.lesions} tumours" if case.scores_tumor else "tumours not labelled"
        _say(f"  {case.name}: liver {row.liver_ml:.0f} mL, {tumor}")
        for warning in row.warnings:
            _say(f"    warning: {warning}")
    for name, preparation in dataset.preparations.items():
        click.echo(f"{name}: {' x '.join(f'{s:g}' for s in preparation.spacing_mm)} mm (z, y, x)")
    click.echo(f"{len(dataset.cases)} cases of {len({c.patient for c in dataset.cases})} patients in {data}")
    _say(told)


def train(stage_name: str, data: Path, run: Path, **options: Any) -> None:
    """`cascade train-liver` and `cascade train-tumor`: one training, or one after the other those of `folds` folds.

    Of processes that train together (see `cascade.ranks`) the first alone writes and says something.
    """
    from cascade.ranks import joined

    count = options.pop("folds")
    if count and options["fold"]:
        raise UsageError("--fold and --folds exclude each other: one fold, or all of them")
    with joined(options.pop("device")) as ranks:
        ranks.require_alike({"--folds": count})
        if count:
            _train_folds(stage_name, data, run, count, ranks, **options)
        else:
            _train_one(stage_name, data, run, ranks, **options)


def _train_folds(stage_name: str, data: Path, run: Path, count: int, ranks: Any, **options: Any) -> None:
    from cascade.training_state import RESUME
    from preprocess.prepared import load_dataset

    count = min(count, len({case.patient for case in load_dataset(data).cases}))
    for k in range(count):
        part = run / f"fold-{k}"
        again = ranks.from_first(lambda state=part / RESUME: options["resume"] and state.exists())
        begin = None if again else options["init"]
        one = {**options, "fold": f"{k}/{count}", "resume": again, "init": begin}
        _train_one(stage_name, data, part, ranks, **one)
    if ranks.first:
        _report_folds(stage_name, run, count)


def _report_folds(stage_name: str, run: Path, count: int) -> None:
    rows, warnings = [], []
    for k in range(count):
        table = json.loads((run / f"fold-{k}" / "report.json").read_text("utf-8"))
        rows += table["held_out"]
        warnings += [f"fold {k}: {warning}" for warning in table["warnings"]]
    scores = _write_report(run, stage_name, rows, warnings)
    _say((run / "report.txt").read_text("utf-8"))
    names = " ".join(f"--{stage_name} {run / f'fold-{k}' / 'best.safetensors'}" for k in range(count))
    _say(f"each case above was scored by the model that has not seen it; for cascade report: {names}")
    _say(f"best models: {run}, for cascade run --{stage_name} and cascade tune; out of fold: {scores}")


def _train_one(stage_name: str, data: Path, run: Path, ranks: Any, **options: Any) -> None:
    from cascade.checkpoint import load_model
    from cascade.locks import locked
    from cascade.plan_file import plan_of
    from cascade.settings import load_settings
    from cascade.stages import STAGES
    from cascade.training import train as work
    from cascade.training_state import BEST, LAST, RESUME, Job
    from preprocess.prepared import load_dataset

    if options["minutes"] and options["steps"]:
        raise UsageError("--minutes and --steps exclude each other: give one")
    dataset = load_dataset(data)
    plan = plan_of(data, stage_name, dataset)
    settings = load_settings(stage_name, options["configs"], options["assignments"], plan)
    if options["steps"]:
        settings = replace(settings, training=replace(settings.training, steps=options["steps"]))
    if options["init"] and options["resume"]:
        raise UsageError("--init and --resume exclude each other: a run that is resumed remembers what it began from")
    training, held_out = split_by_fold(dataset.cases, options["fold"] or "0/5")
    with locked(run) if ranks.first else nullcontext():
        if ranks.first and not options["resume"] and any((run / name).exists() for name in (RESUME, BEST, LAST)):
            raise UsageError(f"{run}: holds a run already; use --resume to go on with it or another -o")
        job = Job(
            stage=STAGES[stage_name],
            settings=settings,
            preparation=dataset.preparations[stage_name],
            train=training,
            held_out=held_out,
            folder=run,
            ranks=ranks,
            minutes=options["minutes"],
            resume=options["resume"],
            init=load_model(options["init"], STAGES[stage_name]) if options["init"] else None,
        )
        if not ranks.first:
            work(job, lambda *_: None)
            return
        on = f"{ranks.device}" + (f" and {ranks.world - 1} more" if ranks.world > 1 else "")
        click.echo(f"{stage_name}: {len(training)} cases to train on, {len(held_out)} held out, on {on}")
        with click.progressbar(length=1000, label=f"train-{stage_name}", item_show_func=str) as bar:
            outcome = work(job, _shower(bar))
        _write_stage_report(run, stage_name, outcome, held_out)
    _say((run / "report.txt").read_text("utf-8"))
    scores = f"held out: {outcome.best.text()}" if outcome.best else "nothing was held out to score it"
    click.echo(f"{outcome.steps} steps; best model: {run / 'best.safetensors'}; {scores}")


def _shower(bar: Any) -> Any:
    def show(step: int, share: float, loss: float, best: float) -> None:
        known = f", Dice {best:.3f}" if best >= 0 else ""
        bar.update(max(0, int(1000 * share) - bar.pos), f"step {step}, loss {loss:.3f}{known}")

    return show


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
    from cascade.validation import Validation

    scores = [{k: v for k, v in row.items() if k != "case"} for row in rows]
    held_out = Validation.from_table(scores)
    means = held_out.means()
    table = {"stage": stage, "convention": "lits", "held_out": rows, "mean": means}
    write_json(run / "report.json", {**table, "warnings": list(warnings)})
    lines = [f"Dice of stage {stage} on its own grid, held-out cases (LiTS convention: both empty is 1)"]
    for row, score in zip(rows, scores, strict=True):
        lines.append(f"  {row['case']}: {Validation.from_table([score]).text()}")
    lines.append(f"  mean: {held_out.text()}" if rows else "  none held out")
    for size, count in held_out.found().items():
        lines.append(f"  lesions {size} mm: {count.detected} of {count.truth} found, {count.false} false")
    lines += [f"  warning: {warning}" for warning in warnings]
    write_text(run / "report.txt", "\n".join(lines) + "\n")
    return held_out.text()


def _number(value: float | None) -> str:
    return "not scored" if value is None else f"{value:.3f}"


def _runners(livers: Sequence[Path], tumors: Sequence[Path], device: str) -> list[Any]:
    """A runner for each pair of models; the installed pair when none is given."""
    from cascade.case import load_runner

    if max(len(livers), len(tumors)) > 1 and len(livers) != len(tumors):
        raise UsageError(f"{len(livers)} --liver and {len(tumors)} --tumor models: give as many of one as of the other")
    pairs = list(zip_longest(livers, tumors)) or [(None, None)]
    return [load_runner(liver, tumor, device, liver_only=False) for liver, tumor in pairs]


def run(inputs: tuple[Path, ...], output: Path, **options: Any) -> None:
    """`cascade run`."""
    from cascade.batch import CaseSetup, Outputs, expand, report_answers
    from cascade.worker import answers

    paths = expand(inputs)
    check_writable(output)
    jobs = min(options["jobs"], len(paths))
    models = {name: options[name] for name in ("liver", "tumor", "liver_only", "device", "plain_malloc")}
    setup = CaseSetup(**models, outputs=Outputs(output, options["overwrite"], options["keep_stages"]), jobs=jobs)
    answered = answers(paths, setup, jobs, 60 * options["case_minutes"])
    with closing(answered):
        report_answers(answered, len(paths), _say)


def evaluate(predictions: Path, truth: Path, output: Path, **options: Any) -> None:
    """`cascade evaluate`."""
    from evaluate.case_table import read_facts
    from evaluate.comparison import Comparison
    from evaluate.pairs import evaluate_pairs, pair_cases
    from evaluate.tables import screen_table, write_scores

    versus, table = options["versus"], options["cases"]
    each = [pair_cases(masks, truth) for masks in (predictions, versus) if masks]
    if versus and len(each[0]) == 1:  # of two files the first one's name is the case
        each[1] = [(each[0][0][0], *each[1][0][1:])]
    facts = read_facts(table, {case: path for case, _, path in each[0]}) if table else None
    rules = {"convention": options["convention"], "resample_truth": options["resample_truth"]}
    cohorts = [evaluate_pairs(pairs, facts, **rules) for pairs in each]
    comparison = Comparison(cohorts[0], cohorts[1]) if versus else None
    write_scores(cohorts[0], output, comparison)
    click.echo(screen_table(cohorts[0], comparison))


def report(source: Path, output: Path, **options: Any) -> None:
    """`cascade report`."""
    from cascade.batch import refuse_failures
    from cascade.stage_report import report_cases
    from evaluate.pictures import png, three_planes
    from evaluate.stage_tables import report_text, write_account
    from evaluate.text import make_folder
    from preprocess.layouts import find_cases

    runners = _runners(options["liver"], options["tumor"], options["device"])
    pictures: dict[str, bytes] = {}

    def look(case: str, volume: Any, truth: Any, mask: Any) -> None:
        pictures[case] = png(three_planes(volume, truth, mask))

    cases = [case for case in find_cases(source) if case.label is not None and case.liver_label != "none"]
    started = time.monotonic()
    account, failures = report_cases(cases, runners, held_out_only=options["held_out"], say=_say, look=look)
    if not (account.accounts or failures):
        raise InputError(f"{source}: no labelled case to report on" + (" is held out" if options["held_out"] else ""))
    if account.accounts:
        seconds = round(time.monotonic() - started, 1)
        meta = {"models": [runner.models for runner in runners], "seconds": seconds, "failed": list(failures)}
        write_account(account, output, meta)
        make_folder(output / "pictures")
        for case, picture in pictures.items():
            write_bytes(output / "pictures" / f"{case}.png", picture)
        click.echo(report_text(account))
    refuse_failures(failures, len(cases))


def tune(source: Path, output: Path, liver: Sequence[Path], tumor: Sequence[Path], device: str) -> None:
    """`cascade tune`."""
    from cascade.engine import pick_engine
    from cascade.tune import tune as work

    work(source, output, (liver, tumor), pick_engine(device), _say)


def models() -> None:
    """`cascade models`."""
    from cascade.shipped import model_card, shipped_models

    card = model_card()
    for model in shipped_models():
        click.echo(f"{model.stage}: {model.path}")
        click.echo(f"  sha256 {model.sha256}" + ("" if model.intact else "  NOT the file of the model card"))
        click.echo(f"  {model.card.get('what', 'no entry in the model card')}")
    scores = card["scores"]
    click.echo(f"scores: {scores['how']} (convention {card['convention']})")
    for row in scores["cases"]:
        tumor = _number(row["tumor_dice"])
        click.echo(f"  {row['case']}: liver {row['liver_dice']:.3f}, tumour {tumor}")
    click.echo(f"  mean: liver {scores['mean']['liver_dice']:.3f}, tumour {scores['mean']['tumor_dice']:.3f}")
    for key in ("trained_on", "licence", "use"):
        click.echo(f"{key.replace('_', ' ')}: {card[key]}")
