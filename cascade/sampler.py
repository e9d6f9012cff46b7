"""Patches drawn from prepared cases, changed at random and put together to a batch: a pure function of the step.

Since a patch depends on nothing but the seed, the step and its number in the batch, a resumed run sees exactly what an
uninterrupted one would have seen, no random state has to be stored, and of processes that share a batch each makes its
own patches only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cascade.augment import (
    Warp,
    change_intensity,
    cut_field,
    cut_patch,
    cut_scan,
    drawn,
    mirrored,
    random_affine,
    random_bend,
)
from cascade.painting import paint_lesions
from cascade.phases import change_phase
from cascade.settings import Settings
from cascade.stages import Stage
from preprocess.components import components
from preprocess.errors import UsageError
from preprocess.geometry import index3
from preprocess.preparation import Preparation
from preprocess.prepared import PreparedCase
from stage1_liver.decoys import decoy_hu

#: Candidate centres kept of a pool; every voxel of a hundred scans would not fit into memory.
_CANDIDATES = 20_000
#: Fewer slices without liver show nothing.
_FREE_SLICES = 8
#: So much more than by its size a small tumour counts at most (see `loss.even_ml`): a voxel or two may be noise.
_MOST_WEIGHT = 4.0
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Batch:
    """`image` (n, 1, z, y, x) in -1..1, `target` 0/1 and `trust` (n, regions, z, y, x); see `region_sums`."""

    image: Tensor
    target: Tensor
    trust: Tensor


@dataclass(frozen=True, eq=False)
class _Source:
    image: NDArray[np.float16]
    labels: NDArray[np.uint8]
    centres: Mapping[str, NDArray[Any]]
    drawn: tuple[bool, ...]


def require_pools(shares: Mapping[str, float], stage: Stage) -> None:
    """Raises UsageError where `sampling.shares` names a pool that `stage` does not have."""
    if unknown := set(shares) - set(stage.pools):
        raise UsageError(f"sampling.shares: unknown {', '.join(sorted(unknown))}; known: {', '.join(stage.pools)}")


class Sampler:
    """Draws patches from the prepared cases of one stage.

    A patient is drawn first, then one of the patient's cases, then a pool by its share, then a centre: neither a large
    scan nor a large tumour drowns the others. A pool that the case lacks is replaced by another that it has.
    `part` says which patches of each batch are made here, `device` on what. `at` is the case that the last patch is of,
    to name it in an error.
    """

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        stage: Stage,
        settings: Settings,
        preparation: Preparation,
        part: slice = slice(None),
        device: torch.device = _CPU,
    ) -> None:
        self.at, self._device = "", device
        self._numbers = range(settings.sampling.batch)[part]
        self._settings, self._preparation = settings, preparation
        self._regions = len(stage.regions)
        self._sources = {case.name: _load(case, stage) for case in cases}
        self._free = [part for source in self._sources.values() for part in _free_parts(source)]
        self._patients: dict[str, list[str]] = {}
        for case in cases:
            self._patients.setdefault(case.patient, []).append(case.name)
        weight = {c.name: settings.sampling.context_weight if c.survey.context else 1.0 for c in cases}
        self._in_patient = {p: _shares([weight[name] for name in names]) for p, names in self._patients.items()}
        self._of_patient = _shares([np.mean([weight[name] for name in names]) for names in self._patients.values()])

    def batch(self, step: int) -> Batch:
        """Batch number `step`, or the part of it that is made here."""
        seed = self._settings.training.seed
        patches = [self._patch(np.random.default_rng([seed, step, number])) for number in self._numbers]
        image, target, trust = (torch.stack(part) for part in zip(*patches, strict=True))
        return Batch(image[:, None], target, trust)

    def _patch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        kind, augmentation = rng.random(), self._settings.augmentation
        if kind < augmentation.decoy_share:
            return self._without_liver(self._decoy(rng), rng)
        if kind < augmentation.decoy_share + augmentation.no_liver_share and self._free:
            part = self._free[rng.integers(len(self._free))]
            middle = (rng.uniform(0.25, 0.75, 3) * part[0].shape).astype(int)
            return self._without_liver(self._cut(*part, middle, rng)[0], rng)
        source = self._draw_source(rng)
        pool = _draw_pool(source.centres, self._settings.sampling.shares, rng)
        centre = np.array(np.unravel_index(rng.choice(pool), source.labels.shape))
        centre += np.round(rng.uniform(-0.25, 0.25, 3) * self._settings.sampling.patch).astype(int)  # not only middles
        image, regions = self._cut(source.image, source.labels, centre, rng)
        trust = _trust(regions, source.drawn)
        if drawn(rng, augmentation.phase_share):
            image = change_phase(image, regions, self._preparation, rng)
        if rng.random() < self._settings.lesions.share:
            image, regions, trust = self._with_lesions(image, regions, trust, rng)
        image = change_intensity(image, rng, augmentation)
        if rng.random() < augmentation.cut_share:
            image, regions = cut_scan(image, regions, rng)
        if rng.random() < augmentation.field_share:
            image, regions = cut_field(image, regions, rng)
        return image, regions, self._evened(regions, trust)

    def _draw_source(self, rng: np.random.Generator) -> _Source:
        patients = list(self._patients)
        patient = patients[rng.choice(len(patients), p=self._of_patient)]
        names = self._patients[patient]
        self.at = names[rng.choice(len(names), p=self._in_patient[patient])]
        return self._sources[self.at]

    def _cut(
        self, image: NDArray[Any], labels: NDArray[Any], centre: NDArray[Any], rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        augmentation, size = self._settings.augmentation, self._settings.sampling.patch
        matrix = random_affine(rng, augmentation) if rng.random() < augmentation.affine_share else np.eye(3)
        bend = None
        if rng.random() < augmentation.bend_share:
            reach = augmentation.bend_mm / np.array(self._preparation.spacing_mm)
            bend = random_bend(rng, size, reach, self._device)
        warp = Warp(matrix, bend, self._device)
        patch, regions = cut_patch(image, labels, index3(centre), size, warp, self._regions)
        if rng.random() < augmentation.mirror_share:
            return mirrored(patch, regions, rng.random(3) < 0.5)
        return patch, regions

    def _decoy(self, rng: np.random.Generator) -> Tensor:
        hu = decoy_hu(self._settings.sampling.patch, self._preparation.spacing_mm, rng)
        return torch.from_numpy(self._preparation.normalised(hu)).to(self._device)

    def _without_liver(self, image: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        regions = torch.zeros(self._regions, *image.shape, device=self._device)
        return change_intensity(image, rng, self._settings.augmentation), regions, torch.ones_like(regions)

    def _with_lesions(
        self, image: Tensor, regions: Tensor, trust: Tensor, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The patch with synthetic tumours in its liver; a stage that does not tell them apart sees them as liver."""
        liver, *tumor = regions > 0
        taken = tumor[0] if tumor else torch.zeros_like(liver)
        painted = paint_lesions(image, liver, taken, self._preparation, rng, self._settings.lesions)
        if tumor:
            regions[1] = taken | painted.tumor
            trust[1] = torch.maximum(trust[1], painted.known)
        return painted.image, regions, trust

    def _evened(self, regions: Tensor, trust: Tensor) -> Tensor:
        """`trust`, times what a voxel of each tumour counts for by `loss.even_ml`."""
        even = self._settings.loss.even_ml * 1000 / math.prod(self._preparation.spacing_mm)
        for region, known in zip(regions[1:], trust[1:], strict=True):
            if even and region.any():
                known *= torch.from_numpy(_weights(region.cpu().numpy() > 0, even)).to(self._device)
        return trust


