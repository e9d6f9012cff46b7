"""A prepared dataset as it lies on disk: what both trainings read. `preprocess.build` writes it.

DATA/dataset.json                     the cases and each stage's preparation
DATA/cases/<case>/case.json           what was measured of the case, and the key of what was built
DATA/cases/<case>/<stage>_image.npy   float16, -1..1, (z, y, x) at the stage's spacing
DATA/cases/<case>/<stage>_labels.npy  uint8, 0/1/2
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.cases import public_patients
from preprocess.errors import InputError
from preprocess.geometry import Triple, triple
from preprocess.measures import Measures, measures_from
from preprocess.preparation import Preparation

#: Raised whenever the arrays of a prepared case would come out differently for the same input and settings.
FORMAT = 2


@dataclass(frozen=True)
class Survey:
    """What one case is like. `content` identifies the voxels of the image, whatever file they came in.

    `context`: there is anatomy above and below the liver. Volumes in mL; spacing (z, y, x) in mm. `measures`: None in a
    dataset that was prepared before there were plans.
    """

    content: str
    spacing_mm: Triple
    liver_ml: float
    tumor_ml: float
    lesions: int
    context: bool
    warnings: tuple[str, ...]
    measures: Measures | None = None


@dataclass(frozen=True)
class PreparedCase:
    """One case of a prepared dataset; its arrays are opened as memory maps when asked for."""

    name: str
    patient: str
    scores_tumor: bool
    survey: Survey
    folder: Path

    @property
    def known_by(self) -> tuple[str, ...]:
        """What a model that learned from this case remembers of it: its content id, and who it is publicly known as."""
        return (self.survey.content, *public_patients(self.name, self.patient))

    def image(self, stage: str) -> NDArray[np.float16]:
        """The prepared image of `stage` (z, y, x), -1..1."""
        return self._array(f"{stage}_image.npy")

    def labels(self, stage: str) -> NDArray[np.uint8]:
        """The classes on the same grid as `image`."""
        return self._array(f"{stage}_labels.npy")

    def _array(self, name: str) -> NDArray[Any]:
        try:
            array: NDArray[Any] = np.load(self.folder / name, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise InputError(f"{self.folder / name}: cannot be read ({error}); run cascade prepare again") from error
        return array


@dataclass(frozen=True)
class PreparedDataset:
    """All prepared cases, and the preparation of each stage by its name."""

    cases: tuple[PreparedCase, ...]
    preparations: Mapping[str, Preparation]


def load_dataset(folder: Path) -> PreparedDataset:
    """A dataset that `prepare_dataset` wrote. Raises InputError when it is missing, unfinished or of another format."""
    try:
        table = json.loads((folder / "dataset.json").read_text("utf-8"))
        if table["format"] != FORMAT:
            raise InputError(f"{folder}: prepared in format {table['format']}, needed {FORMAT}: run cascade prepare")
        cases = tuple(
            PreparedCase(
                name=row["name"],
                patient=row["patient"],
                scores_tumor=row["scores_tumor"],
                survey=read_survey(folder / "cases" / row["name"])[0],
                folder=folder / "cases" / row["name"],
            )
            for row in table["cases"]
        )
        preparations = {name: preparation_from(p) for name, p in table["preparations"].items()}
    except OSError as error:
        raise InputError(f"{folder}: not a prepared dataset ({error.strerror}); run cascade prepare") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: damaged ({error!r}); run cascade prepare again") from error
    return PreparedDataset(cases, preparations)


def preparation_from(table: Mapping[str, Any]) -> Preparation:
    """A `Preparation` from its JSON form."""
    low, high = table["window_hu"]
    return Preparation(triple(table["spacing_mm"]), (float(low), float(high)))


def read_survey(folder: Path) -> tuple[Survey, dict[str, Any]]:
    """What was measured of the case in `folder`, and the key of what was built.

    Raises OSError, ValueError, KeyError or TypeError where there is nothing usable.
    """
    table = json.loads((folder / "case.json").read_text("utf-8"))
    row = table["survey"]
    row["spacing_mm"] = triple(row["spacing_mm"])
    row["warnings"] = tuple(row["warnings"])
    row["measures"] = measures_from(row["measures"]) if row.get("measures") else None
    return Survey(**row), table["key"]
