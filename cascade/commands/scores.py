"""What `cascade evaluate`, `cascade report` and `cascade tune` do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from cascade.commands import say
from preprocess.errors import InputError, UsageError
from preprocess.files import require_own


def evaluate(predictions: Path, truth: Path, output: Path, **options: Any) -> None:
    """`cascade evaluate`."""
    from evaluate.case_table import read_facts
    from evaluate.comparison import Comparison
    from evaluate.pairs import evaluate_pairs, pair_cases
    from evaluate.tables import WRITTEN, screen_table, write_scores

    require_own(output, WRITTEN, "summary.json", "schema", "scores of cascade")
    versus, table = options["versus"], options["cases"]
    if table and table.resolve() in [(output / name).resolve() for name in WRITTEN]:
        raise UsageError(f"--cases {table}: would be written over by the scores; choose another -o")
    left_out: list[str] = []
    leave_out = left_out.append if options["common"] else None
    each = [pair_cases(masks, truth, leave_out) for masks in (predictions, versus) if masks]
    if versus and len(each[0]) == 1:  # of two files the first one's name is the case
        each[1] = [(each[0][0][0], *each[1][0][1:])]
    shared = set.intersection(*({case for case, _, _ in pairs} for pairs in each)) if left_out else None
    each = [[pair for pair in pairs if shared is None or pair[0] in shared] for pairs in each]
    facts = read_facts(table, {case: path for case, _, path in each[0]}) if table else None
    rules = {"convention": options["convention"], "resample_truth": options["resample_truth"]}
    cohorts = [evaluate_pairs(pairs, facts, **rules) for pairs in each]
    comparison = Comparison(cohorts[0], cohorts[1]) if versus else None
    write_scores(cohorts[0], output, comparison)
    say(f"{predictions}, scored by the truth {truth}:")
    click.echo(screen_table(cohorts[0], comparison))
    for odd in left_out:
        say(f"left out: {odd}")


def report(source: Path, output: Path, **options: Any) -> None:
    """`cascade report`."""
    from cascade.batch import refuse_failures
    from cascade.engine import pick_engine
    from cascade.stage_report import report_cases
    from cascade.unseen import Panel
    from evaluate.case_picture import case_picture
    from evaluate.pictures import png
    from evaluate.stage_tables import WRITTEN, report_text, write_account
    from preprocess.layouts import find_cases

    require_own(output, WRITTEN, "report.json", "advice", "an account of cascade")
    panel = Panel.load(options["liver"], options["tumor"], pick_engine(options["device"]))
    pictures: dict[str, bytes] = {}

    def look(case: str, volume: Any, truth: Any, mask: Any) -> None:
        pictures[case] = png(case_picture(case, volume, truth, mask))

    cases = [case for case in find_cases(source) if case.label is not None and case.liver_label != "none"]
    started = time.monotonic()
    account, failures = report_cases(cases, panel.runner, held_out_only=options["held_out"], say=say, look=look)
    if not (account.accounts or failures):
        raise InputError(f"{source}: no labelled case to report on" + (" is held out" if options["held_out"] else ""))
    if account.accounts:
        seconds = round(time.monotonic() - started, 1)
        models = {"liver": [m.sha256 for m in panel.livers], "tumor": [m.sha256 for m in panel.tumors]}
        meta = {"models": models, "seconds": seconds, "failed": list(failures)}
        write_account(account, output, meta, pictures)
        click.echo(report_text(account))
    refuse_failures(failures, len(cases))


def tune(source: Path, output: Path, liver: Sequence[Path], tumor: Sequence[Path], device: str) -> None:
    """`cascade tune`."""
    from cascade.engine import pick_engine
    from cascade.tune import tune as work

    work(source, output, (liver, tumor), pick_engine(device), say)
