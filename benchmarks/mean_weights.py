"""Is the running mean of the weights better than the weights themselves, which no model is made of?

    python -m benchmarks.mean_weights DATA RUN [RUN ...] [--fold 1/2]

RUNs are trainings of stage 2 on DATA with that fold; both kinds of weights are read from resume.safetensors, and
predict the held-out scans as training does when it looks at them: in the box of the true liver, from 0.5 on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.process import machine
from cascade.commands.training import split_by_fold
from cascade.inference import as_infer
from cascade.machine import on_device, pick_device
from cascade.resume import RESUME
from cascade.settings import settings_from
from cascade.stages import TUMOR
from cascade.tensorfile import read_tensors
from cascade.unet import unet
from cascade.validation import validate
from preprocess.prepared import load_dataset


def main() -> None:
    """Print a Markdown table of liver and tumour Dice."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--fold", default="1/2")
    options = parser.parse_args()
    dataset, device = load_dataset(options.data), pick_device("cpu")
    _, held_out = split_by_fold(dataset.cases, options.fold)
    print(f"{machine()}; fold {options.fold}\n")
    print("| run | step | weights | mean of the weights |\n| --- | ---: | --- | --- |")
    for run in options.runs:
        file = read_tensors(run / RESUME)
        settings = settings_from(file.header["settings"], TUMOR.name, str(run))
        scores = []
        for kind in ("weights/", "average/"):
            network = on_device(unet(settings.network, len(TUMOR.regions), settings.loss.deep_levels), device)
            network.load_state_dict({k.removeprefix(kind): v for k, v in file.tensors.items() if k.startswith(kind)})
            infer = as_infer(network, settings.window, device)
            scores.append(validate(TUMOR, dataset.preparations["tumor"], held_out, infer).text())
        print(f"| {run.name} | {file.header['step']} | {scores[0]} | {scores[1]} |", flush=True)


if __name__ == "__main__":
    main()
