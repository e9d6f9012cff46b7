"""Settings from TOML: the shipped recipe, what is laid over it, and tables turned into dataclasses and back."""

from __future__ import annotations

import dataclasses
import re
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from cascade.settings.tables import PredictionSettings, Settings, check
from preprocess.errors import UsageError
from preprocess.text import short
from stage1_liver.recipe import LiverPolicy
from stage2_tumor.recipe import TumorPolicy

Table = Mapping[str, Any]

#: Of a table that holds a certain key, the keys that came later and the values that stand for what was done before.
_BEFORE: tuple[tuple[str, str, Table], ...] = (
    ("network", "features", {"encoder": "plain", "blocks": 1}),
    (
        "policy",
        "tumor_threshold",
        {
            "minimum_contrast_hu": 0.0,
            "clear_peak": 1.0,
            "clear_contrast_hu": [0.0, 0.0],
            "clear_mm3": 0.0,
            "stage2_weight": 0.5,
            "outline_threshold": 0.5,
            "outline_share": 0.0,
            "fat_share": 0.0,
            "gallbladder_hu": -1024.0,
        },
    ),
)
_POLICIES: Mapping[str, type[Any]] = {"liver": LiverPolicy, "tumor": TumorPolicy}


def load_settings(
    stage: str, files: Sequence[Path] = (), assignments: Sequence[str] = (), plan: Path | None = None
) -> Settings:
    """The shipped recipe of `stage` ("liver" or "tumor"), with files and `table.key=value` assignments laid over it.

    The `plan` of a dataset, whose tables are those of both stages, lies between the recipe and the files. Raises
    UsageError for a file that cannot be read, an unknown key, a missing one or a value of the wrong kind.
    """
    merged = shipped_table(stage)
    if plan is not None:
        _overlay_plan(merged, read_table(plan), str(plan), stage)
    for file in files:
        _overlay(merged, read_table(file), str(file), stage)
    for assignment in assignments:
        _overlay(merged, _parse_assignment(assignment), f"--set {short(assignment)}", stage)
    return settings_from(merged, stage, f"settings of the {stage} stage")


def shipped_table(name: str) -> dict[str, Any]:
    """The tables of `configs/<name>.toml`, as installed."""
    return tomllib.loads(resources.files("configs").joinpath(f"{name}.toml").read_text("utf-8"))


def settings_from(table: Table, stage: str, where: str) -> Settings:
    """Settings from nested tables; `where` names their source in errors. Raises UsageError."""
    kinds = _kinds(stage)
    _refuse_unknown(table, kinds, where, "")
    return typing.cast(Settings, _made(Settings, _parts(table, kinds, where), where))


def prediction_settings_from(table: Table, stage: str, where: str) -> PredictionSettings:
    """What prediction needs of the tables of `as_table`; the rest may be of another version. Raises UsageError."""
    table = completed(table)
    kinds = {field.name: _kinds(stage)[field.name] for field in dataclasses.fields(PredictionSettings)}
    return PredictionSettings(**_parts(table, kinds, where))


def completed(table: Table) -> Table:
    """Stored tables with the keys that earlier versions did not have, at the values that stand for what these did."""
    out = {**table}
    for name, mark, before in _BEFORE:
        if isinstance(stored := table.get(name), dict) and mark in stored:
            out[name] = {**before, **stored}
    return out


def _parts(table: Table, kinds: Mapping[str, type[Any]], where: str) -> dict[str, Any]:
    missing = [name for name in kinds if name not in table]
    check(not missing, f"{where}: table [{', '.join(missing)}] is missing")
    return {name: _build(kind, table[name], where, name) for name, kind in kinds.items()}


def as_table(settings: Settings) -> dict[str, Any]:
    """The settings as nested plain tables, the inverse of `settings_from`."""
    return dataclasses.asdict(settings)


