"""cascade's side of `benchmarks.train`: turns of some iterations of `cascade.training.train` itself.

    python -m benchmarks.train_turns '{"kind": "recipe", "features": [...], "plain": false, "real": true, ...}'

The loop is the real one, logs and running mean included, stopped between two steps by its own `show`. Only the save of
every minute is left out: with the time that others have their turns each turn would hold one.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.process import peak_gb
from cascade.batches import ahead
from cascade.ranks import Ranks
from cascade.sampler import Batch
from cascade.settings import Settings, load_settings
from cascade.stages import TUMOR
from cascade.training import train
from cascade.training_state import Job
from preprocess.prepared import load_dataset


class RandomBatches:
    """In place of the sampler: one batch of noise, over and over."""

    at = "noise"

    def __init__(self, settings: Settings) -> None:
        shape, count = settings.sampling.patch, settings.sampling.batch
        target = torch.rand(count, len(TUMOR.regions), *shape).round()
        self._batch = Batch(torch.randn(count, 1, *shape).clamp(-1, 1), target, torch.ones_like(target))

    def batch(self, step: int) -> Batch:
        """The same whatever the step."""
        return self._batch


class Turns:
    """Seconds of each iteration and, of those, seconds that the next batch was waited for."""

    def __init__(self, iterations: int) -> None:
        self._iterations = iterations
        self.waits: list[float] = []
        self._seconds: list[float] = []
        self._since = 0.0

    def timed(self, *arguments: Any) -> Iterator[Batch]:
        """`ahead`, with a clock."""
        with closing(ahead(*arguments)) as batches:
            while True:
                start = time.perf_counter()
                batch = next(batches)
                self.waits.append(time.perf_counter() - start)
                yield batch

    def show(self, step: int, share: float, loss: float, best: float) -> None:
        """After each step of the training; the first is before the first turn."""
        if step > 1:
            self._seconds.append(time.perf_counter() - self._since)
        if step == 1:
            print("{}", flush=True)
        if step == 1 or len(self._seconds) == self._iterations:
            if self._seconds:
                answer = {"seconds": self._seconds, "waits": self.waits, "peak": peak_gb()}
                print(json.dumps(answer), flush=True)
            self._seconds, self.waits = [], []
            if not sys.stdin.readline():
                sys.exit(0)
        self._since = time.perf_counter()


def main(data: str, out: str, sets: list[str], plain: bool, real: bool, iterations: int) -> None:
    """Train on all cases of the prepared dataset `data`; `plain`: in float32, weights as torch lays them."""
    settings = load_settings("tumor", assignments=[*sets, "training.steps=100000"])
    dataset, turns = load_dataset(Path(data)), Turns(iterations)
    Path(out).mkdir(parents=True)
    job = Job(TUMOR, settings, dataset.preparations["tumor"], dataset.cases, [], Path(out), Ranks(torch.device("cpu")))
    with ExitStack() as stack:
        stack.enter_context(patch("cascade.training.ahead", turns.timed))
        stack.enter_context(patch("cascade.training.SAVE_EVERY_S", math.inf))
        if not real:
            stack.enter_context(patch("cascade.training.Sampler", lambda *_: RandomBatches(settings)))
        if plain:
            stack.enter_context(patch("cascade.stepping.autocast_dtype", lambda device: None))
            stack.enter_context(patch("cascade.training_state.on_device", lambda network, device: network))
        train(job, turns.show)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    if not given["plain"]:
        from cascade.machine import tune_allocator

        tune_allocator()  # nothing large was allocated yet
    main(**given)
