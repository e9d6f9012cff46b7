"""Every setting, as frozen dataclasses without defaults: the values stand in `configs/*.toml` and nowhere else.

A user's file is laid over the shipped recipe, `--set table.key=value` over both. A key that nobody knows is an error
that names the file, the key and the known keys.
"""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from preprocess.errors import UsageError
from preprocess.preparation import SpacingPlan
from preprocess.text import short
from stage1_liver.recipe import LiverPolicy
from stage2_tumor.recipe import TumorPolicy
from stage2_tumor.synthesis import Lesions

Table = Mapping[str, Any]


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)


@dataclass(frozen=True)
class Network:
    """Channels of each level of the U-Net, finest first, and how many voxels along each axis `stem` makes one of."""

    features: tuple[int, ...]
    stem: int

    def __post_init__(self) -> None:
        _check(bool(self.features) and min(self.features) > 0, f"network.features = {self.features} must be positive")
        _check(self.stem in (1, 2, 4), f"network.stem = {self.stem} must be 1, 2 or 4")

    @property
    def multiple(self) -> int:
        """What the sides of an image must be multiples of."""
        return int(self.stem * 2 ** (len(self.features) - 1))


@dataclass(frozen=True)
class Sampling:
    """Patch size in voxels (z, y, x), patches a batch, and the share of patches drawn from each pool of the stage.

    A case whose liver is cut by the scan's first and last slice counts once, one with anatomy around it
    `context_weight` times.
    """

    patch: tuple[int, int, int]
    batch: int
    shares: dict[str, float]
    context_weight: float

    def __post_init__(self) -> None:
        _check(min(self.patch) > 0 and self.batch > 0, "sampling.patch and sampling.batch must be positive")
        _check(self.context_weight > 0, f"sampling.context_weight = {self.context_weight} must be positive")
        _check(
            min(self.shares.values(), default=0) >= 0 < sum(self.shares.values()),
            f"sampling.shares = {self.shares} must be positive in sum",
        )


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random changes to a patch; 0 turns one off. Shares are probabilities of a patch to get it.

    Turning, scaling and bending interpolate, which smooths the noise: many patches must do without (`affine_share`,
    `bend_share`), or the network never sees an image as sharp as those it is used on. Patches that are mirrored are so
    along each axis half the time. `tone` bends the grey values: the logarithm of how much steeper a piece may be.
    `no_liver_share` of the patches show the part of a scan above or below the liver alone, where the case has one;
    `decoy_share` no body at all (see `stage1_liver.decoys`).
    """

    affine_share: float
    rotation_deg: float
    scale: float
    bend_share: float
    bend_mm: float
    mirror_share: float
    tone: float
    contrast: float
    brightness: float
    gamma: float
    noise: float
    blur_share: float
    thick_slices_share: float
    cut_share: float
    no_liver_share: float
    decoy_share: float

    def __post_init__(self) -> None:
        _check(min(dataclasses.astuple(self)) >= 0, f"augmentation: no value may be negative: {self}")
        _check(self.scale < 1 and self.contrast < 1, "augmentation.scale and augmentation.contrast must be below 1")


@dataclass(frozen=True)
class Loss:
    """What training lowers: a loss of `cascade.losses` by its `name`.

    Cross entropy counts a present voxel of region k `rarity_weight` times per region before it: each is rarer than the
    last. `smooth_voxels` are added to both sides of a ratio. Up to `deep_levels` coarser outputs of the network, which
    only training computes, are supervised too.
    """

    name: str
    rarity_weight: float
    smooth_voxels: float
    deep_levels: int

    def __post_init__(self) -> None:
        _check(self.rarity_weight > 0, f"loss.rarity_weight = {self.rarity_weight} must be positive")
        _check(min(self.smooth_voxels, self.deep_levels) >= 0, f"loss: no value may be negative: {self}")


@dataclass(frozen=True)
class Optimizer:
    """How weights move: `name` "adamw", or "sgd" with Nesterov momentum of 0.99 as in nnU-Net (Isensee et al., 2021).

    A linear warm-up to `learning_rate`, at `init_share` of it after --init, then `decay` to zero: "cosine", or "poly",
    (1 - t)^0.9.
    Models are kept, and judged, as a running mean of the weights: each step moves it by 1 - `average_decay` towards the
    weights (0: no mean). Its end is smoother than any single step (Polyak and Juditsky, 1992).
    """

    name: str
    decay: str
    learning_rate: float
    init_share: float
    weight_decay: float
    warmup_steps: int
    clip_norm: float
    average_decay: float

    def __post_init__(self) -> None:
        _check(self.name in ("adamw", "sgd"), f"optimizer.name = {self.name!r} must be adamw or sgd")
        _check(self.decay in ("cosine", "poly"), f"optimizer.decay = {self.decay!r} must be cosine or poly")
        _check(self.learning_rate > 0, f"optimizer.learning_rate = {self.learning_rate} must be positive")
        _check(0 < self.init_share <= 1, f"optimizer.init_share = {self.init_share} must lie in 0..1")
        _check(self.clip_norm > 0, f"optimizer.clip_norm = {self.clip_norm} must be positive")
        _check(min(self.weight_decay, self.warmup_steps) >= 0, f"optimizer: no value may be negative: {self}")
        _check(0 <= self.average_decay < 1, f"optimizer.average_decay = {self.average_decay} must lie in 0..1")


@dataclass(frozen=True)
class Training:
    """How long, how often to look at held-out cases, and the seed of everything random."""

    steps: int
    validations: int
    seed: int

    def __post_init__(self) -> None:
        _check(self.steps > 0 and self.validations > 0, "training.steps and training.validations must be positive")
        _check(self.seed >= 0, f"training.seed = {self.seed} must not be negative")


@dataclass(frozen=True)
class Window:
    """Sliding-window prediction: voxels (z, y, x) of a window and the share of it that the next one moves on.

    Up to `one_pass_voxels` the image is taken in one piece.
    """

    size: tuple[int, int, int]
    step: float
    one_pass_voxels: int

    def __post_init__(self) -> None:
        _check(min(self.size) > 0, f"window.size = {self.size} must be positive")
        _check(0 < self.step <= 1, f"window.step = {self.step} must lie in 0..1")


@dataclass(frozen=True)
class Settings:
    """All settings of one stage."""

    network: Network
    preparation: SpacingPlan
    sampling: Sampling
    augmentation: Augmentation
    lesions: Lesions
    loss: Loss
    optimizer: Optimizer
    training: Training
    window: Window
    policy: LiverPolicy | TumorPolicy

    def __post_init__(self) -> None:
        step = self.network.multiple
        fits = all(n % step == 0 for n in self.sampling.patch) and max(self.sampling.patch) > step
        _check(fits, f"sampling.patch = {self.sampling.patch} must be multiples of {step}, one of them larger")

    @property
    def for_prediction(self) -> PredictionSettings:
        """The part that prediction needs."""
        return PredictionSettings(self.network, self.window, self.policy)


@dataclass(frozen=True)
class PredictionSettings:
    """The part of a stage's settings that prediction needs; a model file must hold it, whatever version wrote it."""

    network: Network
    window: Window
    policy: LiverPolicy | TumorPolicy


