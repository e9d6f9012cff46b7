"""`cascade evaluate`, `cascade report` and `cascade tune`: masks and models against the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cascade.cli.options import EXISTING, PATH, OneCommand, engine_option, several_models


@click.command(cls=OneCommand)
@click.argument("predictions", type=EXISTING)
@click.argument("truth", type=EXISTING)
@click.option("-o", "--output", type=PATH, required=True, help="Folder of the report.")
@click.option(
    "--convention",
    type=click.Choice(["lits", "nnunet"]),
    default="lits",
    show_default=True,
    help="An empty prediction of an empty truth scores 1 (lits) or is left out of the mean (nnunet).",
)
@click.option("--cases", type=EXISTING, help="CSV table with the columns case, patient, tumor_label.")
@click.option("--versus", type=EXISTING, help="Other predictions of the same cases, for paired differences.")
@click.option("--common", is_flag=True, help="Score the cases that both sides have, and name the others.")
@click.option("--resample-truth", is_flag=True, help="Bring a truth on another grid onto the prediction's.")
def evaluate(predictions: Path, truth: Path, output: Path, **options: Any) -> None:
    """Score masks against masks.

    Overlap and surface metrics of liver (label >= 1) and tumour (label 2), lesion detection and tumour burden, as in
    LiTS. PREDICTIONS and TRUTH are two files, or two folders whose files are paired by case; the output folder of
    `cascade run` is understood. Both must lie at one place in space, within 0.1 mm at every corner; orientations may
    differ. Writes index.html to read, cases.csv, lesions.csv, summary.json, tables.md, tables.tex and, with --versus,
    versus.csv.

    \b
    Example:
      cascade evaluate results lits/labels -o scores
      cascade evaluate results lits/labels -o scores --cases lits/cases.csv --versus other-results
    """
    from cascade.commands.scores import evaluate as work

    work(predictions, truth, output, **options)


@click.command(cls=OneCommand)
@click.argument("source", type=EXISTING)
@click.option("-o", "--output", type=PATH, required=True, help="Folder of the report.")
@several_models
@click.option("--held-out", is_flag=True, help="Only patients that the models were not trained on.")
@engine_option
def report(source: Path, output: Path, **options: Any) -> None:
    """Say stage by stage where the Dice is lost.

    SOURCE is a dataset as for `cascade prepare`. Every labelled case is run; patients that a model was trained on
    are averaged apart. Writes index.html to read, the same as report.txt and report.json, and as tables stages.csv,
    waterfall.csv and lesions.csv; pictures/<case>.png shows each case with
    contours: of truth the liver in blue, tumours in light blue; of the prediction orange and yellow.

    With the models of a cross-validation each patient is run by the mean of those that have not seen it.

    \b
    Example:
      cascade report lits/cases.csv -o account --liver liver/best.safetensors --tumor tumor/best.safetensors
    """
    from cascade.commands.scores import report as work

    work(source, output, **options)


@click.command(cls=OneCommand)
@click.argument("source", type=EXISTING)
@click.option("-o", "--output", type=PATH, required=True, help="Folder of stage 2's models with the new thresholds.")
@several_models
@engine_option
def tune(source: Path, output: Path, **options: Any) -> None:
    """Choose thresholds on cases the models have not seen.

    SOURCE is a dataset as for `cascade prepare`. Each labelled case is run by the mean of those models of each stage
    that have not seen its patient: give the folders of two trainings with --folds, or files. The thresholds of
    [policy] in stage 2 that score best are written into copies of its models, with the scans that they were chosen
    on. Also says what they score on patients that they were not chosen on.

    \b
    Example:
      cascade tune lits/cases.csv -o tuned --liver liver --tumor tumor
      cascade run case.nii.gz -o results --liver liver --tumor tuned
    """
    from cascade.commands.scores import tune as work

    work(source, output, **options)
