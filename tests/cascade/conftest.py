"""A tiny prepared dataset and settings for it; see `tests.made_training`."""

from pathlib import Path

import pytest
import torch

from cascade.settings import Settings, load_settings
from tests.made_training import TINY, dataset_at


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
    return dataset_at(tmp_path / "data")
