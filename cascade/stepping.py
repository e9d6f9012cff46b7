"""One step of a training: the loss of a batch, its gradients, the optimiser, and the moving average of the weights."""

from __future__ import annotations

import logging
import math
from functools import partial

import torch
from torch import Tensor

from cascade.losses import deep_loss, deep_sums
from cascade.machine import autocast_dtype
from cascade.sampler import Batch
from cascade.settings import Optimizer
from cascade.training_state import Job, State
from preprocess.errors import ModelError, ResourceError

_LOG = logging.getLogger(__name__)

#: Losses that are not finite are skipped; this many in a row end the training.
MAX_BAD_STEPS = 20


def learning_rate(settings: Optimizer, step: int, share: float, *, begun: bool = False) -> float:
    """Linear warm-up over the first steps, then a cosine or polynomial from the full rate to 0 as `share` goes to 1.

    `begun`: the run began from a trained model, which the full rate would undo.
    """
    warm = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    full = settings.learning_rate * (settings.init_share if begun else 1.0)
    left = 1 - min(1.0, share)
    return full * warm * (left**0.9 if settings.decay == "poly" else 0.5 * (1 - math.cos(math.pi * left)))


def rate(job: Job, state: State, share: float) -> float:
    """The learning rate of the next step, `share` of the training being over."""
    return learning_rate(job.settings.optimizer, state.step, share, begun=state.begun_from is not None)


def share_done(job: Job, state: State) -> float:
    """How much of the training is over, by its limit: 0 at its start, 1 and more at its end."""
    if job.minutes is not None:
        return state.elapsed_s / (60 * job.minutes)
    return state.step / job.settings.training.steps


def take_step(state: State, batch: Batch, job: Job, share: float) -> float:
    """One optimiser step, `share` of the training being over; returns the loss, nan when the step was skipped.

    Raises ModelError when too many in a row were skipped, ResourceError where half a batch is too much for a GPU.
    """
    state.network.train()
    for group in state.optimizer.param_groups:
        group["lr"] = rate(job, state, share)
    state.step += 1
    loss = _gradients(state, batch, job)
    state.scaler.unscale_(state.optimizer)
    norm = torch.nn.utils.clip_grad_norm_(state.network.parameters(), job.settings.optimizer.clip_norm)
    finite = math.isfinite(loss) and math.isfinite(norm.item())
    if finite:
        state.scaler.step(state.optimizer)
    state.scaler.update()
    if not finite:
        # A loss that was multiplied by too much is no fault: it is multiplied by less the next time.
        state.skipped += not (state.scaler.is_enabled() and math.isfinite(loss))
        state.bad_in_a_row += 1
        if state.bad_in_a_row >= MAX_BAD_STEPS:
            raise ModelError(
                f"{job.folder}: the loss was not finite {MAX_BAD_STEPS} times in a row at step {state.step}; "
                "lower optimizer.learning_rate and start again"
            )
        return math.nan
    state.bad_in_a_row = 0
    _move_average(state, job.settings.optimizer.average_decay)
    return loss


def _gradients(state: State, batch: Batch, job: Job) -> float:
    """The loss, its gradients left in the network. When a GPU's memory is too small, from now on in two halves."""
    while True:
        try:
            return _accumulated(state, batch, job)
        except torch.OutOfMemoryError as error:
            if state.parts > 1 or len(batch.image) < 2:
                raise ResourceError(
                    f"{job.device}: out of memory at step {state.step}; lower sampling.batch or sampling.patch and "
                    "start again, or free the GPU and go on with --resume"
                ) from error
        state.parts = 2
        note = f"{job.device}: out of memory at step {state.step}: batches go through the network in halves from now on"
        state.warnings += (note,)
        _LOG.warning("%s", note)


def _accumulated(state: State, batch: Batch, job: Job) -> float:
    """The loss of the whole batch, this process's patches in `state.parts` parts, and the gradients of all of them."""
    state.optimizer.zero_grad()
    total = 0.0
    parts = zip(*(tensor.chunk(state.parts) for tensor in (batch.image, batch.target, batch.trust)), strict=True)
    for image, target, trust in parts:
        share = len(image) / len(batch.image)
        sums = job.ranks.together(partial(_sums, state, Batch(image, target, trust), job))
        loss: Tensor = deep_loss(job.ranks.total(sums), job.settings.loss) * share
        job.ranks.together(state.scaler.scale(loss).backward)
        total += loss.item()
    job.ranks.add_up([weight.grad for weight in state.network.parameters() if weight.grad is not None])
    return total


def _sums(state: State, batch: Batch, job: Job) -> Tensor:
    dtype = autocast_dtype(job.device)
    batch = job.teachers.taught(batch) if job.teachers else batch
    image, target, trust = (tensor.to(job.device) for tensor in (batch.image, batch.target, batch.trust))
    with torch.autocast(job.device.type, dtype, enabled=dtype is not None):
        outputs = state.network.outputs(image)
    return deep_sums(outputs, target, trust, job.settings.loss)


def _move_average(state: State, decay: float) -> None:
    # Early on the mean follows closely, or it would hold the first random weights for long.
    decay = min(decay, state.step / (state.step + 10))
    with torch.no_grad():
        for mean, now in zip(state.average.parameters(), state.network.parameters(), strict=True):
            mean.lerp_(now, 1 - decay)
