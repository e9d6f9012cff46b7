"""`cascade run` over many inputs: find the cases, have each done, let one bad case not stop the others.

This is the side of the process that a user started. It imports no torch: the work is done by workers.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cascade.ahead import Early
from cascade.serving import Ready
from preprocess.errors import BatchError, CascadeError, InputError, missing
from preprocess.inputs import find_images
from preprocess.io import case_name
from preprocess.text import printable
from preprocess.workers import usable_cores

#: Of each case; the report is written last.
MASK, REPORT = "segmentation.nii.gz", "report.json"


@dataclass(frozen=True)
class Outputs:
    """Where results go and how: replace what is there, keep what the stages saw; `names` as `expand` gave them."""

    folder: Path
    overwrite: bool = False
    keep_stages: bool = False
    names: Mapping[Path, str] = field(default_factory=dict)

    def case(self, path: Path) -> str:
        """The name of the case at `path`."""
        return self.names.get(path) or case_name(path)

    def of(self, path: Path) -> Path:
        """The folder of its result."""
        return self.folder / self.case(path)


@dataclass(frozen=True)
class CaseSetup:
    """How a worker gets ready for its cases: the model files, the device, how many workers share the machine.

    `plain_malloc` leaves the C library's allocator as it is.
    """

    liver: Path | None
    tumor: Path | None
    liver_only: bool
    device: str
    mirror: bool
    outputs: Outputs
    jobs: int
    plain_malloc: bool

    def __call__(self, likely: Path | None) -> Ready[Path, str]:
        """Load the models, and read `likely` meanwhile, unless a result of it stands already.

        Raises ModelError and ResourceError.
        """
        from cascade.machine import share_cores, tune_allocator

        # Before torch, which the module below imports, and before any scan.
        share_cores()
        if not self.plain_malloc:
            tune_allocator()
        early = Early(likely) if likely and (self.outputs.overwrite or not self._stands(likely)) else None
        import torch

        from cascade.case import begin_case, load_runner

        if self.jobs > 1:
            torch.set_num_threads(max(1, usable_cores() // self.jobs))
        runner = load_runner(self.liver, self.tumor, self.device, liver_only=self.liver_only, mirror=self.mirror)
        return Ready(partial(begin_case, runner=runner, outputs=self.outputs, early=early), repr(runner.models))

    def _stands(self, path: Path) -> bool:
        return (self.outputs.of(path) / REPORT).exists()


def expand(inputs: Sequence[Path]) -> dict[Path, str]:
    """The images that the arguments stand for, in order, each once, with the names of their cases.

    Of several that have one name, as series `CT` of two patients have, each gets that of the folder it lies in before
    its own; links are not followed for that. Raises InputError where that is not enough.
    """
    paths = dict.fromkeys(image for path in inputs for image in (find_images(path) if path.is_dir() else [path]))
    taken = Counter(map(case_name, paths))
    around = {path: Path(os.path.abspath(path)).parent.name for path in paths}
    names = {p: case_name(p) if taken[case_name(p)] == 1 else f"{around[p]}_{case_name(p)}" for p in paths}
    seen: dict[str, Path] = {}
    for path, name in names.items():
        if (other := seen.setdefault(name, path)) != path:
            raise InputError(f"{other} and {path} have one case name, {name}: run them into two -o folders")
    return names


def require_any(paths: Collection[Path]) -> None:
    """Raises InputError if none of `paths` is there, before anything is made; one of several fails at its turn."""
    if paths and not any(path.exists() for path in paths):
        raise missing(next(iter(paths)))


def report_answers(
    answers: Iterable[tuple[Path, str | CascadeError]], names: Mapping[Path, str], say: Callable[[str], None]
) -> None:
    """Says the answer to each of the cases `names` as it comes; a failed one does not keep the others from being done.

    Raises as `refuse_failures` does.
    """
    failed = {}
    for path, answer in answers:
        if isinstance(answer, str):
            say(answer)
        else:
            if len(names) > 1:
                say(printable(f"{names[path]}: FAILED: {answer}"))
            failed[names[path]] = answer
    refuse_failures(failed, len(names))


def refuse_failures(failed: Mapping[str, CascadeError], cases: int) -> None:
    """Raises the error itself when the only one of `cases` failed, BatchError with the list when one of several did."""
    if failed and cases == 1:
        raise next(iter(failed.values()))
    if failed:
        raise BatchError(f"{len(failed)} of {cases} cases failed: {', '.join(failed)}")
