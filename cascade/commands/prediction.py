"""What `cascade run` and `cascade models` do."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from cascade.commands import number, say
from preprocess.files import check_writable


def run(inputs: tuple[Path, ...], output: Path, **options: Any) -> None:
    """`cascade run`."""
    from cascade.batch import CaseSetup, Outputs, expand, report_answers, require_any
    from cascade.worker import answers

    names = expand(inputs)
    require_any(names)
    check_writable(output)
    jobs = min(options["jobs"], len(names))
    models = {name: options[name] for name in ("liver", "tumor", "liver_only", "mirror", "device", "plain_malloc")}
    setup = CaseSetup(**models, outputs=Outputs(output, options["overwrite"], options["keep_stages"], names), jobs=jobs)
    answered = answers([*names], setup, jobs, 60 * options["case_minutes"])
    with closing(answered):
        report_answers(answered, names, say)


def models() -> None:
    """`cascade models`."""
    from cascade.shipped import model_card, shipped_models

    card = model_card()
    for model in shipped_models():
        click.echo(f"{model.stage}: {model.path}")
        click.echo(f"  sha256 {model.sha256}" + ("" if model.intact else "  NOT the file of the model card"))
        click.echo(f"  {model.card.get('what', 'no entry in the model card')}")
    scores = card["scores"]
    click.echo(f"scores: {scores['how']} (convention {card['convention']})")
    for row in scores["cases"]:
        tumor = number(row["tumor_dice"])
        click.echo(f"  {row['case']}: liver {row['liver_dice']:.3f}, tumour {tumor}")
    click.echo(f"  mean: liver {scores['mean']['liver_dice']:.3f}, tumour {scores['mean']['tumor_dice']:.3f}")
    for key in ("trained_on", "licence", "use"):
        click.echo(f"{key.replace('_', ' ')}: {card[key]}")
