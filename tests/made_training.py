"""A prepared dataset of three tiny cases, written by hand, settings that train on it in a second, and models."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from cascade.checkpoint import Model, save_model
from cascade.ranks import Ranks
from cascade.settings import as_table, load_settings
from cascade.stages import STAGES
from cascade.training_state import Job
from cascade.unet import UNet3d
from preprocess.preparation import Preparation
from preprocess.prepared import load_dataset

TINY = (
    "network.features=[4, 8]",
    "network.stem=1",
    "sampling.patch=[8, 10, 12]",
    "training.validations=2",
    "training.steps=4",
    "optimizer.warmup_steps=2",
    "optimizer.learning_rate=1e-2",
    "window.size=[16, 16, 16]",
)
QUIET = lambda step, share, loss, best: None  # noqa: E731


def dataset_at(folder: Path) -> Path:
    """DATA with the cases a, b and c of the patients p0, p1 and p1; the tumours of c are not labelled."""
    rows = []
    for seed, (name, patient, scores_tumor) in enumerate((("a", "p0", True), ("b", "p1", True), ("c", "p1", False))):
        rng = np.random.default_rng(seed)
        labels = np.zeros((12, 14, 16), np.uint8)
        labels[2:10, 3:11, 2:12] = 1
        labels[4:7, 5:8, 5:9] = 2
        image = (labels * 0.4 - 0.5 + rng.normal(0, 0.05, labels.shape)).astype(np.float16)
        case = folder / "cases" / name
        case.mkdir(parents=True)
        for stage in ("liver", "tumor"):
            np.save(case / f"{stage}_image.npy", image)
            np.save(case / f"{stage}_labels.npy", labels)
        survey = {
            "content": f"{seed:016x}",
            "spacing_mm": [3.0, 3.0, 3.0],
            "liver_ml": 17.28,
            "tumor_ml": 0.972,
            "lesions": 1,
            "context": True,
            "warnings": [],
        }
        (case / "case.json").write_text(json.dumps({"key": {}, "survey": survey}))
        rows.append({"name": name, "patient": patient, "scores_tumor": scores_tumor})
    preparation = {"spacing_mm": [3.0, 3.0, 3.0], "window_hu": [-160.0, 240.0]}
    table = {"format": 2, "cases": rows, "preparations": {"liver": preparation, "tumor": preparation}}
    (folder / "dataset.json").write_text(json.dumps(table))
    return folder


def job_at(folder, data, *assignments, stage="liver", **changes):
    """A training on case a, held out b and c, into `folder`."""
    folder.mkdir(exist_ok=True)
    dataset = load_dataset(data)
    job = Job(
        stage=STAGES[stage],
        settings=load_settings(stage, assignments=(*TINY, *assignments)),
        preparation=dataset.preparations[stage],
        train=dataset.cases[:1],
        held_out=dataset.cases[1:],
        folder=folder,
        ranks=Ranks(torch.device("cpu")),
    )
    return replace(job, **changes)


def model_at(path, name, bias=(9.0, -9.0)):
    """A model file whose network says liver everywhere and tumour nowhere, unless `bias` says otherwise."""
    stage, settings = STAGES[name], load_settings(name, assignments=TINY)
    network = UNet3d((4, 8), len(stage.regions))
    torch.nn.init.zeros_(network.head.weight)
    network.head.bias.data = torch.tensor(bias[: len(stage.regions)])
    model = Model(
        stage=stage,
        settings=settings.for_prediction,
        recipe=as_table(settings),
        preparation=Preparation((3.0, 3.0, 3.0), (-160.0, 240.0)),
        weights=network.state_dict(),
        scores={},
        trained_on=(),
        chosen_on=(),
    )
    save_model(path, model)
    return path


def scan_at(path, shape=(12, 30, 36), value=100):
    """A block of 12 x 30 x 36 voxels of 2 x 2 x 5 mm: 259 mL, enough to count as a liver; one voxel is air."""
    array = np.full(shape, value, np.int16)
    array[-1, -1, -1] = -1000  # what has one value only is no scan
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((2.0, 2.0, 5.0))
    sitk.WriteImage(image, str(path))
    return path


def log_without_seconds(folder):
    """The lines of a training's `metrics.jsonl` without the seconds that it took."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.endswith("_s") and k != "utilisation"} for row in rows]
