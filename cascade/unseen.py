"""Which models run which labelled case: those that have not seen its patient, together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cascade.case import Runner
from cascade.checkpoint import Model, load_stage_models, refuse_differing
from cascade.engine import Engine
from cascade.machine import as_cascade_error
from preprocess.cases import Case
from preprocess.errors import CascadeError
from preprocess.io import read_scan
from preprocess.volume import Volume, content_id

_LOG = logging.getLogger(__name__)

#: For all that a patient's scans are known by: the runner for them, and whether its models have not seen the patient.
Choice = Callable[[AbstractSet[str]], tuple[Runner, bool]]


@dataclass(frozen=True, eq=False)
class Panel:
    """Models of both stages that divide the patients between them; a `Choice` by its `runner`.

    A patient is run by the mean of those models of each stage that were trained on none of its scans, also not in
    another form in which a public dataset has them: the models of a cross-validation together run every case as held
    out, and one that all models are new to is run as by `cascade run` with all of them. So is one that no model of
    a stage is new to, but not as held out.
    """

    livers: tuple[Model, ...]
    tumors: tuple[Model, ...]
    engine: Engine

    @staticmethod
    def load(livers: Sequence[Path], tumors: Sequence[Path], engine: Engine) -> Panel:
        """From the paths of model files, or of folders of trainings by --folds; none of a stage: the installed models.

        Raises ModelError when models of a stage cannot be used or differ in how they prepare scans or decide.
        """
        return Panel(_alike(livers, "liver"), _alike(tumors, "tumor"), cache(engine))

    def runner(self, known_by: AbstractSet[str]) -> tuple[Runner, bool]:
        """The runner for the patient whose scans are `known_by` this, and whether it is held out."""
        new = [[m for m in models if known_by.isdisjoint(m.trained_on)] for models in (self.livers, self.tumors)]
        liver, tumor = new if all(new) else (self.livers, self.tumors)
        return Runner.of(liver, tumor, self.engine), all(map(bool, new))


def _alike(paths: Sequence[Path], stage: str) -> tuple[Model, ...]:
    wanted: Sequence[Path | None] = paths or [None]
    each = {model.sha256: model for path in wanted for model in load_stage_models(path, stage)}  # a file twice is one
    models = tuple(each.values())
    refuse_differing(models, f"the models of --{stage}", "give models of one recipe")
    return models


@dataclass(frozen=True, eq=False)
class Turn:
    """One scan, its content id, and the models that are to run it; `held_out`: they have not seen its patient."""

    case: Case
    volume: Volume
    content: str
    runner: Runner
    held_out: bool

    @property
    def known_by(self) -> tuple[str, ...]:
        """By what a model knows that it has seen this scan (see `Model`)."""
        return (self.content, *self.case.public_patients)


def turns(
    cases: Sequence[Case],
    choice: Choice,
    *,
    held_out_only: bool,
    fail: Callable[[Case, CascadeError], None],
) -> Iterator[Turn]:
    """The turns of `cases`, patient by patient, by the runner of `choice`; with `held_out_only` of those held out.

    A case that cannot be read is handed to `fail` with all scans of its patient: nobody knows whether a model was
    trained on it.
    """
    for patient in _by_patient(cases):
        # All scans of a patient are looked at before any is run, and each is read once.
        try:
            volumes = [read_scan(case.image).volume for case in patient]
        except Exception as error:
            _LOG.info("%s", patient[0].patient, exc_info=error)
            for case in patient:
                fail(case, as_cascade_error(error))
            continue
        contents = [content_id(volume) for volume in volumes]
        runner, held_out = choice({*contents, *(known for case in patient for known in case.public_patients)})
        if held_out_only and not held_out:
            continue
        for case, volume, content in zip(patient, volumes, contents, strict=True):
            yield Turn(case, volume, content, runner, held_out)


def _by_patient(cases: Sequence[Case]) -> list[list[Case]]:
    patients: dict[str, list[Case]] = {}
    for case in cases:
        patients.setdefault(case.patient, []).append(case)
    return list(patients.values())
