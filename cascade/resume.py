"""The state of a training on disk: `resume.safetensors`, from which a stopped one goes on.

It is written whole or not at all; the one before it stays as `resume-previous.safetensors`, in case the disk damages
the newest. The best Dice so far is not part of it: `best.safetensors` says it itself, so the two cannot disagree,
whichever was written last when a run was killed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cascade.checkpoint import load_model, require_finite
from cascade.logs import Logged
from cascade.settings import as_table
from cascade.tensorfile import TensorFile, read_tensors, write_tensors
from cascade.training_state import BEST, Job, State, fresh_state
from cascade.validation import Validation
from preprocess.errors import ModelError

RESUME, PREVIOUS = (f"{name}.safetensors" for name in ("resume", "resume-previous"))


def save_state(job: Job, state: State) -> None:
    """Write the state to resume. Raises ModelError, and leaves the last good one, when weights are not finite."""
    tensors: dict[str, Tensor] = {f"weights/{k}": v for k, v in state.network.state_dict().items()}
    tensors |= {f"average/{k}": v for k, v in state.average.state_dict().items()}
    try:
        require_finite(tensors)
    except ModelError as error:
        raise ModelError(
            f"{job.folder} at step {state.step}: {error}; the last good state is kept: lower optimizer.learning_rate "
            "and start again"
        ) from error
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": torch.as_tensor(value) for name, value in moments.items()}
    header = {
        "step": state.step,
        "elapsed_s": state.elapsed_s,
        "skipped": state.skipped,
        "bad_in_a_row": state.bad_in_a_row,
        "look_due": state.look_due,
        "begun_from": state.begun_from,
        "warnings": state.warnings,
        "scaler": state.scaler.state_dict(),
        "minutes": job.minutes,
        "planned_steps": job.planned_steps or job.settings.training.steps,
        "logged": {"rows": state.logged.rows, "losses": state.logged.losses},
        "stage": job.stage.name,
        "settings": as_table(job.settings),
        "cases": [c.survey.content for c in job.train],
        "teachers": job.teachers.names if job.teachers else [],
    }
    _keep_previous(job.folder)
    write_tensors(job.folder / RESUME, tensors, header)


def _keep_previous(folder: Path) -> None:
    """Another name for the state that is about to be replaced; costs no writing. Without hard links there is none."""
    spare = folder / f".{os.urandom(8).hex()}.tmp"
    with suppress(OSError):
        os.link(folder / RESUME, spare)
        os.replace(spare, folder / PREVIOUS)


def resumed_state(job: Job) -> State:
    """The state that `job.folder` was left in. Raises ModelError when there is none or it is of another training.

    A damaged one is replaced by the one before it, with a warning.
    """
    file, warnings = _newest_whole(job.folder)
    header, path = file.header, job.folder / RESUME
    try:
        _refuse_other(path, header, job)
        state = fresh_state(replace(job, init=None))
        for name, network in (("weights/", state.network), ("average/", state.average)):
            network.load_state_dict(_under(name, file.tensors))
        _restore(state.optimizer, _under("optimizer/", file.tensors))
        state.step, state.elapsed_s, state.skipped = header["step"], header["elapsed_s"], header["skipped"]
        state.bad_in_a_row, state.look_due = header["bad_in_a_row"], header["look_due"]
        begun_from = header["begun_from"]
        state.begun_from = begun_from and (tuple(begun_from[0]), tuple(begun_from[1]))
        state.logged = Logged(header["logged"]["rows"], tuple(header["logged"]["losses"]))
        if state.scaler.is_enabled() and header.get("scaler"):  # it may have begun on another device
            state.scaler.load_state_dict(header["scaler"])
        before = tuple(header.get("warnings", ()))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        what = str(error).splitlines()[-1].strip()
        raise ModelError(f"{path}: of another version of cascade ({what}); train again into another -o") from error
    state.best, told = _best_so_far(job)
    state.warnings = tuple(dict.fromkeys((*before, *warnings, *told)))
    return state


@dataclass(frozen=True)
class Limit:
    """How long a run was last to be: `minutes`, or else `steps`; `planned_steps` as in `Job`."""

    minutes: float | None
    steps: int
    planned_steps: int


def limit_of(folder: Path) -> Limit:
    """That of the run in `folder`. Raises ModelError as `resumed_state` does."""
    header = _newest_whole(folder)[0].header
    try:
        steps = int(header["settings"]["training"]["steps"])
        return Limit(header.get("minutes"), steps, int(header.get("planned_steps", steps)))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder / RESUME}: of another version of cascade; train again into another -o") from error


def _newest_whole(folder: Path) -> tuple[TensorFile, tuple[str, ...]]:
    if not ((folder / RESUME).exists() or (folder / PREVIOUS).exists()):
        raise ModelError(f"{folder}: holds no training to resume; leave out --resume to begin one, or give its own -o")
    try:
        return _verified(folder / RESUME), ()
    except ModelError as error:
        try:
            older = _verified(folder / PREVIOUS)
        except ModelError:
            raise error from None
        return older, (f"{error}; went on from the state before it, of step {older.header.get('step')}",)


def _verified(path: Path) -> TensorFile:
    file = read_tensors(path)
    if not file.verified:
        raise ModelError(f"{path}: has no checksum; it is of another version of cascade: train again into another -o")
    return file


def _refuse_other(path: Path, header: dict[str, Any], job: Job) -> None:
    if header["stage"] != job.stage.name:
        raise ModelError(f"{path}: a training of stage {header['stage']}, not {job.stage.name}; give that one's -o")
    settings = as_table(replace(job.settings, training=replace(job.settings.training, steps=1)))
    stored = {**header["settings"], "training": {**header["settings"]["training"], "steps": 1}}
    del settings["policy"]  # decides what becomes of predictions alone: a model may end with another than it began with
    if any(settings[name].keys() != stored.get(name, {}).keys() for name in settings):
        raise ModelError(f"{path}: begun by another version of cascade: end it with that, or train into another -o")
    changed = [name for name in settings if _plain(settings[name]) != _plain(stored.get(name))]
    if changed:
        raise ModelError(f"{path}: made with other settings ({', '.join(changed)}); leave them as they were")
    if header["cases"] != [c.survey.content for c in job.train]:
        raise ModelError(f"{path}: made with other training cases; give the same DATA and --fold, or another -o")
    if header.get("teachers", []) != (job.teachers.names if job.teachers else []):
        raise ModelError(f"{path}: made with other teachers; give the same --teacher, or another -o")


def _best_so_far(job: Job) -> tuple[float, tuple[str, ...]]:
    """The Dice that `best.safetensors` says of itself; -1, so that the next look replaces it, when it is damaged."""
    path = job.folder / BEST
    if not path.exists() or not job.held_out:
        return -1.0, ()
    try:
        held_out = load_model(path, job.stage).scores["held_out"]
        score = Validation.from_table(held_out).mean(job.stage.goal) if held_out else None
    except (ModelError, KeyError, TypeError, AttributeError) as error:
        return -1.0, (f"{error}; the best model so far is lost and will be chosen anew",)
    return -1.0 if score is None else score, ()


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _restore(optimizer: torch.optim.Optimizer, moments: dict[str, Tensor]) -> None:
    weights = dict(enumerate(weight for group in optimizer.param_groups for weight in group["params"]))
    table: dict[int, dict[str, Tensor]] = {}
    for key, value in moments.items():
        index, name = key.split("/")
        # A copy: the optimiser changes its moments in place, and these lie in the buffer of the whole file. In the
        # order of memory of its weight: in another it would be computed in other steps, and to other last bits.
        like = weights[int(index)] if value.dim() else value
        table.setdefault(int(index), {})[name] = torch.empty_like(like, dtype=value.dtype).copy_(value)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": table})


def _plain(value: Any) -> Any:
    """Tuples as lists, as JSON gives them back."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
