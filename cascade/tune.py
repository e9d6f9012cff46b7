"""`cascade tune`: choose the thresholds of stage 2 on labelled cases that the models have not seen, and store them.

Thresholds chosen on the scans that a network learned from suit a network that knows the answers. So each case is run
by models that have not seen its patient, as the folds of a cross-validation do for every case, and one policy is chosen
for all of them (as nnU-Net does with its post-processing: Isensee et al., Nature Methods 18, 203-211, 2021).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from cascade.batch import refuse_failures
from cascade.checkpoint import Model, save_model
from cascade.engine import Engine
from cascade.locks import locked
from cascade.machine import as_cascade_error
from cascade.stage_report import Failures
from cascade.sweep import CANDIDATES, Candidates, CaseTables, Place, sweep
from cascade.tuning import GOAL, Score, choose, left_out, score
from cascade.unseen import Panel, turns
from evaluate.text import aligned, number
from preprocess.cases import Case
from preprocess.errors import CascadeError, InputError, UsageError
from preprocess.files import write_json
from preprocess.layouts import find_cases, read_label
from stage2_tumor.recipe import TumorPolicy

_LOG = logging.getLogger(__name__)

Say = Callable[[str], None]
_THRESHOLDS = tuple(CANDIDATES.__dataclass_fields__)


@dataclass(frozen=True, eq=False)
class _Trial:
    """The tables of all cases that were run, what the scans are known by, and the three ways to choose for them."""

    candidates: Candidates
    present: TumorPolicy
    tables: tuple[CaseTables, ...]
    chosen_on: tuple[str, ...]

    @property
    def places(self) -> dict[str, Place | Mapping[str, Place]]:
        """`present`, `chosen` and, where it is known, `left_out`: for each patient what the others choose."""
        present = self.candidates.place(self.present)
        known = left_out(self.tables, present)
        places: dict[str, Place | Mapping[str, Place]] = {"present": present, "chosen": choose(self.tables, present)}
        return {**places, "left_out": known} if known else places


def tune(source: Path, output: Path, models: tuple[Sequence[Path], Sequence[Path]], engine: Engine, say: Say) -> None:
    """Choose stage 2's policy on the labelled cases of `source`; write its models with that policy into `output`.

    `models` are the paths for both stages, see `Panel.load`, which also says which models run a case. Raises InputError
    when the models have seen every patient, UsageError when `output` holds models, ModelError as `Panel.load` does, and
    as `refuse_failures` for cases that could not be run: the choice is then made without them.
    """
    panel = Panel.load(*models, engine)
    cases = [case for case in find_cases(source) if case.label is not None and case.liver_label != "none"]
    if not cases:
        raise InputError(f"{source}: no case with a labelled liver to choose on")
    with locked(output):
        if list(output.glob("*.safetensors")) or list(output.glob("fold-*")):
            raise UsageError(f"{output}: holds models already; choose another -o")
        trial, failures = _run(cases, panel, say)
        if not (trial.tables or failures):
            raise InputError(
                f"{source}: the models have seen every labelled patient; give models of --folds, or others"
            )
        if trial.tables:
            _finish(output, panel.tumors, trial, say)
    refuse_failures(failures, len(cases))


def _run(cases: Sequence[Case], panel: Panel, say: Say) -> tuple[_Trial, Failures]:
    """Every case whose patient is new to models of both stages, one at a time; only its tables are kept."""
    present = cast(TumorPolicy, panel.tumors[0].settings.policy)
    candidates = CANDIDATES.including(present)
    failures: Failures = {}
    done: list[tuple[tuple[str, ...], CaseTables]] = []

    def fail(case: Case, error: CascadeError) -> None:
        failures[case.name] = error
        say(f"{case.name}: FAILED: {error}")

    for turn in turns(cases, panel.runner, held_out_only=True, fail=fail):
        liver, tumor = turn.runner.liver, turn.runner.tumor
        assert tumor is not None
        try:
            truth = read_label(turn.case, turn.volume.grid)
            done.append((turn.known_by, sweep(turn.case, turn.volume, truth, (liver, tumor), candidates)))
        except Exception as error:  # want of memory, above all: no case may cost the others
            _LOG.info("%s", turn.case.name, exc_info=error)
            fail(turn.case, as_cascade_error(error))
            continue
        say(f"{turn.case.name}: done")
    chosen_on = tuple(dict.fromkeys(name for known_by, _ in done for name in known_by))
    return _Trial(candidates, present, tuple(tables for _, tables in done), chosen_on), failures


def _finish(output: Path, models: Sequence[Model], trial: _Trial, say: Say) -> None:
    """Write the models with their new policy, `tune.json`, and say what was chosen and what it scores."""
    places = trial.places
    chosen = trial.candidates.policy(cast(Place, places["chosen"]), trial.present)
    scores = {way: score(trial.tables, place) for way, place in places.items()}
    patients = len({case.patient for case in trial.tables})
    record = {
        "goal": GOAL,
        "cases": len(trial.tables),
        "patients": patients,
        **{w: asdict(s) for w, s in scores.items()},
    }
    names = [f"fold-{k}/best" for k in range(len(models))] if len(models) > 1 else ["tumor"]
    for name, model in zip(names, models, strict=True):
        path = output / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        save_model(path, with_policy(model, chosen, record, trial.chosen_on))
    rows = [
        {"case": case.case, **{way: asdict(score([case], place)) for way, place in places.items()}}
        for case in trial.tables
    ]
    policies = {"present": asdict(trial.present), "chosen": asdict(chosen)}
    write_json(output / "tune.json", {"policy": policies, **record, "by_case": rows})
    say(_text(scores, patients))
    for name in _THRESHOLDS:
        before, after = getattr(trial.present, name), getattr(chosen, name)
        say(f"  policy.{name} {before:g}" + (f" -> {after:g}" if after != before else ", as it was"))
    say(f"stage 2 with this policy: --tumor {output if len(models) > 1 else output / 'tumor.safetensors'}")


def with_policy(model: Model, policy: TumorPolicy, record: Mapping[str, Any], chosen_on: Sequence[str]) -> Model:
    """`model` with another policy, chosen on the scans that are known as `chosen_on` (see `Model`), as `record` tells.

    From now on these scans have chosen the model, so a score on them flatters.
    """
    return replace(
        model,
        settings=replace(model.settings, policy=policy),
        recipe={**model.recipe, "policy": asdict(policy)},
        scores={**model.scores, "policy": dict(record)},
        chosen_on=tuple(sorted({*model.chosen_on, *chosen_on})),
    )


def _text(scores: Mapping[str, Score], patients: int) -> str:
    """The scores side by side."""
    columns = [("", *(way.replace("_", " ") for way in scores))]
    columns.append(("liver Dice", *(number(s.liver_dice) for s in scores.values())))
    if scores["chosen"].tumor_dice is None:
        told = "no tumours are labelled: their thresholds stay as they were"
    else:
        columns += [
            ("tumour Dice", *(number(s.tumor_dice) for s in scores.values())),
            ("tumours found", *(f"{s.found} of {s.lesions}" for s in scores.values())),
            ("false ones", *(str(s.false) for s in scores.values())),
            ("most in a case", *(str(s.most_false) for s in scores.values())),
        ]
        told = ""
    lines = [f"thresholds for {patients} patients; left out: chosen without the patient that they are applied to"]
    if "left_out" not in scores:
        lines = ["too few patients to say what the choice is worth to others: the scores flatter"]
    elif not _better(scores["left_out"], scores["present"]):
        lines.append("note: for patients that they were not chosen on they are no better than the present ones")
    return "\n".join([aligned(columns).rstrip("\n"), *lines, *([told] if told else [])])


def _better(one: Score, other: Score) -> bool:
    return one.liver_dice + (one.tumor_dice or 0.0) > other.liver_dice + (other.tumor_dice or 0.0)