def _kinds(stage: str) -> dict[str, type[Any]]:
    hints = typing.get_type_hints(Settings)
    return {f.name: hints[f.name] for f in dataclasses.fields(Settings)} | {"policy": _POLICIES[stage]}


def read_table(file: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises UsageError when it cannot be read."""
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror}); check its name") from error
    # ValueError: also a number of thousands of digits. RecursionError: lists in lists in lists.
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file}: not valid TOML: {short(error)}") from error


_WORD = re.compile(r"[A-Za-z][A-Za-z_]*")


def _parse_assignment(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    check(bool(equals) and "." in key, f"--set {short(text)}: write table.key=value, e.g. --set training.seed=3")
    word = value.strip()
    if _WORD.fullmatch(word) and word.lower() not in ("true", "false", "inf", "nan"):
        word = f'"{word}"'  # a shell takes the quotes away
    try:
        parsed = tomllib.loads(f"value = {word}")["value"]
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"--set {short(text)}: {short(repr(value))} is no TOML value, e.g. 0.5, [64, 64, 64], true or a word"
        ) from error
    for name in reversed(key.strip().split(".")):
        parsed = {name: parsed}
    return typing.cast(dict[str, Any], parsed)


def _overlay(base: dict[str, Any], over: Table, where: str, stage: str) -> None:
    _refuse_unknown(over, _kinds(stage), where, "")
    for name, table in over.items():
        check(isinstance(table, dict), f"{where}: {name} must be a table, [{name}]")
        _refuse_unknown(table, typing.get_type_hints(_kinds(stage)[name]), where, name)
        base[name] = _merged(base[name], table)


def _overlay_plan(base: dict[str, Any], plan: Table, where: str, stage: str) -> None:
    _refuse_unknown(plan, _POLICIES, where, "")
    table = plan.get(stage, {})
    check(isinstance(table, dict), f"{where}: {stage} must be a table, [{stage}]")
    _overlay(base, table, f"{where}: [{stage}]", stage)
    settings_from(base, stage, f"{where}: [{stage}]")  # the file is at fault, not what is laid over it


def _merged(base: Table, over: Table) -> dict[str, Any]:
    """`over` laid over `base`, table by table; a list is replaced as a whole."""
    tables = [key for key in over if isinstance(base.get(key), dict) and isinstance(over[key], dict)]
    return {**base, **over, **{key: _merged(base[key], over[key]) for key in tables}}


def _refuse_unknown(table: Table, known: Mapping[str, Any], where: str, name: str) -> None:
    for key in table:
        full = f"{name}.{key}" if name else key
        check(key in known, f"{where}: unknown key {short(full)}; known here: {', '.join(known)}")


def _build(kind: type[Any], table: Any, where: str, name: str) -> Any:
    check(isinstance(table, dict), f"{where}: {name} must be a table, [{name}]")
    hints = typing.get_type_hints(kind)
    _refuse_unknown(table, hints, where, name)
    for key in hints:
        check(key in table, f"{where}: {name}.{key} is missing")
    values = {key: _convert(hint, table[key], f"{where}: {name}.{key}") for key, hint in hints.items()}
    return _made(kind, values, where)


def _made(kind: type[Any], values: Table, where: str) -> Any:
    try:
        return kind(**values)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and isinstance(value, list | tuple):
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        check(len(kinds) == len(value), f"{where} = {value} must hold {len(kinds)} values")
        return tuple(_convert(kind, item, where) for kind, item in zip(kinds, value, strict=True))
    if origin is dict and isinstance(value, dict):
        return {key: _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        check(abs(value) < 1e30, f"{where} = {value} must be finite")
        return float(value)
    plain = hint if isinstance(hint, type) and not isinstance(hint, types.GenericAlias) else None
    check(plain is not None and type(value) is plain, f"{where} = {value!r} is not of the kind {_spoken(hint)}")
    return value


def _spoken(hint: Any) -> str:
    names = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    return names.get(hint, "list of numbers" if typing.get_origin(hint) is tuple else "table of numbers")
