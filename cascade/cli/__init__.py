"""The command line. Each command is a few lines over a function elsewhere; torch is imported only when one runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import click

from cascade import __version__
from cascade.cli import data, prediction, scores, training
from cascade.machine import as_cascade_error
from preprocess.errors import CascadeError
from preprocess.text import printable


def run_command(arguments: Sequence[str]) -> int:
    """Run `cascade ARGUMENTS` and return the exit code: the one place where errors become one line on stderr.

    0 ok, 1 a bug, 2 usage, 3 input data, 4 model or training state, 5 resources, 6 some cases failed, 128 + signal.
    """
    try:
        cascade.main(list(arguments), prog_name="cascade", standalone_mode=False)
    except CascadeError as error:
        return _fail(str(error), error.exit_code)
    except click.ClickException as error:
        hint = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "cascade"
        return _fail(f"{error.format_message()} ({hint} --help shows how)", 2)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", 130)
    except Exception as error:
        if hasattr(error, "exit_code"):  # Interrupted
            return _fail(str(error), error.exit_code)
        told = as_cascade_error(error)
        logging.getLogger(__name__).info("%s", told, exc_info=error)
        return _fail(str(told), told.exit_code)
    return 0


def _fail(message: str, code: int) -> int:
    click.echo("cascade: " + printable(" ".join(message.split())), err=True)
    return code


class _Group(click.Group):
    """Commands in the order of a user's way through them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="cascade %(version)s")
def cascade() -> None:
    """Segment liver and liver tumours in CT, in two stages.

    A coarse network finds the liver; a second one finds tumours, and the liver's exact edge, around it at full
    resolution. For research, not for diagnosis.

    \b
    With the models that come with it:
      cascade run case.nii.gz -o results
    With models of your own, from a labelled dataset:
      cascade check dataset
      cascade prepare dataset -o data
      cascade train-liver data -o liver
      cascade train-tumor data -o tumor
      cascade run case.nii.gz -o results --liver liver/best.safetensors --tumor tumor/best.safetensors
    Without any data, to see it work:
      cascade demo
    """


for _command in (
    data.check,
    data.prepare,
    training.train_liver,
    training.train_tumor,
    prediction.run,
    scores.evaluate,
    scores.report,
    scores.tune,
    prediction.models,
    prediction.demo,
):
    cascade.add_command(_command)
