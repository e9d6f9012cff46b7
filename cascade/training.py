"""The training loop of both stages. It knows no stage: regions, patches and the goal come from `Stage`.

Reads top to bottom: look at held-out cases when due, save the state, stop, step, log. Batch and learning rate depend
on nothing but the step (or, under a time limit, the share of it that is over), so a run that was stopped or killed
anywhere and resumed under a step limit gives the same weights as one that was not, bit for bit on a CPU.

Several processes may train one network (`job.ranks`): all run this loop, each with its own patches of every batch and
its own of the held-out cases, and agree on what decides where the loop goes: loss, gradients, scores, clock, signals.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cascade import __version__
from cascade.batches import ahead, in_turn
from cascade.checkpoint import REPORT, load_model, save_model
from cascade.inference import as_infer
from cascade.interrupts import StopNow, StopSignals
from cascade.logs import NoLog, RunLog
from cascade.losses import deep_loss, deep_sums, require_loss
from cascade.machine import autocast_dtype
from cascade.resume import resumed_state, save_state
from cascade.sampler import Batch, Sampler, require_pools
from cascade.settings import Optimizer, as_table
from cascade.training_state import BEST, LAST, Job, State, fresh_state, model_of
from cascade.validation import Validation, validate
from preprocess.errors import ModelError, ResourceError

_LOG = logging.getLogger(__name__)

#: Losses that are not finite are skipped; this many in a row end the training.
MAX_BAD_STEPS = 20
#: Seconds between two saves of the state.
SAVE_EVERY_S = 60.0


@dataclass(frozen=True)
class Outcome:
    """The end of a training: steps made, held-out scores of the best model (None: nothing held out), warnings."""

    steps: int
    best: Validation | None
    warnings: tuple[str, ...]


Show = Callable[[int, float, float, float], None]


def train(job: Job, show: Show) -> Outcome:
    """Train until the limit, calling `show(step, share done, loss, best Dice)` after each step.

    Raises ModelError when the loss stays non-finite or the state to resume does not fit, ResourceError when disk or
    memory do not suffice, and Interrupted on SIGINT or SIGTERM after saving the state.
    """
    ranks = job.ranks
    require_loss(job.settings.loss.name)
    require_pools(job.settings.sampling.shares, job.stage)
    ranks.require_shares(job.settings.sampling.batch)
    ranks.require_alike(_given(job))
    torch.manual_seed(job.settings.training.seed)
    torch.backends.cudnn.benchmark = True  # on a GPU: patches are of one size, for which it finds the fastest way
    state = ranks.from_first(lambda: _begun(job))
    for warning in state.warnings:
        _LOG.warning("%s", warning)
    new_log = RunLog(job.folder, state.logged, state.step) if ranks.first else NoLog()
    with StopSignals(ranks.largest) as stop, new_log as log:
        try:
            sampler = stop.together(partial(_sampler, job))
            supply = in_turn if job.device.type == "cuda" else ahead
            with closing(supply(sampler.batch, state.step, lambda: sampler.at)) as batches:
                _loop(job, state, batches, log, stop, show)
            last = _last_look(job, state, stop) if job.held_out else None
        except StopNow:
            ranks.from_first(lambda: _save(job, state))  # nobody ends before that is done
            stop.raise_if_agreed(f"{job.folder}: state saved at step {state.step}; go on with --resume")
            raise
        return ranks.from_first(lambda: _finish(job, state, last))


def _sampler(job: Job) -> Sampler:
    return Sampler(job.train, job.stage, job.settings, job.preparation, job.ranks.part, job.device)


def _given(job: Job) -> dict[str, object]:
    """What decides about a training, by the name that a user knows it by."""
    contents = [[case.survey.content for case in cases] for cases in (job.train, job.held_out)]
    return {
        "version of cascade": __version__,
        "settings": as_table(job.settings),
        "DATA": (job.stage.name, job.preparation, contents),
        "--minutes": job.minutes,
        "--resume": job.resume,
        "--init": job.init and job.init.sha256,
        "--teacher": job.teachers and job.teachers.names,
    }


def _begun(job: Job) -> State:
    if job.resume:
        state = resumed_state(job)
        (job.folder / REPORT).unlink(missing_ok=True)  # of an end that is none any more
        return state
    state = fresh_state(job)
    save_state(job, state)  # a run can be resumed from its first moment, and a full disk is found before the work
    return state


def _loop(job: Job, state: State, batches: Iterator[Batch], log: RunLog, stop: StopSignals, show: Show) -> None:
    """Steps until the limit. A signal raises StopNow, in all processes and always between two steps."""
    saved = started = time.monotonic()
    before = state.elapsed_s
    while True:
        if state.look_due:
            _look(job, state, log, stop)
        share = _share(job, state)
        if job.ranks.first and (share >= 1 or time.monotonic() - saved > SAVE_EVERY_S):
            with log.timed("save"):
                _save(job, state)
            saved = time.monotonic()
        if share >= 1:
            return
        with log.timed("wait"):
            batch = stop.together(lambda: next(batches))
        with log.timed("compute"):
            loss = _step(state, batch, job, share)
        state.elapsed_s = job.ranks.largest(before + time.monotonic() - started)
        looks = job.settings.training.validations
        state.look_due = bool(job.held_out) and int(_share(job, state) * looks) > int(share * looks)
        log.step(state.step, loss=loss, learning_rate=_rate(job, state, share))
        state.logged = log.logged
        show(state.step, share, loss, state.best)


def learning_rate(settings: Optimizer, step: int, share: float, *, begun: bool = False) -> float:
    """Linear warm-up over the first steps, then a cosine or polynomial from the full rate to 0 as `share` goes to 1.

    `begun`: the run began from a trained model, which the full rate would undo.
    """
    warm = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    full = settings.learning_rate * (settings.init_share if begun else 1.0)
    left = 1 - min(1.0, share)
    return full * warm * (left**0.9 if settings.decay == "poly" else 0.5 * (1 - math.cos(math.pi * left)))


def _rate(job: Job, state: State, share: float) -> float:
    return learning_rate(job.settings.optimizer, state.step, share, begun=state.begun_from is not None)


def _share(job: Job, state: State) -> float:
    if job.minutes is not None:
        return state.elapsed_s / (60 * job.minutes)
    return state.step / job.settings.training.steps


def _step(state: State, batch: Batch, job: Job, share: float) -> float:
    """One optimiser step; returns the loss, nan when the step was skipped."""
    state.network.train()
    for group in state.optimizer.param_groups:
        group["lr"] = _rate(job, state, share)
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


def _look(job: Job, state: State, log: RunLog, stop: StopSignals) -> None:
    """Score the held-out cases, and keep the model when it is the best so far. It stays due until that is done."""
    with log.timed("look"):
        result = _validated(job, state, stop)
    log.validation(state.step, result)
    score = result.mean(job.stage.goal)
    if score is not None and score >= state.best:  # of equally good models the longest trained
        if job.ranks.first:
            save_model(job.folder / BEST, model_of(job, state, result, chosen=True))
        state.best = score
    state.logged, state.looked_at, state.look_due = log.logged, (state.step, result), False


def _validated(job: Job, state: State, stop: StopSignals) -> Validation:
    infer, cases = as_infer(state.average, job.settings.window, job.device), job.held_out[job.ranks.part]
    own = stop.together(lambda: validate(job.stage, job.preparation, cases, infer))
    return Validation.joined(job.ranks.gather(own), [case.name for case in job.held_out])


def _last_look(job: Job, state: State, stop: StopSignals) -> Validation:
    if state.looked_at is not None and state.looked_at[0] == state.step:
        return state.looked_at[1]
    return _validated(job, state, stop)


def _save(job: Job, state: State) -> None:
    """Write the state to resume, and the current model as `last`."""
    save_state(job, state)
    save_model(job.folder / LAST, model_of(job, state, None))


def _finish(job: Job, state: State, last: Validation | None) -> Outcome:
    """Write `last`, and `best` where nothing was held out to choose by."""
    if state.skipped:
        told = f"{state.skipped} of {state.step} steps were skipped: their loss or its gradients were not finite"
        state.warnings += (told,)
    save_model(job.folder / LAST, model_of(job, state, last))
    best_path = job.folder / BEST
    if last is None or not best_path.exists():
        save_model(best_path, model_of(job, state, last))
        return Outcome(state.step, last, state.warnings)
    best = load_model(best_path, job.stage).scores["held_out"]
    return Outcome(state.step, Validation.from_table(best) if best else None, state.warnings)
