"""Which models run which labelled case: those that have not seen its patient."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from cascade.case import Runner
from cascade.machine import as_cascade_error
from preprocess.cases import Case
from preprocess.errors import CascadeError
from preprocess.io import read_scan
from preprocess.volume import Volume, content_id

_LOG = logging.getLogger(__name__)


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
    runners: Sequence[Runner],
    *,
    held_out_only: bool,
    fail: Callable[[Case, CascadeError], None],
) -> Iterator[Turn]:
    """The turns of `cases`, patient by patient; with `held_out_only` of those that are held out.

    Each patient is given to the first of `runners` that was trained on none of the patient's scans, also not in another
    form in which a public dataset has them: the models of a cross-validation together run every case as held out. A
    patient that all have seen is the first's, not held out. A case that cannot be read is handed to `fail` with all
    scans of its patient: nobody knows whether a model was trained on it.
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
        known_by = {*contents, *(known for case in patient for known in case.public_patients)}
        unseen = [runner for runner in runners if not runner.trained_on & known_by]
        if held_out_only and not unseen:
            continue
        runner = (unseen or runners)[0]
        for case, volume, content in zip(patient, volumes, contents, strict=True):
            yield Turn(case, volume, content, runner, bool(unseen))


def _by_patient(cases: Sequence[Case]) -> list[list[Case]]:
    patients: dict[str, list[Case]] = {}
    for case in cases:
        patients.setdefault(case.patient, []).append(case)
    return list(patients.values())