def _weights(region: NDArray[np.bool_], even: float) -> NDArray[np.float32]:
    """1 (z, y, x), but in a part of `region` of n voxels the root of `even` / n, up to `_MOST_WEIGHT`."""
    parts, sizes = components(region)
    weight = np.minimum(_MOST_WEIGHT, np.sqrt(even / np.maximum(sizes, 1)))
    weight[0] = 1
    return np.asarray(weight.astype(np.float32)[parts])


def _trust(regions: Tensor, drawn: Sequence[bool]) -> Tensor:
    """Where each region's label is known: everywhere if it was drawn, else outside the region that it lies in."""
    trust = torch.ones_like(regions)
    for k, known in enumerate(drawn):
        if not known:
            trust[k] = 1 - regions[k - 1]
    return trust


def _shares(weights: Sequence[float | np.floating[Any]]) -> NDArray[np.float64]:
    array = np.array(weights, float)
    return np.asarray(array / array.sum())


def _load(case: PreparedCase, stage: Stage) -> _Source:
    labels = case.labels(stage.name)
    centres = {name: pool(labels) for name, pool in stage.pools.items()}
    if not case.scores_tumor:
        centres.pop("lesion", None)
    drawn = tuple(region != "tumor" or case.scores_tumor for region in stage.regions)
    few = {name: _thinned(pool) for name, pool in centres.items() if pool.size}
    return _Source(case.image(stage.name), labels, few, drawn)


def _free_parts(source: _Source) -> list[tuple[NDArray[np.float16], NDArray[np.uint8]]]:
    """Image and labels of the slices below and above the liver, where there are enough of them."""
    held = np.flatnonzero(source.labels.any(axis=(1, 2)))
    if not held.size:
        return []
    sides = (slice(0, int(held[0])), slice(int(held[-1]) + 1, None))
    parts = [(source.image[side], source.labels[side]) for side in sides]
    return [(image, labels) for image, labels in parts if image.shape[0] >= _FREE_SLICES]


def _thinned(pool: NDArray[Any]) -> NDArray[Any]:
    """At most `_CANDIDATES` of a pool, drawn at random: every n-th could all lie in one plane of the scan."""
    if pool.size <= _CANDIDATES:
        return pool
    return pool[np.random.default_rng(0).integers(pool.size, size=_CANDIDATES)]


def _draw_pool(
    pools: Mapping[str, NDArray[Any]], shares: Mapping[str, float], rng: np.random.Generator
) -> NDArray[Any]:
    names = [name for name in shares if name in pools and shares[name] > 0]
    weights = np.array([shares[name] for name in names] or [1.0] * len(pools))
    names = names or list(pools)
    return pools[names[rng.choice(len(names), p=weights / weights.sum())]]
