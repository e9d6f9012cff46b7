"""Iterations a second and utilisation of a training by the plan, with the real loader, on any device.

    python -m benchmarks.iterations DATA [--stage tumor] [--minutes 1] [--device auto] [--set TABLE.KEY=VALUE ...]

DATA is a prepared dataset; its plan.toml counts. `cascade.training.train` runs for so long on all cases, without a look
at held-out ones, and `metrics.jsonl` says what a step took; the first 20 steps, in which a GPU looks for its fastest
kernels, are left out. On a GPU stands beside it what `nvidia-smi` says of it from then on, and its peak memory; patches
are made by the GPU too, so "waiting" is the host's time until that work is queued, and "computing" holds the rest.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from benchmarks.process import machine, peak_gb
from cascade.logs import EVERY
from cascade.machine import pick_device, tune_allocator
from cascade.plan_file import plan_of
from cascade.ranks import Ranks
from cascade.settings import load_settings
from cascade.stages import STAGES
from cascade.training import train
from cascade.training_state import Job
from preprocess.prepared import load_dataset

#: Steps that are left out.
_WARM_UP = 20


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--stage", choices=tuple(STAGES), default="tumor")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", action="append", default=[], dest="sets", metavar="TABLE.KEY=VALUE")
    options = parser.parse_args()
    device, dataset = pick_device(options.device), load_dataset(options.data)
    plan = plan_of(options.data, options.stage, dataset)
    settings = load_settings(options.stage, (), options.sets, plan)
    with tempfile.TemporaryDirectory() as name:
        job = Job(
            stage=STAGES[options.stage],
            settings=settings,
            preparation=dataset.preparations[options.stage],
            train=dataset.cases,
            held_out=[],
            folder=Path(name),
            ranks=Ranks(device),
            minutes=options.minutes,
        )
        with busy(device) as (seen, warm):
            outcome = train(job, lambda step, *_: warm.set() if step == _WARM_UP else None)
        rows = [json.loads(line) for line in (Path(name) / "metrics.jsonl").read_text("utf-8").splitlines()]
    on = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    peak = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else peak_gb()
    sampling = settings.sampling
    print(f"{machine()}; on {on}; stage {options.stage}, patch {sampling.patch}, batch {sampling.batch}, ", end="")
    print(f"{outcome.steps} steps\n")
    if outcome.steps < _WARM_UP + EVERY:
        parser.error(f"only {outcome.steps} steps, of which {_WARM_UP} are left out: give more --minutes")
    print(table(rows[_WARM_UP // EVERY :], peak, seen))


@contextmanager
def busy(device: torch.device) -> Iterator[tuple[list[float], threading.Event]]:
    """What nvidia-smi says of how busy the GPU is, in %, once a second after the event is set; nothing of a CPU."""
    seen: list[float] = []
    warm, over = threading.Event(), threading.Event()
    if device.type == "cuda":
        own = f"GPU-{torch.cuda.get_device_properties(device).uuid}"  # not its number, which counts what is visible
        ask = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", f"--id={own}"]

        def watch() -> None:
            while not over.wait(1.0):
                told = subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip()
                if warm.is_set() and told.isdigit():
                    seen.append(float(told))

        threading.Thread(target=watch, daemon=True).start()
    try:
        yield seen, warm
    finally:
        over.set()


def table(rows: list[dict[str, Any]], peak: float, seen: list[float]) -> str:
    """One line: the log's `rows` taken together, the peak in GB, what was `seen` of the GPU."""
    wait, compute = (
        sum(row.get(f"{what}_s", 0.0) for row in rows) / (EVERY * len(rows)) for what in ("wait", "compute")
    )
    lines = ["| iterations/s | waiting for data, ms | computing, ms | utilisation | GPU busy | peak, GB |"]
    lines.append("| ---: |" + " ---: |" * 5)
    gpu = f"{mean(seen):.0f} %" if seen else "-"
    share = compute / (wait + compute)
    lines.append(
        f"| {1 / (wait + compute):.2f} | {1000 * wait:.1f} | {1000 * compute:.1f} | {share:.2f} | {gpu} | {peak:.2f} |"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    tune_allocator()
    main()
