"""What a training leaves to look at: TensorBoard events and `metrics.jsonl`, one JSON object a line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import find_boundaries
from torch.utils.tensorboard import SummaryWriter

from cascade.validation import Picture, Validation

#: Steps between two lines of the training loss.
EVERY = 10


class RunLog:
    """Writes both logs of one run; a resumed run drops what lies after the step that it resumes at."""

    def __init__(self, folder: Path, resume_at: int) -> None:
        self._path = folder / "metrics.jsonl"
        kept = []
        if resume_at and self._path.exists():
            rows = (line for line in self._path.read_text("utf-8").splitlines() if line.endswith("}"))
            kept = [line for line in rows if json.loads(line)["step"] <= resume_at]
        self._path.write_text("".join(f"{line}\n" for line in kept), "utf-8")
        self._lines = self._path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=resume_at or None)
        self._losses: list[float] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        self._board.close()

    def step(self, step: int, *, loss: float, learning_rate: float) -> None:
        """Note one training step; every `EVERY` steps the mean loss is written."""
        self._losses.append(loss)
        if step % EVERY == 0:
            finite = [value for value in self._losses if math.isfinite(value)]
            mean = sum(finite) / len(finite) if finite else None
            self._write(
                step, {"loss": mean, "learning_rate": learning_rate, "skipped": len(self._losses) - len(finite)}
            )
            self._losses.clear()

    def validation(self, step: int, result: Validation) -> None:
        """Write the held-out Dice, and a picture with the contours of truth (green) and prediction (red)."""
        self._write(step, result.means())
        if result.picture is not None:
            self._board.add_image("held out", contours(result.picture), step, dataformats="HWC")
        self._board.flush()

    def _write(self, step: int, values: dict[str, Any]) -> None:
        self._lines.write(json.dumps({"step": step, **values}, allow_nan=False) + "\n")
        self._lines.flush()
        for name, value in values.items():
            if value is not None:
                self._board.add_scalar(name.replace("_dice", "/dice"), value, step)


def contours(picture: Picture) -> NDArray[np.uint8]:
    """The slice as RGB (y, x, 3) with the contours of the true (green) and the predicted (red) classes."""
    grey = ((picture.image.clip(-1, 1) + 1) * 127.5).astype(np.uint8)
    rgb = np.stack([grey] * 3, axis=-1)
    rgb[find_boundaries(picture.truth, mode="inner")] = (0, 255, 0)
    rgb[find_boundaries(picture.prediction, mode="inner")] = (255, 0, 0)
    return rgb
