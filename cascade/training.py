"""The training loop of both stages. It knows no stage: regions, patches and the goal come from `Stage`.

Reads top to bottom: step, log, look at held-out cases when due, keep the best, save the state, stop. Batch and learning
rate depend on nothing but the step (or, under a time limit, the share of it that is over), so a run that was stopped
anywhere and resumed under a step limit gives the same weights as one that was not, bit for bit on a CPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cascade.batches import Batch, Sampler, ahead
from cascade.checkpoint import Model, cpu_state, load_tensors, save_model, save_tensors
from cascade.inference import as_infer
from cascade.interrupts import StopSignals
from cascade.logs import RunLog
from cascade.losses import deep_loss
from cascade.machine import autocast_dtype
from cascade.settings import Optimizer, Settings, as_table
from cascade.stages import Stage
from cascade.unet import UNet3d
from cascade.validation import Validation, validate
from preprocess.errors import ModelError
from preprocess.preparation import Preparation
from preprocess.prepared import PreparedCase

#: Losses that are not finite are skipped; this many in a row end the training.
MAX_BAD_STEPS = 20
#: Seconds between two saves of the state.
SAVE_EVERY_S = 60.0


@dataclass(frozen=True)
class Job:
    """One training: what, on which cases, for how long (`minutes`, or else `settings.training.steps`), into where."""

    stage: Stage
    settings: Settings
    preparation: Preparation
    train: Sequence[PreparedCase]
    held_out: Sequence[PreparedCase]
    folder: Path
    device: torch.device
    minutes: float | None = None
    resume: bool = False


@dataclass
class _State:
    """What changes during a training; everything that a resumed run needs. `average` is what models are made of."""

    network: UNet3d
    average: UNet3d
    optimizer: torch.optim.AdamW
    step: int = 0
    elapsed_s: float = 0.0
    best: float = -1.0
    skipped: int = 0
    bad_in_a_row: int = 0
    looks: int = 0
    looked_at: tuple[int, Validation] | None = None


@dataclass(frozen=True)
class Outcome:
    """The end of a training: the steps made, and the held-out scores of the best model (None: nothing held out)."""

    steps: int
    best: Validation | None


Show = Callable[[int, float, float, float], None]


def train(job: Job, show: Show) -> Outcome:
    """Train until the limit, calling `show(step, share done, loss, best Dice)` after each step.

    Raises ModelError when the loss stays non-finite or the state to resume does not fit, and Interrupted on SIGINT or
    SIGTERM after saving the state.
    """
    torch.manual_seed(job.settings.training.seed)
    state = _resumed(job) if job.resume else _fresh(job)
    sampler = Sampler(job.train, job.stage, job.settings, job.preparation)
    saved = started = time.monotonic()
    before = state.elapsed_s
    batches = ahead(sampler.batch, state.step)
    with RunLog(job.folder, resume_at=state.step) as log, StopSignals() as stop:
        while (share := _share(job, state)) < 1:
            loss = _step(state, next(batches), job, share)
            state.elapsed_s = before + time.monotonic() - started
            log.step(state.step, loss=loss, learning_rate=learning_rate(job.settings.optimizer, state.step, share))
            show(state.step, share, loss, state.best)
            if job.held_out and int(_share(job, state) * job.settings.training.validations) > state.looks:
                _look(job, state, log)
            if stop.signal or time.monotonic() - saved > SAVE_EVERY_S:
                _save(job, state)
                saved = time.monotonic()
            stop.raise_if_set(f"{job.folder}: state saved at step {state.step}; go on with --resume")
        batches.close()  # type: ignore[attr-defined]
        _save(job, state)
        return _finish(job, state)


def learning_rate(settings: Optimizer, step: int, share: float) -> float:
    """Linear warm-up over the first steps, then a cosine from the full rate to 0 as `share` goes from 0 to 1."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    return settings.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def _share(job: Job, state: _State) -> float:
    if job.minutes is not None:
        return state.elapsed_s / (60 * job.minutes)
    return state.step / job.settings.training.steps


def _fresh(job: Job) -> _State:
    network = _network(job)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=job.settings.optimizer.weight_decay)
    average = _network(job)
    average.load_state_dict(network.state_dict())
    return _State(network, average, optimizer)


def _network(job: Job) -> UNet3d:
    network, deep = job.settings.network, job.settings.loss.deep_levels
    return UNet3d(network.features, len(job.stage.regions), stem=network.stem, deep_levels=deep).to(job.device)


def _step(state: _State, batch: Batch, job: Job, share: float) -> float:
    """One optimiser step; returns the loss, nan when the step was skipped."""
    state.network.train()
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(job.settings.optimizer, state.step, share)
    state.step += 1
    dtype = autocast_dtype(job.device)
    with torch.autocast(job.device.type, dtype, enabled=dtype is not None):
        outputs = state.network.outputs(batch.image.to(job.device))
    loss = deep_loss(outputs, batch.target.to(job.device), batch.trust.to(job.device), job.settings.loss)
    state.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(state.network.parameters(), job.settings.optimizer.clip_norm)
    if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
        state.skipped += 1
        state.bad_in_a_row += 1
        if state.bad_in_a_row >= MAX_BAD_STEPS:
            raise ModelError(
                f"{job.folder}: the loss was not finite {MAX_BAD_STEPS} times in a row at step {state.step}; "
                "lower optimizer.learning_rate and start again"
            )
        return math.nan
    state.bad_in_a_row = 0
    state.optimizer.step()
    _move_average(state, job.settings.optimizer.average_decay)
    return loss.item()


