"""Model files: one safetensors file that says by itself what it is. Loading one runs no code.

The header (safetensors metadata, key `cascade`) is JSON: format, version, stage, regions, settings, preparation, scores
and which scans the weights have seen. The state to resume a training is a second file of the same kind.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cascade import __version__
from cascade.settings import PredictionSettings, prediction_settings_from
from cascade.shipped import shipped_path
from cascade.stages import STAGES, Stage
from cascade.unet import UNet3d
from preprocess.errors import ModelError, UsageError
from preprocess.files import write_atomic
from preprocess.preparation import Preparation
from preprocess.prepared import preparation_from

#: Raised when an older program could not use the file rightly.
FORMAT = 1


@dataclass(frozen=True, eq=False)
class Model:
    """A trained network with all that is needed to use it.

    `settings` is the part that prediction needs, `recipe` the record of all settings (see `as_table`) of the training.
    `scores` are its Dice on held-out cases. `trained_on` are the content ids of the scans that it learned from (see
    `preprocess.prepared.content_id`), `chosen_on` those that picked it as the best of its training. `sha256` is the
    file's, empty for a model that was not read from one.
    """

    stage: Stage
    settings: PredictionSettings
    recipe: Mapping[str, Any]
    preparation: Preparation
    weights: Mapping[str, Tensor]
    scores: Mapping[str, Any]
    trained_on: tuple[str, ...]
    chosen_on: tuple[str, ...]
    sha256: str = ""

    def network(self) -> UNet3d:
        """The network with its weights. Raises ModelError when they do not fit the settings."""
        network = UNet3d(self.settings.network.features, len(self.stage.regions), stem=self.settings.network.stem)
        try:
            network.load_state_dict(dict(self.weights))
        except RuntimeError as error:
            what = str(error).splitlines()[-1].strip()
            raise ModelError(
                f"weights do not fit network.features = {self.settings.network.features}: {what}"
            ) from error
        return network


def save_model(path: Path, model: Model) -> None:
    """Write `model` to `path`, atomically, its weights in half precision: prediction computes in no more."""
    header = {
        "format": FORMAT,
        "version": __version__,
        "stage": model.stage.name,
        "regions": model.stage.regions,
        "settings": dict(model.recipe),
        "preparation": asdict(model.preparation),
        "scores": dict(model.scores),
        "trained_on": model.trained_on,
        "chosen_on": model.chosen_on,
    }
    save_tensors(path, {name: weight.half() for name, weight in model.weights.items()}, header)


def load_model(path: Path, stage: Stage) -> Model:
    """Read a model file of `stage`. Raises ModelError that names what is wrong with it."""
    weights, header = load_tensors(path)
    try:
        if header["format"] > FORMAT:
            raise ModelError(f"{path}: model format {header['format']} is newer than {FORMAT}: update cascade")
        if header["stage"] != stage.name:
            raise ModelError(f"{path}: stage is {header['stage']!r}, needed is {stage.name!r}: give the other file")
        if tuple(header["regions"]) != stage.regions:
            raise ModelError(f"{path}: regions are {header['regions']}, needed are {list(stage.regions)}")
        model = Model(
            stage=stage,
            settings=prediction_settings_from(header["settings"], stage.name, "its settings"),
            recipe=header["settings"],
            preparation=preparation_from(header["preparation"]),
            weights=weights,
            scores=header["scores"],
            trained_on=tuple(header["trained_on"]),
            chosen_on=tuple(header["chosen_on"]),
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: the model's header is damaged ({error!r}): get the file again") from error
    except UsageError as error:  # settings that this version does not know or take
        raise ModelError(f"{path}: {error}") from error
    model.network()  # weights that do not fit are an error here and not in the middle of a batch
    return model


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Tensors and a JSON header as one safetensors file, atomically."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"cascade": json.dumps(header, allow_nan=False)}
    write_atomic(path, lambda temporary: save_file(plain, temporary, metadata))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The inverse of `save_tensors`. Raises ModelError for a file that is missing, cut, or of another kind."""
    try:
        if path.read_bytes()[:2] in (b"PK", b"\x80\x02", b"\x80\x04"):
            raise ModelError(f"{path}: a pickle, which could run code, not a safetensors file: it is not loaded")
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        header = json.loads(metadata["cascade"])
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (SafetensorError, ValueError) as error:
        raise ModelError(f"{path}: not a whole safetensors file ({error}): get it again") from error
    except KeyError as error:
        raise ModelError(f"{path}: a safetensors file, but not one of cascade's models") from error
    return tensors, header


def load_stage_model(path: Path | None, name: str) -> Model:
    """The model of the stage `name` from `path`, or the one that comes with the package."""
    return load_model(path or shipped_path(name), STAGES[name])


def cpu_state(network: torch.nn.Module) -> dict[str, Tensor]:
    """A copy on the CPU of the weights that prediction needs: without the outputs that only training has."""
    weights = network.state_dict().items()
    return {name: tensor.detach().cpu().clone() for name, tensor in weights if not name.startswith("deep_heads.")}
