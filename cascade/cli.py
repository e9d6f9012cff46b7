"""The command line. Each command is a few lines over a function elsewhere; torch is imported only when one runs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from cascade import __version__
from cascade.machine import as_cascade_error
from preprocess.errors import CascadeError
from preprocess.text import printable

_EXISTING = click.Path(exists=True, path_type=Path)
_PATH = click.Path(path_type=Path)
_Command = TypeVar("_Command", bound=Callable[..., Any])


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


def _be_verbose(_: click.Context, __: click.Parameter, wanted: bool) -> None:
    if wanted:
        logging.basicConfig(level=logging.INFO, format="%(relativeCreated)7d ms  %(message)s")


class _OneCommand(click.Command):
    """A command that has -v, as every one does."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = ["-v", "--verbose"]
        told = "Log each step on stderr."
        self.params.append(click.Option(names, is_flag=True, expose_value=False, callback=_be_verbose, help=told))


class _Group(click.Group):
    """Commands in the order of a user's way through them."""

    command_class = _OneCommand

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


def _device_option(command: _Command) -> _Command:
    return click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")(command)


def _engine_option(command: _Command) -> _Command:
    told = "auto (a GPU if there is one), cpu, cuda, cuda:N, or openvino: the CPU by OpenVINO, if that is installed."
    return click.option("--device", default="auto", show_default=True, help=told)(command)


def _model_options(command: _Command) -> _Command:
    kinds = "or folder of a training with --folds: the mean of its models, each at its own cost in time."
    default = "[default: the installed one]"
    liver = click.option("--liver", type=_EXISTING, help=f"Model file of stage 1, {kinds}  {default}")
    tumor = click.option("--tumor", type=_EXISTING, help=f"Model file of stage 2, {kinds}  {default}")
    return liver(tumor(command))


def _several_models(command: _Command) -> _Command:
    for stage, name in ((2, "--tumor"), (1, "--liver")):
        told = f"Model file of stage {stage}; may be given once a fold.  [default: the installed one]"
        command = click.option(name, type=_EXISTING, multiple=True, help=told)(command)
    return command


@cascade.command()
@click.argument("source", type=_EXISTING)
@click.option("-o", "--output", type=_PATH, help="Folder to write check.csv into, one row a case.")
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
    from cascade.commands import check as work

    work(source, output, jobs or os.cpu_count() or 1)


