"""The tables of a recipe as frozen dataclasses without defaults. A value that cannot work raises UsageError."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from preprocess.errors import UsageError
from preprocess.preparation import SpacingPlan
from stage1_liver.recipe import LiverPolicy
from stage2_tumor.lesions import Lesions
from stage2_tumor.recipe import TumorPolicy


def check(condition: bool, message: str) -> None:
    """Raises UsageError with `message` unless `condition` holds."""
    if not condition:
        raise UsageError(message)


@dataclass(frozen=True)
class Network:
    """The U-Net: channels of each level, finest first, and how many voxels along each axis `stem` makes one of.

    On the way down a level has so many `blocks` of two convolutions, "plain" or "residual" (`encoder`).
    """

    features: tuple[int, ...]
    stem: int
    encoder: str
    blocks: int

    def __post_init__(self) -> None:
        check(bool(self.features) and min(self.features) > 0, f"network.features = {self.features} must be positive")
        check(self.stem in (1, 2, 4), f"network.stem = {self.stem} must be 1, 2 or 4")
        known = self.encoder in ("plain", "residual")
        check(known, f"network.encoder = {self.encoder!r} must be plain or residual")
        check(self.blocks > 0, f"network.blocks = {self.blocks} must be positive")

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
        check(min(self.patch) > 0 and self.batch > 0, "sampling.patch and sampling.batch must be positive")
        check(self.context_weight > 0, f"sampling.context_weight = {self.context_weight} must be positive")
        check(
            min(self.shares.values(), default=0) >= 0 < sum(self.shares.values()),
            f"sampling.shares = {self.shares} must be positive in sum",
        )


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random changes to a patch; 0 turns one off. Shares are probabilities of a patch to get it.

    Turning, scaling and bending interpolate, which smooths the noise: many patches must do without (`affine_share`,
    `bend_share`), or the network never sees an image as sharp as those it is used on. Patches that are mirrored are so
    along each axis half the time. `tone` bends the grey values: the logarithm of how much steeper a piece may be.
    `large_pixels_share` of the patches lose resolution in y and x, `narrow_window_share` come clipped to a narrower HU
    window; in `phase_share` the liver looks as in another contrast phase (`cascade.phases`). `no_liver_share` show the
    part of a scan above or below the liver alone, where the case has one; `decoy_share` no body at all (see
    `stage1_liver.decoys`).
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
    large_pixels_share: float
    narrow_window_share: float
    phase_share: float
    cut_share: float
    field_share: float
    no_liver_share: float
    decoy_share: float

    def __post_init__(self) -> None:
        check(min(dataclasses.astuple(self)) >= 0, f"augmentation: no value may be negative: {self}")
        check(self.scale < 1 and self.contrast < 1, "augmentation.scale and augmentation.contrast must be below 1")


@dataclass(frozen=True)
class Loss:
    """What training lowers: a loss of `cascade.losses` by its `name`.

    Cross entropy counts a present voxel of region k `rarity_weight` times per region before it: each is rarer than the
    last. `smooth_voxels` are added to both sides of a ratio. Up to `deep_levels` coarser outputs of the network, which
    only training computes, are supervised too. A tumour counts for the root of its size in the patch, so that a large
    one does not drown the small ones: one of `even_ml` for its voxels, smaller ones for more (up to four times), larger
    ones for less. 0: each for its voxels.
    """

    name: str
    rarity_weight: float
    even_ml: float
    smooth_voxels: float
    deep_levels: int

    def __post_init__(self) -> None:
        check(self.rarity_weight > 0, f"loss.rarity_weight = {self.rarity_weight} must be positive")
        check(self.even_ml >= 0, f"loss.even_ml = {self.even_ml} must not be negative")
        # With none the gradient of a ratio is 0 / 0 in a batch without the region.
        check(self.smooth_voxels > 0, f"loss.smooth_voxels = {self.smooth_voxels} must be positive")
        check(self.deep_levels >= 0, f"loss.deep_levels = {self.deep_levels} must not be negative")


@dataclass(frozen=True)
class Optimizer:
    """How weights move: `name` "muon", "adamw", or "sgd" with Nesterov momentum of 0.99 as in
    nnU-Net (Isensee et al., 2021); see `cascade.optimizers`.

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
        check(self.name in ("muon", "adamw", "sgd"), f"optimizer.name = {self.name!r} must be muon, adamw or sgd")
        check(self.decay in ("cosine", "poly"), f"optimizer.decay = {self.decay!r} must be cosine or poly")
        check(self.learning_rate > 0, f"optimizer.learning_rate = {self.learning_rate} must be positive")
        check(0 < self.init_share <= 1, f"optimizer.init_share = {self.init_share} must lie in 0..1")
        check(self.clip_norm > 0, f"optimizer.clip_norm = {self.clip_norm} must be positive")
        check(min(self.weight_decay, self.warmup_steps) >= 0, f"optimizer: no value may be negative: {self}")
        check(0 <= self.average_decay < 1, f"optimizer.average_decay = {self.average_decay} must lie in 0..1")


@dataclass(frozen=True)
class Training:
    """How long, how often to look at held-out cases, the seed of everything random; the share of `cascade.teachers`."""

    steps: int
    validations: int
    seed: int
    teacher_share: float

    def __post_init__(self) -> None:
        check(self.steps > 0 and self.validations > 0, "training.steps and training.validations must be positive")
        check(self.seed >= 0, f"training.seed = {self.seed} must not be negative")
        check(0 <= self.teacher_share <= 1, f"training.teacher_share = {self.teacher_share} must lie in 0..1")


@dataclass(frozen=True)
class Window:
    """Sliding-window prediction: voxels (z, y, x) of a window and the share of it that the next one moves on.

    Up to `one_pass_voxels` the image is taken in one piece.
    """

    size: tuple[int, int, int]
    step: float
    one_pass_voxels: int

    def __post_init__(self) -> None:
        check(min(self.size) > 0, f"window.size = {self.size} must be positive")
        check(0 < self.step <= 1, f"window.step = {self.step} must lie in 0..1")


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
        check(fits, f"sampling.patch = {self.sampling.patch} must be multiples of {step}, one of them larger")

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
