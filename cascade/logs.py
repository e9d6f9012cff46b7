"""What a training leaves to look at: TensorBoard events and `metrics.jsonl`, one JSON object a line."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import find_boundaries

from cascade.validation import Picture, Validation
from preprocess.errors import ResourceError
from preprocess.files import write_all, write_text

_LOG = logging.getLogger(__name__)

#: Steps between two lines of the training loss.
EVERY = 10


@dataclass(frozen=True)
class Logged:
    """How far the log is: lines in `metrics.jsonl`, and losses (None: not finite) that wait for the next one."""

    rows: int = 0
    losses: tuple[float | None, ...] = ()


class RunLog:
    """Writes both logs of one run; a resumed run drops what lies beyond `resume_at`.

    Raises ResourceError when `metrics.jsonl` cannot be written. TensorBoard is a comfort: when it is not installed or
    fails, that is said once and the training goes on without it.
    """

    def __init__(self, folder: Path, resume_at: Logged, step: int) -> None:
        self._path = folder / "metrics.jsonl"
        kept = self._path.read_text("utf-8", "replace").splitlines()[: resume_at.rows] if self._path.exists() else []
        write_text(self._path, "".join(f"{line}\n" for line in kept))
        self._rows, self._losses = len(kept), list(resume_at.losses)
        self._seconds: dict[str, float] = {}
        self._lines = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        self._board: Any = None
        self._on_board(lambda _: self._open_board(folder / "tensorboard", step))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._lines)
        if self._board is not None:
            self._on_board(lambda board: board.close())

    @property
    def logged(self) -> Logged:
        """How far the log is now; a run that is resumed with it gives the same log, but for the seconds in it."""
        return Logged(self._rows, tuple(self._losses))

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Count the seconds of the block for the next line: "wait" for a batch, "compute", "look" or "save"."""
        start = time.monotonic()
        yield
        self._seconds[what] = self._seconds.get(what, 0.0) + time.monotonic() - start

    def _timings(self) -> dict[str, float]:
        """Seconds since the last line by what they went into; `utilisation`: the share of the steps but waiting."""
        seconds, self._seconds = self._seconds, {}
        compute = seconds.get("compute", 0.0)
        steps = compute + seconds.get("wait", 0.0)
        rounded = {f"{what}_s": round(value, 3) for what, value in seconds.items()}
        return {**rounded, "utilisation": round(compute / steps, 3)} if steps else rounded

    def step(self, step: int, *, loss: float, learning_rate: float) -> None:
        """Note one training step; every `EVERY` steps the mean loss is written."""
        self._losses.append(loss if math.isfinite(loss) else None)
        if step % EVERY == 0:
            finite = [value for value in self._losses if value is not None]
            mean = sum(finite) / len(finite) if finite else None
            skipped = len(self._losses) - len(finite)
            self._write(step, {"loss": mean, "learning_rate": learning_rate, "skipped": skipped, **self._timings()})
            self._losses.clear()

    def validation(self, step: int, result: Validation) -> None:
        """Write the held-out Dice, the lesions found by size, which class is taken for which and the seconds since the
        last line, and for TensorBoard a picture with contours (see `contours`).
        """
        self._write(step, {**result.means(), **lesion_counts(result), **result.confused(), **self._timings()})
        if self._board is not None:
            picture = result.picture
            if picture is not None:
                self._on_board(lambda b: b.add_image("held out", contours(picture), step, dataformats="HWC"))
            self._on_board(lambda board: board.flush())

    def _write(self, step: int, values: dict[str, Any]) -> None:
        line = json.dumps({"step": step, **values}, allow_nan=False) + "\n"
        try:
            write_all(self._lines, line.encode())
        except OSError as error:
            raise ResourceError(
                f"{self._path} cannot be written ({error.strerror}); free space and go on with --resume"
            ) from error
        self._rows += 1
        for name, value in values.items():
            if value is not None and self._board is not None:
                self._on_board(lambda b, n=name, v=value: b.add_scalar(board_name(n), v, step))  # type: ignore[misc]

    def _open_board(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def _on_board(self, act: Callable[[Any], object]) -> None:
        try:
            act(self._board)
        except Exception as error:  # whatever TensorBoard fails with, it is no reason to stop
            _LOG.warning("no more TensorBoard events (%s); the training goes on, see metrics.jsonl", error)
            self._board = None


class NoLog(RunLog):
    """Writes nothing: for a process that leaves that to another."""

    def __init__(self) -> None:
        self._rows, self._losses, self._seconds, self._board = 0, [], {}, None

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def _write(self, step: int, values: dict[str, Any]) -> None:
        pass


def lesion_counts(result: Validation) -> dict[str, float]:
    """Numbers for the log by size class, such as `lesions_found_<10mm` of `lesions_all_<10mm`, and the false ones."""
    counts = result.found()
    rows: dict[str, float] = {}
    for size, count in counts.items():
        rows |= {f"lesions_found_{size}mm": count.detected, f"lesions_all_{size}mm": count.truth}
    return rows | ({"lesions_false": sum(count.false for count in counts.values())} if counts else {})


def board_name(name: str) -> str:
    """The name of a curve in TensorBoard, which puts what stands before a slash into one group."""
    for part, group in (("_dice", "/dice"), ("lesions_", "lesions/")):
        name = name.replace(part, group)
    if "_as_" in name:
        return f"confusion/{name}"
    return f"time/{name}" if name.endswith("_s") or name == "utilisation" else name


def contours(picture: Picture) -> NDArray[np.uint8]:
    """The slice as RGB (y, x, 3) with the contours of the true (green) and the predicted (red) classes."""
    grey = ((picture.image.clip(-1, 1) + 1) * 127.5).astype(np.uint8)
    rgb = np.stack([grey] * 3, axis=-1)
    rgb[find_boundaries(picture.truth, mode="inner")] = (0, 255, 0)
    rgb[find_boundaries(picture.prediction, mode="inner")] = (255, 0, 0)
    return rgb
