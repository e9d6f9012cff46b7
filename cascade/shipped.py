"""The models that come with the package, in `cascade/models/`, and what is known of them.

`card.json` beside them holds what a model file cannot know of itself: its scores on scans that it has not seen (from a
cross-validation of the same recipe), the licence of its weights, and its hash, so that an exchanged file is noticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from preprocess.errors import ModelError

_FOLDER = Path(str(resources.files("cascade"))) / "models"


@dataclass(frozen=True)
class ShippedModel:
    """One installed model: its stage, file, the file's sha256, and the entry of `card.json` for it."""

    stage: str
    path: Path
    sha256: str
    card: Mapping[str, Any]

    @property
    def intact(self) -> bool:
        """Whether the file is the one that the card describes."""
        return self.sha256 == self.card.get("sha256")


def shipped_paths(stage: str) -> list[Path]:
    """The installed model files of `stage` ("liver" or "tumor"), which predict together, as `card.json` lists them.

    Raises ModelError when one is missing: without it the others would say something else, and nobody would know.
    """
    paths = [_FOLDER / f"{name}.safetensors" for name in model_card()["models"] if _stage(name) == stage]
    if not paths:
        raise ModelError(f"{_FOLDER / 'card.json'} lists no {stage} model: install the package again")
    for path in paths:
        if not path.is_file():
            raise ModelError(
                f"{path} is missing: install the package again, or train a model and give it as --{stage} FILE"
            )
    return paths


def shipped_models() -> list[ShippedModel]:
    """The installed models in the order of the stages. Raises ModelError for a missing file or an unreadable card."""
    card = model_card()["models"]
    paths = [path for stage in ("liver", "tumor") for path in shipped_paths(stage)]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    return [ShippedModel(_stage(p.stem), p, sha, card[p.stem]) for p, sha in zip(paths, digests, strict=True)]


def _stage(name: str) -> str:
    return name.partition("-")[0]


def model_card() -> dict[str, Any]:
    """`card.json`: `models` by the names of their files, which begin with the stage, `scores` (cross-validated),
    `convention`, `trained_on`, `licence`, `use`.

    Raises ModelError when it cannot be read.
    """
    path = _FOLDER / "card.json"
    try:
        card: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({error}): install the package again") from error
    if not isinstance(card.get("models"), dict):
        raise ModelError(f"{path} has no list of models: install the package again")
    return card