_POLICIES: Mapping[str, type[Any]] = {"liver": LiverPolicy, "tumor": TumorPolicy}


def load_settings(stage: str, files: Sequence[Path] = (), assignments: Sequence[str] = ()) -> Settings:
    """The shipped recipe of `stage` ("liver" or "tumor"), with files and `table.key=value` assignments laid over it.

    Raises UsageError for a file that cannot be read, an unknown key, a missing one or a value of the wrong kind.
    """
    merged = shipped_table(stage)
    for file in files:
        _overlay(merged, _read(file), str(file), stage)
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
    kinds = {field.name: _kinds(stage)[field.name] for field in dataclasses.fields(PredictionSettings)}
    return PredictionSettings(**_parts(table, kinds, where))


def _parts(table: Table, kinds: Mapping[str, type[Any]], where: str) -> dict[str, Any]:
    missing = [name for name in kinds if name not in table]
    _check(not missing, f"{where}: table [{', '.join(missing)}] is missing")
    return {name: _build(kind, table[name], where, name) for name, kind in kinds.items()}


def as_table(settings: Settings) -> dict[str, Any]:
    """The settings as nested plain tables, the inverse of `settings_from`."""
    return dataclasses.asdict(settings)


def _kinds(stage: str) -> dict[str, type[Any]]:
    hints = typing.get_type_hints(Settings)
    return {f.name: hints[f.name] for f in dataclasses.fields(Settings)} | {"policy": _POLICIES[stage]}


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror}); check --config") from error
    # ValueError: also a number of thousands of digits. RecursionError: lists in lists in lists.
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file}: not valid TOML: {short(error)}") from error


def _parse_assignment(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    _check(bool(equals) and "." in key, f"--set {short(text)}: write table.key=value, e.g. --set training.seed=3")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"--set {short(text)}: {short(repr(value))} is no TOML value, e.g. 0.5, [64, 64, 64] or true"
        ) from error
    for name in reversed(key.strip().split(".")):
        parsed = {name: parsed}
    return typing.cast(dict[str, Any], parsed)


def _overlay(base: dict[str, Any], over: Table, where: str, stage: str) -> None:
    _refuse_unknown(over, _kinds(stage), where, "")
    for name, table in over.items():
        _check(isinstance(table, dict), f"{where}: {name} must be a table, [{name}]")
        _refuse_unknown(table, typing.get_type_hints(_kinds(stage)[name]), where, name)
        base[name] = _merged(base[name], table)


def _merged(base: Table, over: Table) -> dict[str, Any]:
    """`over` laid over `base`, table by table; a list is replaced as a whole."""
    tables = [key for key in over if isinstance(base.get(key), dict) and isinstance(over[key], dict)]
    return {**base, **over, **{key: _merged(base[key], over[key]) for key in tables}}


def _refuse_unknown(table: Table, known: Mapping[str, Any], where: str, name: str) -> None:
    for key in table:
        full = f"{name}.{key}" if name else key
        _check(key in known, f"{where}: unknown key {short(full)}; known here: {', '.join(known)}")


def _build(kind: type[Any], table: Any, where: str, name: str) -> Any:
    _check(isinstance(table, dict), f"{where}: {name} must be a table, [{name}]")
    hints = typing.get_type_hints(kind)
    _refuse_unknown(table, hints, where, name)
    for key in hints:
        _check(key in table, f"{where}: {name}.{key} is missing")
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
        _check(len(kinds) == len(value), f"{where} = {value} must hold {len(kinds)} values")
        return tuple(_convert(kind, item, where) for kind, item in zip(kinds, value, strict=True))
    if origin is dict and isinstance(value, dict):
        return {key: _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        _check(abs(value) < 1e30, f"{where} = {value} must be finite")
        return float(value)
    plain = hint if isinstance(hint, type) and not isinstance(hint, types.GenericAlias) else None
    _check(plain is not None and type(value) is plain, f"{where} = {value!r} is not of the kind {_spoken(hint)}")
    return value


def _spoken(hint: Any) -> str:
    names = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    return names.get(hint, "list of numbers" if typing.get_origin(hint) is tuple else "table of numbers")
