"""What the commands of the command line share: their class, -v, and options of several."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

EXISTING = click.Path(exists=True, path_type=Path)
PATH = click.Path(path_type=Path)
Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def _be_verbose(_: click.Context, __: click.Parameter, wanted: bool) -> None:
    if wanted:
        logging.basicConfig(level=logging.INFO, format="%(relativeCreated)7d ms  %(message)s")


class OneCommand(click.Command):
    """A command that has -v, as every one does."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = ["-v", "--verbose"]
        told = "Log each step on stderr."
        self.params.append(click.Option(names, is_flag=True, expose_value=False, callback=_be_verbose, help=told))


def device_option(command: Decorated) -> Decorated:
    """`--device` of a training."""
    return click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")(command)


def engine_option(command: Decorated) -> Decorated:
    """`--device` of what predicts, which OpenVINO can do too."""
    told = "auto (a GPU if there is one), cpu, cuda, cuda:N, or openvino: the CPU by OpenVINO, if that is installed."
    return click.option("--device", default="auto", show_default=True, help=told)(command)


def model_options(command: Decorated) -> Decorated:
    """`--liver` and `--tumor`, one file or folder each."""
    kinds = "or folder of a training with --folds: the mean of its models, each at its own cost in time."
    default = "[default: as installed]"
    liver = click.option("--liver", type=EXISTING, help=f"Model file of stage 1, {kinds}  {default}")
    tumor = click.option("--tumor", type=EXISTING, help=f"Model file of stage 2, {kinds}  {default}")
    return liver(tumor(command))


def several_models(command: Decorated) -> Decorated:
    """`--liver` and `--tumor`, as often as there are models: each patient is run by those that are new to it."""
    for stage, name in ((2, "--tumor"), (1, "--liver")):
        told = f"Model file of stage {stage}, or folder of a training with --folds; may be given several times."
        command = click.option(name, type=EXISTING, multiple=True, help=f"{told}  [default: as installed]")(command)
    return command
