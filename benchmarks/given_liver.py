"""One case through `cascade` whose liver is given, in a process of its own, for `benchmarks.rivals`.

    python -m benchmarks.given_liver '{"files": {"image": FILE, ...}, "shape": [256, 512, 512], "spacing_mm": [...]}'

Stage 1 reads the mask where its network would compute; all else is what `cascade run` does with a case. `model` writes
a stage-2 model of any network with random weights.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from cascade.batch import Outputs
from cascade.case import load_runner, run_case
from cascade.checkpoint import Model, save_model
from cascade.settings import as_table, load_settings
from cascade.stages import TUMOR
from cascade.unet import UNet3d
from preprocess.geometry import Grid, Index, Triple, index3, triple
from preprocess.io import read_labels
from preprocess.preparation import Preparation
from preprocess.resample import resampled


def model(path: Path, features: list[int], window: list[int], spacing_mm: Triple) -> Path:
    """A stage-2 model file with random weights, but for its last layer.

    That says liver everywhere and tumour nowhere: what is left of a case depends on the given liver, and no time goes
    into cleaning up noise.
    """
    recipe = (f"network.features={features}", "network.stem=1", f"window.size={window}", f"sampling.patch={window}")
    settings = load_settings("tumor", assignments=(*recipe, "window.one_pass_voxels=0"))
    torch.manual_seed(0)
    network = UNet3d(settings.network.features, len(TUMOR.regions))
    with torch.no_grad():
        network.head.weight *= 1e-3
        cast(torch.Tensor, network.head.bias).copy_(torch.tensor([6.0, -6.0]))
    preparation = Preparation(spacing_mm, (-160.0, 240.0))
    weights = network.state_dict()
    save_model(path, Model(TUMOR, settings.for_prediction, as_table(settings), preparation, weights, {}, (), ()))
    return path


def run(files: dict[str, str], shape: Index, spacing_mm: Triple) -> dict[str, Any]:
    """Seconds by step, those inside the network, windows, and the liver that came of it in mL.

    `files` are the `image`, its `liver` and the model of stage 2, `tumor`, and the folder `out`; both scans have
    `shape` (z, y, x) and `spacing_mm`.
    """
    inside: list[float] = []
    started: list[float] = []

    def before(module: torch.nn.Module, _: Any) -> None:
        if isinstance(module, UNet3d):
            started.append(time.perf_counter())

    def after(module: torch.nn.Module, _: Any, __: Any) -> None:
        if isinstance(module, UNet3d):
            inside.append(time.perf_counter() - started.pop())

    torch.nn.modules.module.register_module_forward_pre_hook(before)
    torch.nn.modules.module.register_module_forward_hook(after)
    image, out = Path(files["image"]), Path(files["out"])
    grid = Grid(index3(shape), triple(spacing_mm))
    runner = load_runner(None, Path(files["tumor"]), "cpu", liver_only=False)
    coarse = runner.liver.preparation

    def given(prepared: Any, where: Any) -> Any:
        mask = read_labels(Path(files["liver"]), like=grid).array > 0
        return resampled(mask, grid, coarse.working_grid(grid))[None]

    runner = replace(runner, liver=replace(runner.liver, infer=given))
    start = time.perf_counter()
    run_case(image, runner, Outputs(out))
    total = time.perf_counter() - start
    (file,) = out.glob("*/report.json")
    report = json.loads(file.read_text("utf-8"))
    if report["status"] != "ok":
        sys.exit(f"{image}: {report['status']}; the scan is too small for its liver to count")
    return {
        "windows": len(inside),
        "window": float(np.median(inside)),
        "network": sum(inside),
        "total": total,
        "liver_ml": report["liver_ml"],
        **{f"step {name}": seconds for name, seconds in report["seconds"].items()},
    }


if __name__ == "__main__":
    from cascade.machine import tune_allocator

    tune_allocator()  # nothing large was allocated yet
    print(json.dumps(run(**json.loads(sys.argv[1]))))
