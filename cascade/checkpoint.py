"""Model files: one safetensors file that says by itself what it is. Loading one runs no code.

The header (see `cascade.tensorfile`) is JSON: format, version, stage, regions, settings, preparation, scores and which
scans the weights have seen. The state to resume a training is a second file of the same kind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cascade import __version__
from cascade.settings import PredictionSettings, prediction_settings_from
from cascade.shipped import shipped_paths
from cascade.stages import STAGES, Stage
from cascade.tensorfile import read_tensors, write_tensors
from cascade.unet import UNet3d, unet
from preprocess.errors import ModelError, UsageError
from preprocess.preparation import Preparation
from preprocess.prepared import preparation_from

#: In a run's folder: how many folds a training by --folds is to have; the scores of a run that has ended.
FOLDS, REPORT = "folds.json", "report.json"
#: Raised when an older program could not use the file rightly. Since 2 a file has a checksum.
FORMAT = 2


@dataclass(frozen=True, eq=False)
class Model:
    """A trained network with all that is needed to use it.

    `settings` is the part that prediction needs, `recipe` the record of all settings (see `as_table`) of the training.
    `scores` are its Dice on held-out cases. `trained_on` are the content ids of the scans that it learned from (see
    `preprocess.volume.content_id`), and who they are publicly known to be of (`preprocess.cases.public_patient`), since
    one scan was published in several forms. `chosen_on` likewise are those that picked it as the best of its training.
    `sha256` is the file's, empty for a model that was not read from one.
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
        """The network with its weights (not copies). Raises ModelError when they do not fit the settings."""
        described = self.settings.network
        try:
            # A block of n channels has at least 27 n² weights and no more than a few times that: what the settings say
            # may be absurd, but no network is made that is much larger than the file.
            least = described.blocks * sum(27 * n * n for n in described.features)
            if least > sum(tensor.numel() for tensor in self.weights.values()):
                raise RuntimeError("too few weights")
            network = unet(described, len(self.stage.regions))
            network.load_state_dict(dict(self.weights), assign=True)
        except (RuntimeError, TypeError) as error:
            what = str(error).splitlines()[-1].strip()
            told = f"network.features = {str(described.features)[:80]}, encoder {described.encoder}"
            raise ModelError(f"weights do not fit {told}: {what}") from error
        return network


def save_model(path: Path, model: Model) -> None:
    """Write `model` to `path`, atomically, its weights in half precision: prediction computes in no more.

    Raises ModelError, and leaves `path` alone, when weights are not finite.
    """
    halves = {name: weight.half() for name, weight in model.weights.items()}
    require_finite(halves)  # a weight beyond 65504 is no number any more
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
    write_tensors(path, halves, header)


def load_model(path: Path, stage: Stage) -> Model:
    """Read a model file of `stage`. Raises ModelError that names what is wrong with it."""
    file = read_tensors(path)
    header = file.header
    try:
        if header["format"] > FORMAT:
            raise ModelError(f"{path}: model format {header['format']} is newer than {FORMAT}: update cascade")
        if header["format"] >= 2 and not file.verified:
            raise ModelError(f"{path}: the checksum is missing, some bytes were changed: get the file again")
        if header["stage"] != stage.name:
            raise ModelError(f"{path}: stage is {header['stage']!r}, needed is {stage.name!r}: give the other file")
        if tuple(header["regions"]) != stage.regions:
            raise ModelError(
                f"{path}: regions are {header['regions']}, needed are {list(stage.regions)}: give a model of this stage"
            )
        model = Model(
            stage=stage,
            settings=prediction_settings_from(header["settings"], stage.name, "its settings"),
            recipe=header["settings"],
            preparation=preparation_from(header["preparation"]),
            weights=_wide(file.tensors),
            scores=dict(header["scores"]),
            trained_on=_texts(header["trained_on"]),
            chosen_on=_texts(header["chosen_on"]),
            sha256=file.sha256,
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ModelError(f"{path}: the model's header is damaged ({error!r}): get the file again") from error
    except UsageError as error:  # settings that this version does not know or take
        raise ModelError(f"{path}: {error}") from error
    try:
        require_finite(model.weights)
        model.network()  # weights that do not fit are an error here and not in the middle of a batch
    except ModelError as error:
        raise ModelError(f"{path}: {error}: get the file again") from error
    return model


def require_finite(weights: Mapping[str, Tensor]) -> None:
    """Raises ModelError unless all weights are finite numbers: others give empty masks without a word."""
    for name, tensor in weights.items():
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"weights {name} are not all finite numbers")


def _wide(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Half precision as float32; whatever else it is, `require_finite` will say so."""
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError("content ids must be a list of texts")
    return tuple(values)


def load_stage_models(path: Path | None, name: str) -> tuple[Model, ...]:
    """The models of the stage `name` that predict together: one file, None for those that come with the package.

    A folder is that of a training with --folds: its `fold-*/best.safetensors`, whose probabilities are averaged. Raises
    ModelError when it holds none, when the training has not ended, or for models that prepare scans, or decide, in
    different ways.
    """
    if path is None:
        files = shipped_paths(name)
    elif path.is_dir():
        files = _of_folds(path)
    else:
        files = [path]
    models = tuple(load_model(file, STAGES[name]) for file in files)
    refuse_differing(models, f"{path or files[0].parent}: its models", "train all folds with one recipe")
    return models


def refuse_differing(models: Sequence[Model], named: str, remedy: str) -> None:
    """Raise ModelError, in which they are so `named`, for models that prepare scans, or decide, in different ways."""
    if any((m.preparation, m.settings.policy) != (models[0].preparation, models[0].settings.policy) for m in models):
        raise ModelError(f"{named} differ in preparation or policy; {remedy}")


def _of_folds(path: Path) -> list[Path]:
    files = sorted(path.glob("fold-*/best.safetensors"))
    if not files:
        raise ModelError(
            f"{path}: holds no fold-*/best.safetensors; give a model file or the -o of a training by --folds"
        )
    if not _ended(path, len(files)):
        raise ModelError(
            f"{path}: its training has not ended; go on with --resume, or give one fold-*/best.safetensors"
        )
    return files


def _ended(path: Path, count: int) -> bool:
    """Whether all folds of a training, `count` of which have a model, have ended: they have a report then.

    Copies of models alone have no state to resume, and need none. Raises ModelError where `FOLDS` is damaged.
    """
    try:
        wanted = int(json.loads((path / FOLDS).read_text("utf-8"))["folds"])
    except FileNotFoundError:  # folds that were trained one by one, or copies
        wanted = 0
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path / FOLDS}: damaged ({error!r}); remove it if all folds are there") from error
    begun = [state.parent for state in path.glob("fold-*/resume.safetensors")]
    return count >= wanted and all((fold / REPORT).exists() for fold in begun)


def cpu_state(network: torch.nn.Module) -> dict[str, Tensor]:
    """A copy on the CPU of the weights that prediction needs: without the outputs that only training has."""
    weights = network.state_dict().items()
    return {name: tensor.detach().cpu().clone() for name, tensor in weights if not name.startswith("deep_heads.")}
