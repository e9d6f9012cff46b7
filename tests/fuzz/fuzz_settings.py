"""Fuzz target: of a broken settings file or `--set` come sound settings or one line."""

import dataclasses
import math
import random
from pathlib import Path
from typing import Any

from cascade.settings import Settings, as_table, load_settings, settings_from, shipped_table
from tests.fuzz.common import expected_errors, main, mutated

#: Pieces that a person may well type, put where they do not belong.
_WORDS = (
    *(
        b"nan",
        b"inf",
        b"-1",
        b"0",
        b"1e400",
        b"[]",
        b"[[1]]",
        b"{}",
        b"true",
        b"''",
        b"'a'",
        b"1979-05-27",
        b"[1, 2, 3]",
    ),
    *(b"0x7fffffffffffffffff", b"9" * 5000, b"[" * 3000, b"x" * 3000, b"network.features", b"\n[loss]\n"),
    *(b"=", b".", b"[", b"]", b"\xff", b"\0"),
)


def seeds() -> list[bytes]:
    """Every shipped setting on a line of its own, as a file holds it and as `--set` has it."""
    found = []
    for stage in ("liver", "tumor"):
        for name, table in shipped_table(stage).items():
            lines = "".join(f"{key} = {_toml(value)}\n" for key, value in table.items())
            found.append(f"{stage} file\n[{name}]\n{lines}".encode())
            found += [f"{stage} set\n{name}.{key}={_toml(value)}".encode() for key, value in table.items()]
    return found


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    return repr(value).lower() if isinstance(value, bool) else repr(value)


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Random bytes changed, or a word of `_WORDS` put in; the first line stays."""
    head, _, body = content.partition(b"\n")
    if rng.random() < 0.5:
        return head + b"\n" + mutated(body, rng)
    at = rng.randrange(len(body) + 1)
    return head + b"\n" + body[:at] + rng.choice(_WORDS) + body[at + rng.choice((0, 0, 1, 4)) :]


def check(content: bytes, folder: Path) -> None:
    """The property: settings whose numbers are finite and that survive being written and read, or a CascadeError."""
    head, _, body = content.partition(b"\n")
    stage, kind = head.decode().split()
    with expected_errors():
        if kind == "file":
            path = folder / "a.toml"
            path.write_bytes(body)
            settings = load_settings(stage, [path])
        else:
            settings = load_settings(stage, assignments=[body.decode("utf-8", "surrogateescape")])
        table = as_table(settings)
        assert settings_from(table, stage, "again") == settings
        assert isinstance(settings, Settings)
        assert all(math.isfinite(number) for number in _numbers(table))
        assert {field.name for field in dataclasses.fields(settings)} == set(table)


def _numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [number for item in value for number in _numbers(item)]
    return [value] if isinstance(value, int | float) else []


if __name__ == "__main__":
    main(check, seeds(), mutate)
