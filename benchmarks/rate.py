"""How much of the machine's best rate stage 2 reaches: one 128^3 window of the six-stage network, by several engines.

    python -m benchmarks.rate [--rounds 7] [--openvino PYTHON] [--tiny]

Each engine is a process of its own with two windows to warm up, frozen while another has its turn; every round each
computes one window. "kept": the allocator keeps freed memory and the weights lie as cascade lays them; "tunables":
the same, the allocator told by its environment; "plain": torch as it comes. The roof of a precision is the best rate
that any engine reached with it in this run: with OpenVINO it is that of OpenVINO, without it is lower. OpenVINO is
run by the interpreter --openvino (default: this one; left out where it is not installed). On a CPU without bfloat16,
where it would be emulated, only float32 is run. Nothing is extrapolated.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from contextlib import ExitStack
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.process import TUNED, Turns, machine, spread, times
from cascade.machine import autocast_dtype
from cascade.unet import UNet3d

_TORCH = ("torch-bf16-kept", "torch-bf16-plain", "torch-fp32-kept", "torch-fp32-tunables", "torch-fp32-plain")
_OPENVINO = ("openvino-bf16-plain", "openvino-fp32-plain")


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--openvino", default=sys.executable, metavar="PYTHON", help="an interpreter that has openvino")
    parser.add_argument("--tiny", action="store_true", help="a tiny network, to try the script out")
    options = parser.parse_args()
    given: dict[str, Any] = {"features": [32, 64, 128, 256, 320, 320], "size": 128}
    if options.tiny:
        given = {"features": [4, 8, 8], "size": 32}
    engines = [*_TORCH, *(_OPENVINO if _has_openvino(options.openvino) else ())]
    if autocast_dtype(torch.device("cpu")) is None:
        engines = [engine for engine in engines if "bf16" not in engine]
    gflop = _flops(**given) / 1e9
    turns: dict[str, list[dict[str, float]]] = {engine: [] for engine in engines}
    with ExitStack() as stack:
        workers = {}
        for engine in engines:
            python = options.openvino if engine in _OPENVINO else sys.executable
            environment = TUNED if "tunables" in engine else {}
            command = [python, "-m", "benchmarks.window", engine, json.dumps(given)]
            workers[engine] = stack.enter_context(Turns(command, environment))
        for _ in range(options.rounds):
            for engine, worker in workers.items():
                turns[engine].append(worker.turn())
    print(f"{machine(options.openvino)}\n\n{gflop:.1f} GFLOP a window, {times(options.rounds)}\n")
    print(
        table(
            {engine: [turn["seconds"] for turn in each] for engine, each in turns.items()},
            gflop,
            {engine: each[-1]["peak"] for engine, each in turns.items()},
        )
    )


def _has_openvino(python: str) -> bool:
    return subprocess.run([python, "-c", "import openvino"], capture_output=True, check=False).returncode == 0


def _flops(features: list[int], size: int) -> int:
    """Floating-point operations of the convolutions of one window, two a multiplication with its addition."""
    with torch.device("meta"):
        network, image = UNet3d(tuple(features), 2), torch.empty(1, 1, size, size, size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return int(counter.get_total_flops())


def table(seconds: dict[str, list[float]], gflop: float, peaks: dict[str, float]) -> str:
    """One line an engine: seconds, GFLOP/s, and its share of the best rate of its precision and of all."""
    rates = {engine: gflop / median(each) for engine, each in seconds.items()}
    lines = ["| engine | s | GFLOP/s | of its precision's best | of the best | peak, GB |", "| --- |" + " ---: |" * 5]
    for engine, each in seconds.items():
        kind = engine.split("-")[1]
        roof = max(rate for name, rate in rates.items() if name.split("-")[1] == kind)
        shares = f"{rates[engine] / roof:.0%} | {rates[engine] / max(rates.values()):.0%}"
        lines.append(f"| {engine} | {spread(each, 3)} | {rates[engine]:.0f} | {shares} | {peaks[engine]:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
