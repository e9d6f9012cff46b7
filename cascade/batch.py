"""`cascade run` over many inputs: find the cases, have each done, let one bad case not stop the others.

This is the side of the process that a user started. It imports no torch: the work is done by workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cascade.ahead import Early
from cascade.worker import Ready
from preprocess.errors import BatchError, CascadeError, InputError
from preprocess.inputs import find_images
from preprocess.io import case_name
from preprocess.text import printable
from preprocess.workers import usable_cores

#: Of each case; the report is written last.
MASK, REPORT = "segmentation.nii.gz", "report.json"


@dataclass(frozen=True)
class Outputs:
    """Where results go and how: replace what is there, keep what the stages saw."""

    folder: Path
    overwrite: bool = False
    keep_stages: bool = False


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
        from cascade.machine import tune_allocator

        if not self.plain_malloc:
            tune_allocator()  # before torch, which the module below imports, and before any scan
        early = Early(likely) if likely and (self.outputs.overwrite or not self._stands(likely)) else None
        import torch

        from cascade.case import begin_case, load_runner

        if self.jobs > 1:
            torch.set_num_threads(max(1, usable_cores() // self.jobs))
        runner = load_runner(self.liver, self.tumor, self.device, liver_only=self.liver_only, mirror=self.mirror)
        return Ready(partial(begin_case, runner=runner, outputs=self.outputs, early=early), repr(runner.models))

    def _stands(self, path: Path) -> bool:
        return (self.outputs.folder / case_name(path) / REPORT).exists()


def expand(inputs: Sequence[Path]) -> list[Path]:
    """The images that the arguments stand for, in order, each once. Raises InputError where two have one case name."""
    paths = [image for path in inputs for image in (find_images(path) if path.is_dir() else [path])]
    seen: dict[str, Path] = {}
    for path in paths:
        other = seen.setdefault(case_name(path), path)
        if other != path:
            raise InputError(f"{other} and {path} have one case name, {case_name(path)}: run them into two -o folders")
    return list(seen.values())


def report_answers(answers: Iterable[tuple[Path, str | CascadeError]], cases: int, say: Callable[[str], None]) -> None:
    """Says the answer to each of `cases` inputs as it comes; a failed one does not keep the others from being done.

    Raises as `refuse_failures` does.
    """
    failed = {}
    for path, answer in answers:
        if isinstance(answer, str):
            say(answer)
        else:
            if cases > 1:
                say(printable(f"{case_name(path)}: FAILED: {answer}"))
            failed[case_name(path)] = answer
    refuse_failures(failed, cases)


def refuse_failures(failed: Mapping[str, CascadeError], cases: int) -> None:
    """Raises the error itself when the only one of `cases` failed, BatchError with the list when one of several did."""
    if failed and cases == 1:
        raise next(iter(failed.values()))
    if failed:
        raise BatchError(f"{len(failed)} of {cases} cases failed: {', '.join(failed)}")