def _move_average(state: _State, decay: float) -> None:
    # Early on the mean follows closely, or it would hold the first random weights for long.
    decay = min(decay, state.step / (state.step + 10))
    with torch.no_grad():
        for mean, now in zip(state.average.parameters(), state.network.parameters(), strict=True):
            mean.lerp_(now, 1 - decay)


def _look(job: Job, state: _State, log: RunLog) -> None:
    """Score the held-out cases, and keep the model when it is the best so far."""
    state.looks = int(_share(job, state) * job.settings.training.validations)
    infer = as_infer(state.average, job.settings.window, job.device)
    result = validate(job.stage, job.preparation, job.held_out, infer)
    state.looked_at = state.step, result
    log.validation(state.step, result)
    score = result.mean(job.stage.goal)
    if score is not None and score >= state.best:  # of equally good models the longest trained
        state.best = score
        save_model(job.folder / "best.safetensors", _model(job, state, result, chosen=True))


def _model(job: Job, state: _State, result: Validation | None, *, chosen: bool = False) -> Model:
    return Model(
        stage=job.stage,
        settings=job.settings.for_prediction,
        recipe=as_table(job.settings),
        preparation=job.preparation,
        weights=cpu_state(state.average),
        scores={"steps": state.step, "held_out": result.table() if result else None},
        trained_on=tuple(sorted(case.survey.content for case in job.train)),
        chosen_on=tuple(sorted(case.survey.content for case in job.held_out)) if chosen else (),
    )


def _finish(job: Job, state: _State) -> Outcome:
    """Write `last`, and `best` where nothing was held out to choose by."""
    last = _last_look(job, state) if job.held_out else None
    save_model(job.folder / "last.safetensors", _model(job, state, last))
    best_path = job.folder / "best.safetensors"
    if last is None or not best_path.exists():
        save_model(best_path, _model(job, state, last))
        return Outcome(state.step, last)
    _, header = load_tensors(best_path)
    return Outcome(state.step, Validation.from_table(header["scores"]["held_out"]))


def _last_look(job: Job, state: _State) -> Validation:
    if state.looked_at is not None and state.looked_at[0] == state.step:
        return state.looked_at[1]
    infer = as_infer(state.average, job.settings.window, job.device)
    return validate(job.stage, job.preparation, job.held_out, infer)


def _save(job: Job, state: _State) -> None:
    """Write the state to resume, and the current model as `last`."""
    tensors: dict[str, Tensor] = {f"weights/{k}": v for k, v in state.network.state_dict().items()}
    tensors |= {f"average/{k}": v for k, v in state.average.state_dict().items()}
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": torch.as_tensor(value) for name, value in moments.items()}
    header = {
        "step": state.step,
        "elapsed_s": state.elapsed_s,
        "best": state.best,
        "skipped": state.skipped,
        "stage": job.stage.name,
        "settings": as_table(job.settings),
        "cases": [c.survey.content for c in job.train],
    }
    save_tensors(job.folder / "resume.safetensors", tensors, header)
    save_model(job.folder / "last.safetensors", _model(job, state, None))


def _resumed(job: Job) -> _State:
    path = job.folder / "resume.safetensors"
    tensors, header = load_tensors(path)
    settings = as_table(replace(job.settings, training=replace(job.settings.training, steps=1)))
    stored = {**header["settings"], "training": {**header["settings"]["training"], "steps": 1}}
    changed = [name for name in settings if _plain(settings[name]) != _plain(stored[name])]
    if header["stage"] != job.stage.name or changed:
        raise ModelError(f"{path}: made with other settings ({', '.join(changed) or 'stage'}); leave them as they were")
    if header["cases"] != [c.survey.content for c in job.train]:
        raise ModelError(f"{path}: made with other training cases; give the same DATA and --fold, or another -o")
    state = _fresh(job)
    state.network.load_state_dict({k[8:]: v for k, v in tensors.items() if k.startswith("weights/")})
    state.average.load_state_dict({k[8:]: v for k, v in tensors.items() if k.startswith("average/")})
    _restore(state.optimizer, {k[10:]: v for k, v in tensors.items() if k.startswith("optimizer/")})
    state.step, state.elapsed_s, state.best = header["step"], header["elapsed_s"], header["best"]
    state.skipped = header["skipped"]
    # Not stored: a run that is extended has looks ahead of it again.
    state.looks = int(_share(job, state) * job.settings.training.validations)
    return state


def _restore(optimizer: torch.optim.AdamW, moments: dict[str, Tensor]) -> None:
    table: dict[int, dict[str, Tensor]] = {}
    for key, value in moments.items():
        index, name = key.split("/")
        table.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": table})


def _plain(value: Any) -> Any:
    """Tuples as lists, as JSON gives them back."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
