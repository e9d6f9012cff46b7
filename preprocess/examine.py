"""One case looked at closely, for `cascade check` and `cascade prepare`; what needs no label, for `cascade run` too."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.anatomy import misplaced
from preprocess.cases import IRCADB_IN_LITS, Case, lits_number
from preprocess.components import components
from preprocess.findings import Finding, error, warning
from preprocess.geometry import Box, Grid, Index, Triple
from preprocess.io import Scan, read_scan
from preprocess.layouts import read_label
from preprocess.measures import Measures, measure
from preprocess.volume import LIVER, TUMOR, LabelMap, Volume, content_id

#: LiTS volumes that were published without tumour.
TUMOR_FREE_LITS = frozenset((32, 34, 38, 41, 47, 87, 89, 91, 105, 106, 114, 115, 119))

#: A healthy adult liver has 0.7 to 2.5 L (total liver volume = -794 + 1267 x body surface mL; Vauthey et al., 2002);
#: a remnant has less, one full of tumours more.
LIVER_ML = (400.0, 5000.0)

#: CT of the abdomen is taken at 0.5 to 1 mm in plane and 0.5 to 7 mm along the body.
PLANE_MM, SLICE_MM = (0.4, 1.5), (0.4, 7.5)

#: A liver is 100 to 200 mm high; fewer slices, or less height, cannot show it.
SLICES, HEIGHT_MM = 16, 100.0

#: HU of liver tissue with noise, fat, contrast medium and vessels. In ten scans at most 1.1 % of the liver's label lie
#: outside. With the label of another of them (70 pairs) it was 3.8 to 75 %, in 63 of the pairs more than 10 %; with
#: their own label shifted by 10 mm, 1.8 to 11 %.
LIVER_HU, ODD_SHARE, WRONG_SHARE = (-70.0, 230.0), 0.02, 0.10

#: Parts of a label so small are stray voxels; larger ones are said. In mL, and as a share of the largest.
PART_ML, PART_SHARE, LESION_ML = 5.0, 0.01, 0.05


@dataclass(frozen=True)
class Examination:
    """What one case is like. Sizes are (z, y, x), volumes in mL, `findings` without those of other cases.

    `content` identifies the voxels in canonical orientation; `values` the HU whatever way they are turned; `mask` the
    label. `liver_hu` is the median and `odd_share` the share of liver voxels outside `LIVER_HU`; both None without
    liver. `context`: there are slices above and below the liver.
    """

    content: str
    values: str
    mask: str
    shape: Index
    spacing_mm: Triple
    hu: tuple[float, float]
    clipped: bool
    liver_ml: float
    tumor_ml: float
    lesions: int
    liver_hu: float | None
    odd_share: float | None
    context: bool
    measures: Measures
    findings: tuple[Finding, ...]


def values_id(volume: Volume) -> str:
    """16 hex digits that identify how often each whole HU occurs: the same however the image is turned or mirrored."""
    low = float(volume.array.min())
    counts = np.zeros(int(volume.array.max() - low) + 2, np.int64)
    for plane in volume.array:
        counts += np.bincount(np.rint(plane.ravel() - low).astype(np.int64), minlength=len(counts))
    digest = hashlib.sha256(repr((sorted(volume.array.shape), low)).encode())
    return hashlib.sha256(digest.digest() + counts.tobytes()).hexdigest()[:16]


def examine(case: Case) -> Examination:
    """Reads and measures a case. Raises InputError where its image or label cannot be used, and says why.

    A case without label is all background.
    """
    scan = read_scan(case.image)
    volume, grid = scan.volume, scan.volume.grid
    labels = read_label(case, grid) if case.label else LabelMap(np.zeros(grid.shape, np.uint8), grid)
    hu = (float(volume.array.min()), float(volume.array.max()))
    box = Box.around(labels.array)
    liver_hu, odd_share = _liver_hu(volume, labels)
    measures = measure(volume, labels, tumors=case.scores_tumor)
    seen = Examination(
        content=content_id(volume),
        values=values_id(volume),
        mask=content_id(labels) if box else "",
        shape=grid.shape,
        spacing_mm=grid.spacing_mm,
        hu=hu,
        clipped=_is_clipped(volume, hu),
        liver_ml=round(labels.ml(LIVER), 3),
        tumor_ml=round(labels.ml(TUMOR), 3) if case.scores_tumor else 0.0,
        lesions=len(measures.lesion_mm),
        liver_hu=liver_hu,
        odd_share=odd_share,
        context=box is not None and box.start[0] > 0 and box.stop[0] < grid.shape[0],
        measures=measures,
        findings=(),
    )
    found = [warning(text, case.name) for text in (*scan.warnings, *image_oddities(scan, case.name))]
    found += [warning(text, case.name) for text in _label_oddities(case, seen)]
    found += _fit(case, seen)
    if box is not None:
        found += [warning(text, case.name) for text in _stray_parts(labels, box)]
        found += [warning(text, case.name) for text in misplaced(volume, labels)]
    return replace(seen, findings=tuple(found))


def _is_clipped(volume: Volume, hu: tuple[float, float]) -> bool:
    """Whether HU were cut to a window: none is as low as air, and the highest is not rare."""
    low, high = hu
    return low > -900 and high < 1000 and bool(np.count_nonzero(volume.array == high) > 1e-3 * volume.array.size)


def _liver_hu(volume: Volume, labels: LabelMap) -> tuple[float | None, float | None]:
    """Median HU of the liver without tumours, and the share of its voxels that no liver has."""
    hu: NDArray[Any] = volume.array[labels.array == LIVER]
    if not hu.size:
        return None, None
    low, high = LIVER_HU
    return float(np.median(hu)), float(np.mean((hu < low) | (hu > high)))


def image_oddities(scan: Scan, name: str) -> Iterator[str]:
    """Warnings about voxels and height of `scan`, which need no label; `name` may be published."""
    grid = scan.volume.grid
    z, *plane = grid.spacing_mm
    yield from _unfilled(scan.native, name)
    usual = SLICE_MM[0] <= z <= SLICE_MM[1] and all(PLANE_MM[0] <= s <= PLANE_MM[1] for s in plane)
    if not usual and not _is_identity(scan.native):
        found = " x ".join(f"{s:.3g}" for s in grid.spacing_mm)
        yield (
            f"spacing {found} mm (z, y, x) is unusual (CT of the abdomen: {SLICE_MM[0]:g} to {SLICE_MM[1]:g} and "
            f"{PLANE_MM[0]:g} to {PLANE_MM[1]:g} mm); is the header right?"
        )
    yield from _too_short(grid)


def _unfilled(native: Grid, name: str) -> Iterator[str]:
    """A warning where the header of a file, on the lattice `native`, was never filled in."""
    if _is_identity(native):
        known = " (as published for LiTS 28-47)" if lits_number(name) in IRCADB_IN_LITS else ""
        yield (
            f"spacing 1 x 1 x 1 mm at position 0: the affine was never filled in{known}, so volumes in mL are wrong; "
            "take the header from the original series or from MSD Task03"
        )


def _too_short(grid: Grid) -> Iterator[str]:
    """A warning where a scan on the canonical `grid` cannot show a whole liver."""
    slices, height = grid.shape[0], grid.shape[0] * grid.spacing_mm[0]
    if slices < SLICES or height < HEIGHT_MM:
        yield f"{slices} slices, {height:.0f} mm: too few to show a whole liver; was the scan cut?"


def _is_identity(native: Grid) -> bool:
    return native.spacing_mm == (1.0, 1.0, 1.0) and not any(native.origin_mm)


def _label_oddities(case: Case, seen: Examination) -> Iterator[str]:
    if case.label is None or case.liver_label == "none":
        return
    low, high = LIVER_ML
    if not seen.liver_ml:
        yield "the label holds no liver; if the scan shows one, set liver_label = none or leave the case out"
        return
    if not low <= seen.liver_ml <= high:
        yield f"a liver of {seen.liver_ml:.4g} mL is outside {low:g} to {high:g} mL; are label and spacing right?"
    if not seen.context:
        yield "the liver reaches the first or last slice: its end is cut off, or was cut away with the scan"
    number = lits_number(case.name)
    if number is None or not case.scores_tumor:
        return
    if number in TUMOR_FREE_LITS and seen.tumor_ml:
        yield f"{seen.tumor_ml:.4g} mL of tumour, but LiTS {number} is published without; is it the label of another?"
    if number not in TUMOR_FREE_LITS and not seen.tumor_ml:
        yield (
            f"no tumour, but LiTS {number} is published with; set tumor_label = none if tumours were merged into the "
            "liver, and check that the label is not that of another case"
        )


def _fit(case: Case, seen: Examination) -> list[Finding]:
    """Does the label lie on a liver? That of another case (volume-N with segmentation-N+1) does not."""
    if seen.odd_share is None or seen.odd_share <= ODD_SHARE:
        return []
    text = (
        f"{seen.odd_share:.1%} of the liver's label lie on air, fat or bone (outside {LIVER_HU[0]:g} to "
        f"{LIVER_HU[1]:g} HU; median {seen.liver_hu:.0f} HU); "
    )
    if seen.odd_share > WRONG_SHARE:
        return [error(f"{text}image and label are not of one scan, or these are no HU: pair them anew", case.name)]
    return [warning(f"{text}is the label shifted, or of another scan?", case.name)]


def _stray_parts(labels: LabelMap, box: Box) -> Iterator[str]:
    """Liver in several parts, and tumours that touch no liver."""
    part = labels.array[box.slices]
    numbered, sizes = components(part > 0)
    ml = sizes * labels.grid.voxel_ml
    with_liver = np.bincount(numbered[part == LIVER], minlength=len(sizes)) > 0
    livers, others = np.sort(ml[1:][with_liver[1:]])[::-1], ml[1:][~with_liver[1:]]
    more = livers[1:][livers[1:] >= min(PART_ML, PART_SHARE * livers[0])] if livers.size else livers
    if more.size:
        yield (
            f"the liver is in {1 + more.size} parts, the second of {more[0]:.3g} mL; "
            "is a stray part of the label left, or another organ?"
        )
    apart = others[others >= LESION_ML]
    if apart.size:
        yield (
            f"{apart.size} tumours with {apart.sum():.3g} mL in all touch no liver; "
            "label the liver around them, or remove what is no liver tumour"
        )
