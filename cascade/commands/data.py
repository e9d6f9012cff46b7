"""What `cascade check` and `cascade prepare` do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from cascade.commands import say
from preprocess.errors import InputError
from preprocess.files import write_text


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
    say(check_text(checkup))
    if output is not None:
        write_text(output / "check.csv", check_csv(checkup))
        say(f"one row a case: {output / 'check.csv'}")
    if checkup.failed:
        raise InputError(f"{source}: errors in {listed(checkup.failed)}; the lines above say what to do")


def prepare(
    source: Path, data: Path, configs: Mapping[str, Path | None], jobs: int, memory_gb: float | None = None
) -> None:
    """`cascade prepare`."""
    from cascade.locks import locked
    from cascade.planning import basis
    from preprocess.build import Progress, prepare_dataset
    from preprocess.layouts import find_cases

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
        say(f"  {case.name}: liver {row.liver_ml:.0f} mL, {tumor}")
        for warning in row.warnings:
            say(f"    warning: {warning}")
    for name, preparation in dataset.preparations.items():
        click.echo(f"{name}: {' x '.join(f'{s:g}' for s in preparation.spacing_mm)} mm (z, y, x)")
    click.echo(f"{len(dataset.cases)} cases of {len({c.patient for c in dataset.cases})} patients in {data}")
    say(told)
