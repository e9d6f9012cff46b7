"""`cascade demo`: the shipped models on a synthetic case, or the whole way from training to report on a cohort of them.

Both go through the functions that real data goes through.
"""

from __future__ import annotations

import csv
import io
import shutil
import time
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import click

from cascade.commands import data, prediction, scores, training
from preprocess.errors import UsageError
from preprocess.files import write_text
from preprocess.io import write_image
from preprocess.phantom import make_phantom

#: The case that the shipped models are shown: its seed and its number of tumours.
SHOWN = {21: 3}
#: Tumours of each case of the training demo by its seed; the split holds a quarter of the cases out.
TUMORS = {1: 3, 2: 2, 3: 4, 4: 1, 5: 3, 6: 0, 7: 5, 8: 2, 9: 3, 10: 4, 11: 2, 12: 0}
FOLD = "0/4"
#: A file that marks a folder as ours, so that an old demo is replaced and nothing else ever is.
MARK = "cascade-demo.txt"


def run_demo(folder: Path) -> None:
    """Make a synthetic case, run the shipped models on it and score the mask, all inside `folder`.

    Raises UsageError when `folder` holds anything but an earlier demo.
    """
    started = time.monotonic()
    _clear(folder)
    click.echo(f"1/3  a synthetic CT scan into {folder / 'cohort'}")
    make_cohort(folder / "cohort", SHOWN)
    click.echo("2/3  cascade run, with the models that come with the package (a minute on a slow machine)")
    images, labels = folder / "cohort" / "images", folder / "cohort" / "labels"
    models = {
        "liver": None,
        "tumor": None,
        "liver_only": False,
        "mirror": False,
        "device": "auto",
        "plain_malloc": False,
    }
    way = {"overwrite": False, "keep_stages": True, "jobs": 1, "case_minutes": 30.0}
    prediction.run((images,), folder / "results", **models, **way)
    click.echo("3/3  cascade evaluate")
    scoring = {"convention": "lits", "cases": None, "versus": None, "resample_truth": False, "common": False}
    scores.evaluate(folder / "results", labels, folder / "scores", **scoring)
    click.echo(f"{time.monotonic() - started:.0f} s in all; open {folder / 'scores' / 'index.html'}")


def run_training_demo(folder: Path) -> None:
    """Make a cohort, train both stages briefly, run and report the held-out cases, all inside `folder`.

    Raises UsageError when `folder` holds anything but an earlier demo.
    """
    started = time.monotonic()
    _clear(folder)
    click.echo(f"1/5  {len(TUMORS)} synthetic CT scans into {folder / 'cohort'}")
    table = make_cohort(folder / "cohort", TUMORS)
    click.echo("2/5  cascade prepare")
    with resources.as_file(resources.files("configs")) as configs:
        recipes = {stage: configs / f"demo_{stage}.toml" for stage in ("liver", "tumor")}
        data.prepare(table, folder / "data", recipes, jobs=2)
        for number, stage in enumerate(("liver", "tumor"), 3):
            click.echo(f"{number}/5  cascade train-{stage}")
            training.train(
                stage,
                folder / "data",
                folder / stage,
                configs=(recipes[stage],),
                assignments=(),
                fold=FOLD,
                minutes=None,
                steps=None,
                resume=False,
                init=None,
                teachers=(),
                folds=None,
                device="auto",
            )
    click.echo("5/5  cascade report on the held-out cases")
    models = {stage: [folder / stage / "best.safetensors"] for stage in ("liver", "tumor")}
    scores.report(table, folder / "report", **models, device="auto", held_out=True)
    click.echo(f"{time.monotonic() - started:.0f} s in all; open {folder / 'report' / 'index.html'}")


def make_cohort(folder: Path, tumors: Mapping[int, int]) -> Path:
    """Write phantoms, `tumors` by seed, as NIfTI files with a table `cases.csv`, whose path is returned."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    rows = []
    for seed, count in tumors.items():
        phantom = make_phantom(seed, tumors=count)
        name = f"phantom-{seed:02d}"
        image, label = Path("images") / f"{name}.nii.gz", Path("labels") / f"{name}.nii.gz"
        write_image(folder / image, phantom.volume)
        write_image(folder / label, phantom.labels)
        rows.append([name, str(image), str(label), name])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["case", "image", "label", "patient"], *rows])
    write_text(folder / "cases.csv", text.getvalue())
    return folder / "cases.csv"


def _clear(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARK).exists():
            raise UsageError(f"{folder}: not empty and not an earlier demo; choose another -o")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / MARK, "Made by `cascade demo`, which replaces this folder when it runs again.\n")
