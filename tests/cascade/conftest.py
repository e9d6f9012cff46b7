"""A prepared dataset of three tiny cases, written by hand, and settings that train on it in a second."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cascade.settings import Settings, load_settings

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


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny_settings() -> dict[str, Settings]:
    return {stage: load_settings(stage, assignments=TINY) for stage in ("liver", "tumor")}


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """DATA with the cases a, b and c of the patients p0, p1 and p1; the tumours of c are not labelled."""
    folder = tmp_path / "data"
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
    table = {"format": 1, "cases": rows, "preparations": {"liver": preparation, "tumor": preparation}}
    (folder / "dataset.json").write_text(json.dumps(table))
    return folder
