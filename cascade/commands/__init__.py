"""What the commands do, between the command line and the parts, by what a user has in hand. Prints what a person wants.

Whoever imports this package has allocator and threads set before torch comes, which the modules in it import.
"""

from __future__ import annotations

import click

from cascade.machine import share_cores, tune_allocator
from preprocess.text import printable

tune_allocator()
share_cores()


def say(text: str) -> None:
    """Show lines of text; a name in them must not steer the terminal."""
    click.echo("\n".join(map(printable, text.rstrip("\n").split("\n"))))


def number(value: float | None) -> str:
    """A score for a person."""
    return "not scored" if value is None else f"{value:.3f}"
