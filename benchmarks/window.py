"""One engine of `benchmarks.rate`: turns of one window through the network of stage 2.

    python -m benchmarks.window ENGINE '{"features": [32, 64], "size": 128}'

ENGINE is `torch` or `openvino`, `bf16` or `fp32`, and `kept`, `tunables` or `plain`, as in `torch-bf16-kept`: the first
two as cascade has it, the last as torch comes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from unittest.mock import patch

import torch

from benchmarks.process import seconds_of, take_turns
from cascade.machine import on_device
from cascade.unet import UNet3d


def torch_engine(network: UNet3d, image: torch.Tensor, kind: str) -> Callable[[], object]:
    """Autocast to bfloat16, or float32."""

    def run() -> object:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=kind == "bf16"):
            return network(image)

    return run


def openvino_engine(network: UNet3d, image: torch.Tensor, kind: str) -> Callable[[], object]:
    """The network as `cascade run --device openvino` computes it, in the precision that is asked for."""
    from cascade.engine import OpenVinoNetwork

    def run() -> object:
        with torch.inference_mode(), patch("cascade.engine.autocast_dtype", lambda device: half):
            return compiled(image)

    half = torch.bfloat16 if kind == "bf16" else None
    compiled = OpenVinoNetwork(network)
    return run


def main(engine: str, features: list[int], size: int) -> None:
    """Two windows to warm up, then turns of one."""
    program, kind, way = engine.split("-")
    torch.manual_seed(0)
    network, image = UNet3d(tuple(features), 2).eval(), torch.randn(1, 1, size, size, size)
    if way != "plain":
        network = on_device(network, torch.device("cpu"))
    with patch("cascade.layers._left_to_torch", lambda image: True) if way == "plain" else nullcontext():
        run = (torch_engine if program == "torch" else openvino_engine)(network, image, kind)
        for _ in range(2):
            run()
        take_turns(lambda: {"seconds": seconds_of(run)})


if __name__ == "__main__":
    if sys.argv[1].endswith("kept"):
        from cascade.machine import tune_allocator

        tune_allocator()
    main(sys.argv[1], **json.loads(sys.argv[2]))
