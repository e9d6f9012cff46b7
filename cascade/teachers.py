"""Distillation: a network learns from what trained models say of its patches, besides what experts drew.

What several say together is better than what each says, and one network that has learned it takes the time of one
(Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015). Where nobody drew, as the tumours of a
scan that has none drawn, the teachers are all that there is to learn from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cascade.checkpoint import Model
from cascade.machine import autocast_dtype, on_device
from cascade.sampler import Batch
from cascade.unet import UNet3d
from preprocess.errors import ModelError
from preprocess.preparation import Preparation


@dataclass(frozen=True, eq=False)
class Teachers:
    """Models of one stage that teach together, by the mean of their probabilities; `share` is theirs of a target."""

    models: tuple[Model, ...]
    share: float
    device: torch.device

    @staticmethod
    def of(models: Sequence[Model], preparation: Preparation, share: float, device: torch.device) -> Teachers | None:
        """None without models. Raises ModelError for one that knows scans that are prepared otherwise."""
        for model in models:
            if model.preparation != preparation:
                raise ModelError(
                    f"--teacher: a model of scans at {_spoken(model.preparation)}; these are at "
                    f"{_spoken(preparation)}: prepare them so, or give another"
                )
        return Teachers(tuple(models), share, device) if models else None

    @property
    def names(self) -> list[str]:
        """The sha256 of each, in no order that matters."""
        return sorted(model.sha256 for model in self.models)

    @property
    def trained_on(self) -> set[str]:
        """What one of them or more has learned from, which who learns from them has too; see `Model`."""
        return {known for model in self.models for known in model.trained_on}

    @property
    def chosen_on(self) -> set[str]:
        """Likewise what they were picked on."""
        return {known for model in self.models for known in model.chosen_on}

    def taught(self, batch: Batch) -> Batch:
        """`batch` with targets that are in part what the teachers say, and wholly where nothing is known otherwise."""
        image, target, trust = (part.to(self.device) for part in (batch.image, batch.target, batch.trust))
        said = self._say(image)
        known = trust > 0
        mixed = torch.where(known, torch.lerp(target, said, self.share), said)
        return Batch(image, mixed, torch.where(known, trust, torch.ones_like(trust)))

    @torch.no_grad()
    def _say(self, image: Tensor) -> Tensor:
        """Probabilities (n, regions, z, y, x)."""
        dtype = autocast_dtype(self.device)
        total: Tensor | float = 0.0
        for network in self._networks:
            with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
                logits = network(image)
            total = total + torch.sigmoid(logits.float())
        return torch.as_tensor(total / len(self._networks))

    @cached_property
    def _networks(self) -> list[UNet3d]:
        return [on_device(model.network(), self.device).eval() for model in self.models]


def _spoken(preparation: Preparation) -> str:
    return f"{list(preparation.spacing_mm)} mm, HU {list(preparation.window_hu)}"
