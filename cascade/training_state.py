"""What a training is, and the state that a resumed one goes on from: made fresh, saved, read back.

`resume.safetensors` is written whole or not at all; the one before it stays as `resume-previous.safetensors`, in case
the disk damages the newest. The best Dice so far is not part of the state: `best.safetensors` says it itself, so the
two cannot disagree, whichever was written last when a run was killed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cascade.checkpoint import Model, cpu_state, load_model, require_finite
from cascade.logs import Logged
from cascade.machine import autocast_dtype, on_device
from cascade.optimizers import optimizer_for
from cascade.ranks import Ranks
from cascade.settings import Network, Settings, as_table
from cascade.stages import Stage
from cascade.teachers import Teachers
from cascade.tensorfile import TensorFile, read_tensors, write_tensors
from cascade.unet import UNet3d, unet
from cascade.validation import Validation
from preprocess.errors import ModelError
from preprocess.findings import listed
from preprocess.preparation import Preparation
from preprocess.prepared import PreparedCase

BEST, LAST, RESUME, PREVIOUS = (f"{name}.safetensors" for name in ("best", "last", "resume", "resume-previous"))


@dataclass(frozen=True)
class Job:
    """One training: what, on which cases, for how long (`minutes`, or else `settings.training.steps`), into where.

    `planned_steps` are those of the settings where the user gave another number for this run alone.
    `init` is the model that a new run begins from; a resumed one does not need it, but its `teachers` again. `ranks`:
    this process among those that train together; only the first touches `folder`.
    """

    stage: Stage
    settings: Settings
    preparation: Preparation
    train: Sequence[PreparedCase]
    held_out: Sequence[PreparedCase]
    folder: Path
    ranks: Ranks
    minutes: float | None = None
    planned_steps: int | None = None
    resume: bool = False
    init: Model | None = None
    teachers: Teachers | None = None

    @property
    def device(self) -> torch.device:
        """What this process computes on."""
        return self.ranks.device


@dataclass
class State:
    """What changes during a training; everything that a resumed run needs. `average` is what models are made of.

    `look_due`: the held-out cases are to be looked at before the next step. `parts`: a batch goes through the network
    in so many, for want of memory. `warnings` are for the report. `begun_from` is what the model that it began from
    has seen: (trained on, chosen on), None when it began from random weights. `scaler` multiplies the loss in float16,
    where small gradients would be 0 otherwise, by as much as they bear (Micikevicius et al., Mixed Precision Training,
    ICLR 2018), and does nothing in what has the range of float32.
    """

    network: UNet3d
    average: UNet3d
    optimizer: torch.optim.Optimizer
    step: int = 0
    elapsed_s: float = 0.0
    best: float = -1.0
    skipped: int = 0
    bad_in_a_row: int = 0
    look_due: bool = False
    looked_at: tuple[int, Validation] | None = None
    parts: int = 1
    logged: Logged = field(default_factory=Logged)
    warnings: tuple[str, ...] = ()
    begun_from: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    scaler: torch.amp.GradScaler = field(default_factory=lambda: torch.amp.GradScaler(enabled=False))


def fresh_state(job: Job) -> State:
    """The state before the first step. Raises ModelError when the model to begin from is of another network."""
    network = _network(job)
    state_of_init = _begin_from(job.init, network, job) if job.init else {}
    optimizer = optimizer_for(network, job.settings.optimizer)
    average = _network(job)
    average.load_state_dict(network.state_dict())
    scaler = torch.amp.GradScaler(job.device.type, enabled=autocast_dtype(job.device) == torch.float16)
    state = State(network, average, optimizer, scaler=scaler, **state_of_init)
    if job.teachers:
        seen = job.teachers.trained_on | job.teachers.chosen_on
        state.warnings += _seen_before("--teacher", seen, job)
    return state


def _begin_from(model: Model, network: UNet3d, job: Job) -> dict[str, Any]:
    """Give `network` the weights of `model`; what a state has to remember of that."""
    theirs, ours = model.settings.network, job.settings.network
    if theirs != ours:
        raise ModelError(
            f"--init: a network of {_spoken(theirs)}; the settings say {_spoken(ours)}: set [network] to the "
            "model's, in plan.toml or by --set"
        )
    warnings = []
    if (wanted := model.preparation.window_hu) != (window := job.preparation.window_hu):
        warnings.append(f"--init: the model learned HU {list(wanted)}, these scans are prepared at {list(window)}")
    if (learned := model.preparation.spacing_mm) != (spacing := job.preparation.spacing_mm):
        warnings.append(f"--init: the model learned at {list(learned)} mm, these scans are prepared at {list(spacing)}")
    network.load_state_dict(dict(model.weights), strict=False)  # the outputs that only training has stay as they are
    warnings += _seen_before("--init", {*model.trained_on, *model.chosen_on}, job)
    return {"begun_from": (model.trained_on, model.chosen_on), "warnings": tuple(warnings)}


def _seen_before(option: str, seen: set[str], job: Job) -> tuple[str, ...]:
    known = [case.name for case in job.held_out if seen.intersection(case.known_by)]
    return (f"{option} has seen {listed(known)}, which is held out here: its score is no score",) if known else ()


def _spoken(network: Network) -> str:
    return ", ".join(f"{key} {list(v) if isinstance(v, tuple) else v}" for key, v in asdict(network).items())


def _network(job: Job) -> UNet3d:
    network = unet(job.settings.network, len(job.stage.regions), job.settings.loss.deep_levels)
    return on_device(network, job.device)


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


def model_of(job: Job, state: State, result: Validation | None, *, chosen: bool = False) -> Model:
    """The running mean of the weights as a model; `chosen`: picked by its score on the held-out cases.

    What the model it began from and its teachers have seen, it has seen too.
    """
    trained_on, chosen_on = map(set, state.begun_from or ((), ()))
    if job.teachers:
        trained_on, chosen_on = trained_on | job.teachers.trained_on, chosen_on | job.teachers.chosen_on
    picked_on = [known for case in job.held_out for known in case.known_by] if chosen else []
    return Model(
        stage=job.stage,
        settings=job.settings.for_prediction,
        recipe=as_table(job.settings),
        preparation=job.preparation,
        weights=cpu_state(state.average),
        scores={"steps": state.step, "held_out": result.table() if result else None},
        trained_on=tuple(sorted({*trained_on, *(known for case in job.train for known in case.known_by)})),
        chosen_on=tuple(sorted({*chosen_on, *picked_on})),
    )
