"""`cascade run`, and the models and the demo of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cascade.cli.options import PATH, OneCommand, engine_option, model_options


@click.command(cls=OneCommand)
@click.argument("inputs", type=PATH, nargs=-1, required=True, metavar="INPUT...")
@click.option("-o", "--output", type=PATH, default=Path("cascade-out"), show_default=True, help="Folder of results.")
@model_options
@click.option("--liver-only", is_flag=True, help="Stop after stage 1.")
@click.option("--mirror", is_flag=True, help="Let stage 2 see the mirror image too: twice its time.")
@click.option("--keep-stages", is_flag=True, help="Also write what each stage saw.")
@click.option("--overwrite", is_flag=True, help="Do cases again that are done.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Cases at a time.")
@click.option(
    "--case-minutes",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    help="Give a case up that takes longer.",
)
@click.option("--plain-malloc", is_flag=True, help="Give freed memory back to the system at once: slower (glibc only).")
@engine_option
def run(inputs: tuple[Path, ...], output: Path, **options: Any) -> None:
    """Segment liver and tumours in CT scans.

    INPUT is a .nii, .nii.gz, .nrrd, .mha or .dcm file, a DICOM folder, a ZIP of one, or a folder of such cases. Each
    case gets OUTPUT/<case>/segmentation.nii.gz (0 background, 1 liver, 2 tumour, in the geometry of the input) and
    OUTPUT/<case>/report.json (status, volumes, lesions, warnings). Cases that are done are skipped. One that fails,
    even one that crashes the program's process, does not stop the others.

    \b
    Example:
      cascade run case.nii.gz -o results
    """
    from cascade.commands.prediction import run as work

    work(inputs, output, **options)


@click.command(cls=OneCommand)
def models() -> None:
    """Say which models are installed and what they score.

    Prints the files with their sha256, the scores of a cross-validation, what the models were trained on and the
    licence of their weights. MODEL_CARD.md has the whole story.

    \b
    Example:
      cascade models
    """
    from cascade.commands.prediction import models as work

    work()


@click.command(cls=OneCommand)
@click.option("-o", "--output", type=PATH, default=Path("cascade-demo"), show_default=True, help="Working folder.")
@click.option("--train", "training", is_flag=True, help="Train both stages on a synthetic cohort: minutes.")
def demo(output: Path, training: bool) -> None:
    """See it work on synthetic scans.

    Needs no data. Makes a synthetic abdominal CT, runs the installed models on it and scores the mask, in seconds. With
    --train it makes a small cohort, trains both stages on it briefly, runs the held-out cases and prints the per-stage
    report: a few minutes on two cores.

    \b
    Example:
      cascade demo -o /tmp/demo
    """
    from cascade.demo import run_demo, run_training_demo

    (run_training_demo if training else run_demo)(output)
