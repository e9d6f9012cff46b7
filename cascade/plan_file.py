"""`plan.toml` of a prepared dataset: what `cascade prepare` chose for both stages, to read and to edit.

Training lays its tables `[liver.*]` and `[tumor.*]` over the shipped recipe. The file holds a key of its own text, so
that one which was edited is told from one that may be replaced.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cascade.settings import Settings, load_settings, read_table
from preprocess.errors import InputError
from preprocess.preparation import Preparation, SpacingPlan
from preprocess.prepared import PreparedCase, PreparedDataset

PLAN = "plan.toml"

_HEAD = """\
# What cascade prepare chose for this dataset. Training lays it over the shipped recipe, and --config and --set over it.
# Any setting of a stage may be changed or added here. An edited plan is kept when the dataset is prepared again, which
# a change of [*.preparation] needs. Delete the file to get a new plan.
"""
#: What a plan takes over as it is, and why.
_NETWORK = {
    "stem": "1, 2 or 4 voxels of the image to one of the finest level; 2 takes a third of the time of 1",
    "encoder": 'or "residual"; no training that counts was made with that',
    "blocks": "of two convolutions a level; more take more time, and were not measured to be better",
}
_KEY = re.compile(r"^# key [0-9a-f]{16}\n", re.MULTILINE)


@dataclass(frozen=True)
class Sized:
    """A stage's settings beside the recipe that they come from, and what a training step with them takes.

    `given` are the keys ("table.key") of the recipe that a user's file set.
    """

    recipe: Settings
    chosen: Settings
    bytes: int
    given: frozenset[str] = frozenset()


def plan_text(dataset: PreparedDataset, stages: Mapping[str, Sized], told: str) -> str:
    """The text of `plan.toml`; `told` says of the memory that it was made for."""
    patients = len({case.patient for case in dataset.cases})
    body = f"# {len(dataset.cases)} cases of {patients} patients. {told}\n"
    for stage, sized in stages.items():
        body += "".join(_tables(stage, sized, dataset))
    return f"{_HEAD}# key {_key(_HEAD + body)}\n{body}"


def is_edited(path: Path) -> bool:
    """Whether there is a plan that somebody wrote or changed. Raises UsageError when it cannot be read."""
    if not path.exists():
        return False
    read_table(path)  # says what is wrong with it
    text = path.read_text("utf-8")
    return f"# key {_key(_KEY.sub('', text))}\n" not in text


def plan_of(folder: Path, stage: str, dataset: PreparedDataset) -> Path | None:
    """The plan of the dataset in `folder`, None where there is none: it was prepared before there were plans.

    Raises UsageError when it cannot be used, and InputError when it says to prepare scans in another way than these
    are prepared.
    """
    path = folder / PLAN
    if not path.exists():
        return None
    planned, done = _resolved(load_settings(stage, plan=path).preparation, dataset), dataset.preparations[stage]
    if "preparation" in read_table(path).get(stage, {}) and planned != done:
        raise InputError(
            f"{path}: [{stage}.preparation] says {_way(planned)}; the scans are prepared at {_way(done)}: run cascade "
            "prepare again"
        )
    return path


def settings_for(
    folder: Path, stage: str, dataset: PreparedDataset, configs: Sequence[Path], assignments: Sequence[str]
) -> Settings:
    """What a training on the dataset in `folder` is made with: recipe, plan, the user's files and assignments.

    Raises UsageError when one of these cannot be used, and InputError when one says to prepare scans in another way
    than these are prepared: training cannot change that any more.
    """
    plan = plan_of(folder, stage, dataset)
    settings = load_settings(stage, configs, assignments, plan)
    asked, done = settings.preparation, dataset.preparations[stage]
    if asked != load_settings(stage, plan=plan).preparation and (got := _resolved(asked, dataset)) != done:
        raise InputError(
            f"--config or --set: [preparation] says {_way(got)}; the scans in {folder} are prepared at {_way(done)}: "
            f"give it to cascade prepare --{stage}-config"
        )
    return settings


def _resolved(asked: SpacingPlan, dataset: PreparedDataset) -> Preparation:
    return asked.resolved([case.survey.spacing_mm for case in dataset.cases])


def _way(preparation: Preparation) -> str:
    return f"{_by(preparation.spacing_mm)} mm, {list(preparation.window_hu)} HU"


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _tables(stage: str, sized: Sized, dataset: PreparedDataset) -> Iterator[str]:
    lines = _chosen(stage, sized, dataset)
    for place in sorted(sized.given):
        table, key = place.split(".")
        value = getattr(getattr(sized.recipe, table), key)
        lines.setdefault(table, {}).setdefault(key, f"{_toml(value)}  # as it was set")
    for table, rows in lines.items():
        yield f"\n[{stage}.{table}]\n"
        yield from (f"{key} = {row}\n" for key, row in rows.items())


def _chosen(stage: str, sized: Sized, dataset: PreparedDataset) -> dict[str, dict[str, str]]:
    """By table and key what the plan itself decides, each value with its reason."""
    chosen, preparation = sized.chosen, dataset.preparations[stage]
    spacing, patch = np.array(preparation.spacing_mm), np.array(chosen.sampling.patch)
    mm = list(preparation.spacing_mm)
    scans = np.array([case.image(stage).shape for case in dataset.cases])
    seen = f"{_by(patch * spacing)} mm; scans have {_by(scans.min(0))} to {_by(scans.max(0))} voxels, median "
    network, multiple = chosen.network, chosen.network.multiple
    levels = f"{len(network.features)} levels, the coarsest of {_by(patch // multiple)} voxels of "
    return {
        "preparation": {
            "finest_mm": f"{mm}  # {_spacing_told(sized.recipe, dataset)}",
            "coarsest_mm": f"{mm}  # equal, so fixed{_lesions_told(spacing, dataset)}",
            "window_hu": f"{list(preparation.window_hu)}  # becomes -1..1, the rest is clipped; {_hu_told(dataset)}",
        },
        "sampling": {
            "patch": f"{list(chosen.sampling.patch)}  # {seen}{_by(np.median(scans, 0))}"
            + _versus(sized, "sampling", "patch"),
            "batch": f"{chosen.sampling.batch}  # patches a step; a training step takes about "
            f"{sized.bytes / 1e9:.2g} GB{_versus(sized, 'sampling', 'batch')}",
        },
        "network": {
            "features": f"{list(network.features)}  # {levels}{_by(multiple * spacing)} mm"
            + _versus(sized, "network", "features"),
            # Whatever else decides about the memory and the multiples of a patch must stay as it was planned with.
            **{
                key: f"{json.dumps(getattr(network, key))}  # {why}{_versus(sized, 'network', key)}"
                for key, why in _NETWORK.items()
            },
        },
        "window": {
            "size": f"{list(chosen.window.size)}  # of prediction: to the patch as in the recipe, or as it was set"
        },
    }


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(each)}" for key, each in value.items()) + " }"
    return json.dumps(value)


def _versus(sized: Sized, table: str, key: str) -> str:
    recipe, chosen = (getattr(getattr(settings, table), key) for settings in (sized.recipe, sized.chosen))
    return "; the recipe's" if recipe == chosen else f"; the recipe has {str(recipe).strip('()')}"


def _spacing_told(recipe: Settings, dataset: PreparedDataset) -> str:
    each = np.array([case.survey.spacing_mm for case in dataset.cases])
    limits = recipe.preparation
    return (
        f"mm (z, y, x): the median {_by(np.median(each, 0))} of {_by(each.min(0))} to {_by(each.max(0))}, "
        f"held between {_by(limits.finest_mm)} and {_by(limits.coarsest_mm)}"
    )


def _lesions_told(spacing: np.ndarray[tuple[int], np.dtype[np.float64]], dataset: PreparedDataset) -> str:
    sizes = [mm for case in dataset.cases if case.survey.measures for mm in case.survey.measures.lesion_mm]
    if not sizes:
        return "; no tumour was measured"
    low, middle, high = (float(v) for v in np.percentile(sizes, (10, 50, 90)))
    voxels = low / float(np.prod(spacing)) ** (1 / 3)
    return (
        f"; {len(sizes)} tumours, median {middle:.3g} mm, 10 % below {low:.3g} ({voxels:.2g} voxels), above {high:.3g}"
    )


def _hu_told(dataset: PreparedDataset) -> str:
    return ", ".join(_hu_of(name, dataset.cases) for name in ("liver", "tumor"))


def _hu_of(name: str, cases: tuple[PreparedCase, ...]) -> str:
    each = [getattr(case.survey.measures, f"{name}_hu", ()) for case in cases]
    each = [hu for hu in each if hu]
    if not each:
        return f"no {name} was measured"
    low, middle, high = np.median(np.array(each), axis=0)
    return f"99 % of {name} lie in {low:.0f} to {high:.0f} HU, median {middle:.0f}"


def _by(values: object) -> str:
    return " x ".join(f"{float(value):.3g}" for value in np.asarray(values))
