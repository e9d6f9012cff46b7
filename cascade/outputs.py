"""What `cascade run` leaves of a case: `segmentation.nii.gz`, `report.json`, and on request what each stage saw."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cascade import __version__
from cascade.batch import MASK, REPORT
from cascade.merge import pasted
from cascade.pipeline import Segmentation
from preprocess.errors import InputError
from preprocess.examine import image_oddities
from preprocess.files import write_json
from preprocess.geometry import Box
from preprocess.io import Scan, write_labels
from preprocess.lesions import lesion_table
from preprocess.resample import resampled
from preprocess.volume import LabelMap

#: What `--keep-stages` adds.
_STAGES = ("stage1_liver.nii.gz", "roi.json", "stage2_tumor.nii.gz")


def is_done(folder: Path, source: str, models: Mapping[str, str], *, keep_stages: bool) -> bool:
    """Whether `folder` holds the finished result of this input and these models, with the stages where these are asked
    for.

    Raises InputError when it holds the result of something else: that is neither skipped nor replaced without a word.
    """
    try:
        report = json.loads((folder / REPORT).read_text("utf-8"))
        made_of = (report["source"], report["models"])
    except (OSError, ValueError, KeyError, TypeError):
        return False  # nothing there, or a run that was killed: the report is written last
    if not (folder / MASK).is_file():
        return False
    if made_of[0] != source:
        raise InputError(
            f"{folder}: holds a result of another input; use --overwrite or another -o, or give all inputs at once"
        )
    if made_of[1] != dict(models):
        there = made_of[1] if isinstance(made_of[1], dict) else {}
        other = ", ".join(name for name in sorted({*there, *models}) if there.get(name) != models.get(name))
        raise InputError(
            f"{folder}: holds a result of other models or options ({other}); use --overwrite or another -o"
        )
    return not keep_stages or all((folder / name).is_file() for name in _STAGES[:2])  # of no liver there is no third


def write_case(folder: Path, scan: Scan, result: Segmentation, *, keep_stages: bool) -> None:
    """Write the mask in the geometry of the input, and with `keep_stages` those of the stages and the ROI."""
    folder.mkdir(parents=True, exist_ok=True)
    # From here on the case is not done until the new report stands; no stage of another run must stand beside it.
    for name in (REPORT, *_STAGES):
        (folder / name).unlink(missing_ok=True)
    write_labels(folder / MASK, result.labels, scan)
    if not keep_stages:
        return
    grid = scan.volume.grid
    coarse = resampled(result.coarse.mask, result.coarse.grid, grid) >= 0.5
    write_labels(folder / _STAGES[0], LabelMap(coarse.astype(np.uint8), grid), scan)
    write_json(folder / _STAGES[1], roi_table(result.box, scan))
    if result.fused is not None and result.box is not None:
        raw = pasted(result.fused.labels, result.box, grid)
        write_labels(folder / _STAGES[2], raw, scan)


def roi_table(box: Box | None, scan: Scan) -> dict[str, list[int]] | None:
    """The region of interest in voxels (z, y, x) of the file as stored, half open; None without a liver."""
    if box is None:
        return None
    native = box.reoriented(scan.volume.grid, scan.native)
    return {"start": list(native.start), "stop": list(native.stop)}


def case_report(
    case: str, scan: Scan, result: Segmentation, seconds: Mapping[str, float], source: str, models: Mapping[str, str]
) -> dict[str, Any]:
    """The content of `report.json`; volumes in mL, positions in world mm (x, y, z), LPS.

    What is said of tumours is None where no model of stage 2 was there to look for any: that is not none.
    """
    liver_ml, tumor_ml = result.labels.ml(1), result.labels.ml(2)
    looked = "tumor" in models
    return {
        "case": case,
        "status": result.status,
        "liver_ml": round(liver_ml, 3),
        "tumor_ml": round(tumor_ml, 3) if looked else None,
        "tumor_burden": (round(tumor_ml / liver_ml, 6) if liver_ml else 0.0) if looked else None,
        "lesions": lesion_table(result.labels, scan.volume) if looked else None,
        "roi": roi_table(result.box, scan),
        "warnings": [*scan.warnings, *image_oddities(scan, case), *result.warnings],
        "seconds": {name: round(value, 3) for name, value in (*seconds.items(), ("total", sum(seconds.values())))},
        "peak_rss_mb": round(peak_rss_mb()),
        "models": dict(models),
        "source": source,
        "version": __version__,
    }


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)
