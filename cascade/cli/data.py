"""`cascade check` and `cascade prepare`: from a dataset to what training reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cascade.cli.options import EXISTING, PATH, OneCommand
from preprocess.workers import usable_cores


@click.command(cls=OneCommand)
@click.argument("source", type=EXISTING)
@click.option("-o", "--output", type=PATH, help="Folder to write check.csv into, one row a case.")
@click.option("--jobs", type=click.IntRange(1), help="Processes.  [default: one a core]")
def check(source: Path, output: Path | None, jobs: int | None) -> None:
    """Look for what is wrong with a dataset.

    SOURCE is a dataset as for `cascade prepare`. Every case is read: damaged files, image and label that do not
    fit, wrong label values, one scan or patient under two names, livers and tumours where none can be, and the known
    faults of LiTS. No file is changed. Exit code 3 when there is an error, 0 when there are only warnings.

    \b
    Example:
      cascade check lits -o checked
    """
    from cascade.commands.data import check as work

    work(source, output, jobs or usable_cores())


@click.command(cls=OneCommand)
@click.argument("source", type=EXISTING)
@click.option("-o", "--output", "data", type=PATH, required=True, help="Folder to write the prepared dataset into.")
@click.option("--liver-config", type=EXISTING, help="TOML laid over the shipped recipe of stage 1.")
@click.option("--tumor-config", type=EXISTING, help="TOML laid over the shipped recipe of stage 2.")
@click.option(
    "--memory",
    type=click.FloatRange(0, min_open=True),
    metavar="GB",
    help="Plan trainings that fill so much.  [default: the recipe's sizes, or smaller ones if memory demands it]",
)
@click.option("--jobs", type=click.IntRange(1), help="Processes.  [default: one a core]")
def prepare(source: Path, data: Path, **options: Any) -> None:
    """Check a dataset and write what training reads.

    SOURCE is a folder in the layout of LiTS, MSD or nnU-Net, 3D-IRCADb-01 or CHAOS, or a CSV table with the columns
    case, image, label and, if wanted, patient, liver_label, tumor_label (paths relative to the table). A case that
    was prepared before is not built again unless its files or the settings changed. The folder also gets plan.toml: the
    sizes of patch, batch and network for these scans and this machine, to read and to edit.

    \b
    Example:
      cascade prepare lits/cases.csv -o data
    """
    from cascade.commands.data import prepare as work

    configs = {stage: options[f"{stage}_config"] for stage in ("liver", "tumor")}
    work(source, data, configs, options["jobs"] or usable_cores(), options["memory"])
