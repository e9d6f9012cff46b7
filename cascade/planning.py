"""From a dataset to its `plan.toml`: what `cascade prepare` asks before it builds the arrays, and writes after it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cascade.machine import autocast_dtype, memory_bytes, pick_device
from cascade.memory import training_bytes
from cascade.plan_file import PLAN, Sized, is_edited, plan_text
from cascade.settings import Settings, load_settings, read_table
from cascade.sizing import Budget, Sizer
from cascade.stages import STAGES
from preprocess.build import StagePlan
from preprocess.errors import UsageError
from preprocess.files import write_text
from preprocess.geometry import index3
from preprocess.prepared import PreparedDataset

#: Share of the memory that a plan may fill: what else runs, and what the estimate leaves out, takes some.
SHARE = 0.8


@dataclass(frozen=True)
class Basis:
    """What the plan of the dataset in `folder` starts from: settings, and the keys of them that are not to change.

    `kept`: a person wrote or changed the plan that is there; it holds.
    """

    folder: Path
    settings: Mapping[str, Settings]
    fixed: Mapping[str, frozenset[str]]
    kept: bool

    def stage_plans(self) -> dict[str, StagePlan]:
        """What `prepare_dataset` needs to know of each stage."""
        return {
            name: StagePlan(
                self.settings[name].preparation,
                stage.training_box,
                fixed_window=self.kept or "preparation.window_hu" in self.fixed[name],
            )
            for name, stage in STAGES.items()
        }

    def write(self, dataset: PreparedDataset, memory_gb: float | None) -> str:
        """Write the plan, unless it is kept; what to tell of it."""
        path = self.folder / PLAN
        if self.kept:
            return f"{path} was edited and is kept; delete it for a new plan"
        budget = _budget(memory_gb)
        stages = {name: self._sized(name, dataset, budget) for name in STAGES}
        write_text(path, plan_text(dataset, stages, budget.told))
        short = [
            f"warning: a training step of stage {name} takes about {sized.bytes / 1e9:.2g} GB, more than the "
            f"{budget.bytes / 1e9:.2g} GB that there are for it; set smaller sizes in {PLAN}"
            for name, sized in stages.items()
            if sized.bytes > budget.bytes
        ]
        return "\n".join([*short, f"plan for training: {path}"])

    def _sized(self, name: str, dataset: PreparedDataset, budget: Budget) -> Sized:
        half = autocast_dtype(pick_device("auto")) is not None

        def cost(settings: Settings) -> int:
            return training_bytes(settings, len(STAGES[name].regions), half=half)

        scans = [index3(case.image(name).shape) for case in dataset.cases]
        recipe = self.settings[name]
        chosen = Sizer(recipe, scans, self.fixed[name], cost).sized(budget)
        return Sized(recipe, chosen, cost(chosen), self.fixed[name])


def basis(folder: Path, configs: Mapping[str, Path | None]) -> Basis:
    """The recipe with a kept plan and the user's files over it.

    Raises UsageError when one of them cannot be used, or when a file says to prepare scans in another way than the kept
    plan, which would then refuse to train on them.
    """
    kept = is_edited(folder / PLAN)
    files = {name: [file] if (file := configs[name]) else [] for name in STAGES}
    plan = folder / PLAN if kept else None
    settings = {name: load_settings(name, files[name], plan=plan) for name in STAGES}
    for name in STAGES if kept else ():
        planned = load_settings(name, plan=plan).preparation
        if "preparation" not in read_table(folder / PLAN).get(name, {}) or planned.finest_mm != planned.coarsest_mm:
            continue
        if not settings[name].preparation.allows(planned):
            raise UsageError(
                f"{configs[name]}: its [preparation] excludes that of {folder / PLAN}, which was edited and is kept: "
                f"change [{name}.preparation] there, or delete it for a new plan"
            )
        settings[name] = replace(settings[name], preparation=planned)
    return Basis(folder, settings, {name: _keys(files[name]) for name in STAGES}, kept)


def _keys(files: Iterable[Path]) -> frozenset[str]:
    tables = [table for file in files for table in read_table(file).items()]
    return frozenset(f"{name}.{key}" for name, table in tables for key in table)


def _budget(memory_gb: float | None) -> Budget:
    if memory_gb is not None:
        return Budget(memory_gb * 1e9, True, f"Made for trainings of up to {memory_gb:g} GB (--memory).")
    device = pick_device("auto")
    there = memory_bytes(device)
    what = f"a GPU of {there / 1e9:.3g} GB" if device.type == "cuda" else f"{there / 1e9:.3g} GB without a GPU"
    told = (
        f"Made for {what}: sizes are the recipe's where they fit, since larger ones cost time and were not measured to "
        "be better; --memory GB lets them grow."
    )
    return Budget(SHARE * there, False, told)
