"""What computes a trained network: torch on a device, or OpenVINO on the CPU, an optional extra of the package."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cascade.checkpoint import Model
from cascade.inference import as_infer
from cascade.machine import OPENVINO, autocast_dtype, pick_device
from cascade.unet import UNet3d
from preprocess.errors import ResourceError
from preprocess.preparation import Infer
from preprocess.resample import FloatArray
from preprocess.text import short

#: Makes a model ready to predict.
Engine = Callable[[Model], Infer]

#: Windows that a GPU takes at a time: one of the usual size does not fill it. A CPU is filled by one.
GPU_WINDOWS = 4

_CPU = torch.device("cpu")
#: Compiled shapes kept: windows have one, a scan that is smaller than a window in some direction has its own.
_KEPT_SHAPES = 2


def pick_engine(name: str) -> Engine:
    """The engine for `openvino`, or that of torch for what `pick_device` takes.

    `auto` is torch: OpenVINO computes a window in less time, but first compiles the network in every process. Raises
    ResourceError when what is asked for is not there.
    """
    return openvino_engine() if name == OPENVINO else torch_engine(pick_device(name))


def torch_engine(device: torch.device) -> Engine:
    """torch on `device`."""
    windows = GPU_WINDOWS if device.type == "cuda" else 1
    return lambda model: as_infer(model.network(), model.settings.window, device, windows)


def openvino_engine() -> Engine:
    """OpenVINO on the CPU. Raises ResourceError when it is not installed."""
    try:
        import openvino  # noqa: F401
    except ImportError as error:
        raise ResourceError(
            f"--device {OPENVINO}: OpenVINO is not installed ({error}); pip install openvino, or use --device cpu"
        ) from error
    return lambda model: as_infer(OpenVinoNetwork(model.network()), model.settings.window, _CPU)


def learned_mirrored(model: Model) -> bool:
    """Whether the network has seen mirrored images, so that one means to it what the other does.

    Recipes of earlier versions do not say, and there were no mirrors then.
    """
    augmentation = model.recipe.get("augmentation")
    return isinstance(augmentation, dict) and bool(augmentation.get("mirror_share"))


def mirroring(engine: Engine) -> Engine:
    """`engine`, but of a model that has `learned_mirrored` the mean of an image's and its mirror image's probabilities.

    Mirrored left to right; twice the time. Other models, as of stage 1, predict as before.
    """

    def make(model: Model) -> Infer:
        infer = engine(model)
        return partial(_both_ways, infer) if learned_mirrored(model) else infer

    return make


def _both_ways(infer: Infer, image: FloatArray, where: NDArray[np.bool_] | None = None) -> FloatArray:
    total = infer(image, where)
    turned = None if where is None else np.ascontiguousarray(where[..., ::-1])
    total += infer(np.ascontiguousarray(image[..., ::-1]), turned)[..., ::-1]
    total /= 2
    return total


class OpenVinoNetwork(nn.Module):
    """A network that OpenVINO computes: images (n, 1, z, y, x) to logits (n, regions, z, y, x), as `network` does.

    In bfloat16 where torch would use it, in float32 elsewhere, on as many threads as torch has. Compiled for each shape
    of image when that first comes.
    """

    def __init__(self, network: UNet3d) -> None:
        super().__init__()
        self.multiple, self.regions = network.multiple, network.regions
        self._graph = _graph(network)
        self._compiled = lru_cache(_KEPT_SHAPES)(self._compile)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of one batch. Raises ResourceError when OpenVINO fails."""
        try:
            (logits,) = self._compiled(tuple(image.shape))(image.numpy()).values()
        except RuntimeError as error:
            raise ResourceError(f"--device {OPENVINO}: {short(str(error))}; use --device cpu") from error
        return torch.from_numpy(logits)

    def _compile(self, shape: tuple[int, ...]) -> Any:
        import openvino

        graph = self._graph.clone()
        graph.reshape(shape)
        options = {
            "INFERENCE_PRECISION_HINT": "f32" if autocast_dtype(_CPU) is None else "bf16",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",  # one window after the other, each on all threads
        }
        return openvino.Core().compile_model(graph, "CPU", options)


def _graph(network: UNet3d) -> Any:
    """The network as OpenVINO's graph, of any shape of image."""
    import openvino

    n = 2 * network.multiple
    example = torch.zeros(1, 1, n, n, n)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the checks of shapes in torch, which a trace leaves out
        # Traced here: left to OpenVINO, torch runs the trace several times over to check it.
        traced = cast(Any, torch.jit.trace)(network.eval(), example, check_trace=False)
        return openvino.convert_model(traced, example_input=example)
