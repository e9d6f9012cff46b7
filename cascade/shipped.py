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


def shipped_path(stage: str) -> Path:
    """The installed model file of `stage` ("liver" or "tumor"). Raises ModelError when there is none."""
    path = _FOLDER / f"{stage}.safetensors"
    if not path.is_file():
        raise ModelError(
            f"{path} is missing: install the package again, or train a model and give it as --{stage} FILE"
        )
    return path


def shipped_models() -> list[ShippedModel]:
    """The installed models in the order of the stages. Raises ModelError for a missing file or an unreadable card."""
    card = model_card()
    models = []
    for stage in ("liver", "tumor"):
        path = shipped_path(stage)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        models.append(ShippedModel(stage, path, digest, card["models"].get(stage, {})))
    return models


def model_card() -> dict[str, Any]:
    """`card.json`: `models` by stage, `scores` (cross-validated), `convention`, `trained_on`, `licence`, `use`."""
    path = _FOLDER / "card.json"
    try:
        card: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({error}): install the package again") from error
    return card
