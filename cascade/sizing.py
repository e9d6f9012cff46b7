"""How large patch, batch and network of a stage are: the recipe's, unless the data or the memory say otherwise.

The recipe was found by measuring what trainings reach, which no rule replaces. So a plan leaves it only for a reason:
a patch is no larger than the largest scan; what does not fit into the memory shrinks, the batch first, then the patch,
then the width; what may grow does so in steps that double the work, the patch first, since what is seen around decides
more than the rest, up to the median scan, then the batch, then the width, each to at most twice the recipe's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cascade.settings import Settings
from preprocess.geometry import Index, index3

#: Levels as wide as nnU-Net's widest; halved sides of the coarsest level, from which on another level pays.
WIDEST, DEEPER_FROM = 320, 8


@dataclass(frozen=True)
class Budget:
    """Bytes that a training may take, why (`told`), and whether a plan `grows` to use them or only keeps within."""

    bytes: float
    grows: bool
    told: str


@dataclass(frozen=True)
class Sizer:
    """What sizes follow from: the recipe, the sizes of the scans (z, y, x) at the working spacing, keys ("table.key")
    that are not to change, and what settings cost in bytes."""

    recipe: Settings
    scans: Sequence[Index]
    fixed: frozenset[str]
    cost: Callable[[Settings], int]

    def sized(self, budget: Budget) -> Settings:
        """The recipe, grown or shrunk to the budget. What cannot shrink any further is returned as it is."""
        chosen = self._within_scans(self.recipe)
        while self.cost(chosen) > budget.bytes and (smaller := next(self._smaller(chosen), None)):
            chosen = smaller
        while budget.grows:
            larger = self._larger(chosen)
            if larger is None or self.cost(larger) > budget.bytes:
                break
            chosen = larger
        return chosen

    def _within_scans(self, settings: Settings) -> Settings:
        limit = self._limit(settings, np.max)
        return self._with(settings, patch=[min(n, m) for n, m in zip(settings.sampling.patch, limit, strict=True)])

    def _limit(self, settings: Settings, middle: Callable[..., object]) -> list[int]:
        """A patch that holds the largest (np.max) or the median scan (np.median): multiples, at least two of them."""
        step = settings.network.multiple
        return [max(2, math.ceil(side / step)) * step for side in np.asarray(middle(np.array(self.scans), axis=0))]

    def _with(
        self,
        settings: Settings,
        *,
        patch: Sequence[int] | None = None,
        batch: int | None = None,
        features: Sequence[int] | None = None,
    ) -> Settings:
        """Settings with these values, but for those that are fixed.

        Windows stay as many times the patch as they are in the recipe: instance normalisation sees as much.
        """
        sampling, network, window = settings.sampling, settings.network, settings.window
        if patch and "sampling.patch" not in self.fixed:
            sampling = replace(sampling, patch=index3(patch))
        if batch and "sampling.batch" not in self.fixed:
            sampling = replace(sampling, batch=batch)
        if features and "network.features" not in self.fixed:
            network = replace(network, features=tuple(features))
        if patch and "window.size" not in self.fixed:
            window = replace(window, size=self._window(sampling.patch, network.multiple))
        return replace(settings, sampling=sampling, network=network, window=window)

    def _window(self, patch: Index, step: int) -> Index:
        sizes = zip(self.recipe.window.size, self.recipe.sampling.patch, strict=True)
        return index3([math.ceil(p * size / was / step) * step for p, (size, was) in zip(patch, sizes, strict=True)])

    def _smaller(self, settings: Settings) -> Iterator[Settings]:
        """Smaller settings, the one that is given up first in front."""
        step, patch = settings.network.multiple, list(settings.sampling.patch)
        longest = int(np.argmax(patch))
        patch[longest] -= step if patch[longest] > 2 * step else 0
        options = (
            self._with(settings, batch=max(1, settings.sampling.batch // 2)),
            self._with(settings, patch=patch),
            self._with(settings, features=[max(min(n, 8), 8 * round(n / 11)) for n in settings.network.features]),
        )
        yield from (option for option in options if option != settings)

    def _larger(self, settings: Settings) -> Settings | None:
        """Settings of about twice the work; None where nothing is left to grow."""
        grown = self._larger_patch(settings)
        if np.prod(grown.sampling.patch) >= 1.5 * np.prod(settings.sampling.patch):
            return grown
        batch, features = settings.sampling.batch, settings.network.features
        options = []
        if batch < 2 * self.recipe.sampling.batch:
            options.append(self._with(settings, batch=2 * batch))
        if features[0] < 2 * self.recipe.network.features[0]:
            options.append(self._with(settings, features=[max(n, min(WIDEST, 16 * round(n / 11))) for n in features]))
        return next((option for option in options if option != settings), None)

    def _larger_patch(self, settings: Settings) -> Settings:
        """About twice the voxels, growing where least of the median scan is seen; a level more where sides allow."""
        step, patch = settings.network.multiple, list(settings.sampling.patch)
        limit, wanted = self._limit(settings, np.median), 2 * np.prod(patch)
        while np.prod(patch) < wanted and any(n < most for n, most in zip(patch, limit, strict=True)):
            patch[int(np.argmin([n / most for n, most in zip(patch, limit, strict=True)]))] += step
        fixed = {"sampling.patch", "network.features"} & self.fixed
        if fixed or min(patch) < DEEPER_FROM * step:
            return self._with(settings, patch=patch)
        even = [n // (2 * step) * 2 * step for n in patch]
        return self._with(settings, patch=even, features=(*settings.network.features, settings.network.features[-1]))