@cascade.command()
@click.argument("source", type=_EXISTING)
@click.option("-o", "--output", "data", type=_PATH, required=True, help="Folder to write the prepared dataset into.")
@click.option("--liver-config", type=_EXISTING, help="TOML laid over the shipped recipe of stage 1.")
@click.option("--tumor-config", type=_EXISTING, help="TOML laid over the shipped recipe of stage 2.")
@click.option(
    "--memory",
    type=click.FloatRange(0, min_open=True),
    metavar="GB",
    help="Plan trainings that fill so much.  [default: that of the GPU; without one, the recipe's sizes if they fit]",
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
    from cascade.commands import prepare as work

    configs = {stage: options[f"{stage}_config"] for stage in ("liver", "tumor")}
    work(source, data, configs, options["jobs"] or os.cpu_count() or 1, options["memory"])


def _training_options(command: _Command) -> _Command:
    for option in (
        _device_option,
        click.option("--resume", is_flag=True, help="Go on where the run in -o stopped."),
        click.option("--init", type=_EXISTING, help="Begin from this model's weights, e.g. to refine it on own scans."),
        click.option("--steps", type=click.IntRange(1), help="Stop after so many steps.  [default: from the settings]"),
        click.option("--minutes", type=click.FloatRange(0, min_open=True), help="Stop after so many minutes instead."),
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
        click.option("--config", "configs", type=_EXISTING, multiple=True, help="TOML laid over the shipped recipe."),
        click.option("-o", "--output", "run", type=_PATH, required=True, help="Folder of this training run."),
        click.argument("data", type=_EXISTING),
    ):
        command = option(command)
    return command


@cascade.command("train-liver")
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
    from cascade.commands import train

    train("liver", **options)


@cascade.command("train-tumor")
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
    from cascade.commands import train

    train("tumor", **options)


@cascade.command()
@click.argument("inputs", type=_PATH, nargs=-1, required=True, metavar="INPUT...")
@click.option("-o", "--output", type=_PATH, default=Path("cascade-out"), show_default=True, help="Folder of results.")
@_model_options
@click.option("--liver-only", is_flag=True, help="Stop after stage 1.")
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
@_engine_option
def run(inputs: tuple[Path, ...], output: Path, **options: Any) -> None:
    """Segment liver and tumours in CT scans.

    INPUT is a .nii, .nii.gz, .nrrd or .mha file, a DICOM folder, a ZIP of one, or a folder of such cases. Each case
    gets OUTPUT/<case>/segmentation.nii.gz (0 background, 1 liver, 2 tumour, in the geometry of the input) and
    OUTPUT/<case>/report.json (status, volumes, lesions, warnings). Cases that are done are skipped. One that fails,
    even one that crashes the program's process, does not stop the others.

    \b
    Example:
      cascade run case.nii.gz -o results
    """
    from cascade.commands import run as work

    work(inputs, output, **options)


@cascade.command()
@click.argument("predictions", type=_EXISTING)
@click.argument("truth", type=_EXISTING)
@click.option("-o", "--output", type=_PATH, required=True, help="Folder of the report.")
@click.option(
    "--convention",
    type=click.Choice(["lits", "nnunet"]),
    default="lits",
    show_default=True,
    help="An empty prediction of an empty truth scores 1 (lits) or is left out of the mean (nnunet).",
)
@click.option("--cases", type=_EXISTING, help="CSV table with the columns case, patient, tumor_label.")
@click.option("--versus", type=_EXISTING, help="Other predictions of the same cases, for paired differences.")
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
    from cascade.commands import evaluate as work

    work(predictions, truth, output, **options)


@cascade.command()
@click.argument("source", type=_EXISTING)
@click.option("-o", "--output", type=_PATH, required=True, help="Folder of the report.")
@_several_models
@click.option("--held-out", is_flag=True, help="Only patients that the models were not trained on.")
@_engine_option
def report(source: Path, output: Path, **options: Any) -> None:
    """Say stage by stage where the Dice is lost.

    SOURCE is a dataset as for `cascade prepare`. Every labelled case is run; patients that a model was trained on
    are averaged apart. Writes index.html to read, the same as report.txt and report.json, and as tables stages.csv,
    waterfall.csv and lesions.csv; pictures/<case>.png shows truth (blue) and prediction (orange) of each case.

    With the models of a cross-validation (--liver and --tumor once a fold, in the same order) each patient is run by
    those that have not seen it.

    \b
    Example:
      cascade report lits/cases.csv -o account --liver liver/best.safetensors --tumor tumor/best.safetensors
    """
    from cascade.commands import report as work

    work(source, output, **options)


@cascade.command()
@click.argument("source", type=_EXISTING)
@click.option("-o", "--output", type=_PATH, required=True, help="Folder of stage 2's models with the new thresholds.")
@_several_models
@_device_option
def tune(source: Path, output: Path, **options: Any) -> None:
    """Choose thresholds on cases the models have not seen.

    SOURCE is a dataset as for `cascade prepare`. Each labelled case is run by models that have not seen its patient:
    give the folders of two trainings with --folds, or pairs of models. The thresholds of [policy] in stage 2 that
    score best are written into copies of its models, with the scans that they were chosen on. Also says what
    they score on patients that they were not chosen on.

    \b
    Example:
      cascade tune lits/cases.csv -o tuned --liver liver --tumor tumor
      cascade run case.nii.gz -o results --liver liver --tumor tuned
    """
    from cascade.commands import tune as work

    work(source, output, **options)


@cascade.command()
def models() -> None:
    """Say which models are installed and what they score.

    Prints the files with their sha256, the scores of a cross-validation, what the models were trained on and the
    licence of their weights. MODEL_CARD.md has the whole story.

    \b
    Example:
      cascade models
    """
    from cascade.commands import models as work

    work()


@cascade.command()
@click.option("-o", "--output", type=_PATH, default=Path("cascade-demo"), show_default=True, help="Working folder.")
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
