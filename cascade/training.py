"""The training loop of both stages. It knows no stage: regions, patches and the goal come from `Stage`.

Reads top to bottom: look at held-out cases when due, save the state, stop, step, log. Batch and learning rate depend
on nothing but the step (or, under a time limit, the share of it that is over), so a run that was stopped or killed
anywhere and resumed under a step limit gives the same weights as one that was not, bit for bit on a CPU.

Several processes may train one network (`job.ranks`): all run this loop, each with its own patches of every batch and
its own of the held-out cases, and agree on what decides where the loop goes: loss, gradients, scores, clock, signals.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import torch

from cascade import __version__
from cascade.batches import ahead, in_turn
from cascade.checkpoint import REPORT, load_model, save_model
from cascade.inference import as_infer
from cascade.interrupts import StopNow, StopSignals
from cascade.logs import NoLog, RunLog
from cascade.losses import require_loss
from cascade.resume import resumed_state, save_state
from cascade.sampler import Batch, Sampler, require_pools
from cascade.settings import as_table
from cascade.stepping import rate, share_done, take_step
from cascade.training_state import BEST, LAST, Job, State, fresh_state, model_of
from cascade.validation import Validation, validate

_LOG = logging.getLogger(__name__)

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
        share = share_done(job, state)
        if job.ranks.first and (share >= 1 or time.monotonic() - saved > SAVE_EVERY_S):
            with log.timed("save"):
                _save(job, state)
            saved = time.monotonic()
        if share >= 1:
            return
        with log.timed("wait"):
            batch = stop.together(lambda: next(batches))
        with log.timed("compute"):
            loss = take_step(state, batch, job, share)
        state.elapsed_s = job.ranks.largest(before + time.monotonic() - started)
        looks = job.settings.training.validations
        state.look_due = bool(job.held_out) and int(share_done(job, state) * looks) > int(share * looks)
        log.step(state.step, loss=loss, learning_rate=rate(job, state, share))
        state.logged = log.logged
        show(state.step, share, loss, state.best)


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
