"""What a training is, what changes while it runs, and the model that comes of it. On disk: `cascade.resume`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from cascade.checkpoint import Model, cpu_state
from cascade.logs import Logged
from cascade.machine import autocast_dtype, on_device
from cascade.optimizers import optimizer_for
from cascade.ranks import Ranks
from cascade.settings import Network, Settings, as_table
from cascade.stages import Stage
from cascade.teachers import Teachers
from cascade.unet import UNet3d, unet
from cascade.validation import Validation
from preprocess.errors import ModelError
from preprocess.findings import listed
from preprocess.preparation import Preparation
from preprocess.prepared import PreparedCase

BEST, LAST = "best.safetensors", "last.safetensors"


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
