"""`cascade train-liver` and `cascade train-tumor`."""

from __future__ import annotations

from typing import Any

import click

from cascade.cli.options import EXISTING, PATH, Decorated, OneCommand, device_option


def _training_options(command: Decorated) -> Decorated:
    for option in (
        device_option,
        click.option(
            "--resume",
            is_flag=True,
            help="Go on where the run in -o stopped, to where it was to end, or to another --steps or --minutes.",
        ),
        click.option(
            "--teacher",
            "teachers",
            type=EXISTING,
            multiple=True,
            help="Learn from what this model says too, or, repeated, the mean of several; --resume needs them again.",
        ),
        click.option("--init", type=EXISTING, help="Begin from this model's weights, e.g. to refine it on own scans."),
        click.option("--steps", type=click.IntRange(1), help="Stop after so many steps.  [default: from the settings]"),
        click.option("--minutes", type=click.FloatRange(0, min_open=True), help="Stop by time and not by steps."),
        click.option(
            "--fold",
            show_default="0/5",
            help="K/N: hold out part K (from 0) of N, split by patient; fewer patients than N: one a part. "
            "'all' trains on every case.",
        ),
        click.option(
            "--folds",
            type=click.IntRange(2),
            help="Train all of so many folds in turn, each into fold-K of -o, not one.",
        ),
        click.option("--set", "assignments", multiple=True, metavar="TABLE.KEY=VALUE", help="Change one setting."),
        click.option(
            "--config",
            "configs",
            type=EXISTING,
            multiple=True,
            help="TOML laid over the shipped recipe and DATA/plan.toml.",
        ),
        click.option("-o", "--output", "run", type=PATH, required=True, help="Folder of this training run."),
        click.argument("data", type=EXISTING),
    ):
        command = option(command)
    return command


@click.command("train-liver", cls=OneCommand)
@_training_options
def train_liver(**options: Any) -> None:
    """Train stage 1: the liver on a coarse grid.

    DATA is a prepared dataset. The run folder gets best.safetensors and last.safetensors, the state to --resume,
    TensorBoard events, metrics.jsonl, and the Dice on the held-out cases in report.txt and report.json.

    \b
    Example:
      cascade train-liver data -o liver --minutes 30 --set training.seed=2
    On two GPUs (docs/distributed.md):
      torchrun --nproc-per-node 2 -m cascade train-liver data -o liver
    """
    from cascade.commands.training import train

    train("liver", **options)


@click.command("train-tumor", cls=OneCommand)
@_training_options
def train_tumor(**options: Any) -> None:
    """Train stage 2: tumours at full resolution.

    DATA is a prepared dataset. The run folder gets best.safetensors and last.safetensors, the state to --resume,
    TensorBoard events, metrics.jsonl, and the Dice on the held-out cases in report.txt and report.json.

    \b
    Example:
      cascade train-tumor data -o tumor --minutes 30 --fold 1/5
    On two GPUs (docs/distributed.md):
      torchrun --nproc-per-node 2 -m cascade train-tumor data -o tumor
    """
    from cascade.commands.training import train

    train("tumor", **options)
