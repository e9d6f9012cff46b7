"""Synthetic abdominal CT with liver and tumour labels, for `cascade demo` and for tests that need an abdomen.

Every organ is an implicit shape evaluated at the voxel centres, so nothing is resampled. It is no model of disease: a
score on these cases says that the program works, and nothing about patients.

The reference body is in millimetres from its centre: x to the left, y to the back, z to the head (LPS).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preprocess.geometry import CANONICAL_AXES, Box, Grid, Triple, index3, reoriented, triple
from preprocess.phantom_scene import (
    HALF_DEPTH_MM,
    HALF_WIDTH_MM,
    Field,
    Mask,
    Rng,
    Scene,
    ellipsoid_radius,
    positions,
    soft_min,
    waves,
)
from preprocess.volume import LIVER, TUMOR, LabelMap, Volume

#: Nominal tumour diameters; the outlines vary around them and stay within 8 to 50 mm.
_TUMOR_MM = (10.0, 44.0)


@dataclass(frozen=True, eq=False)
class Phantom:
    """A synthetic case: `volume` is int16 HU (z, y, x); `labels` (0/1/2), on the same grid."""

    volume: Volume
    labels: LabelMap


def make_phantom(seed: int, *, tumors: int | None = None, oriented: bool = True) -> Phantom:
    """The case of `seed`, the same in each call; about one case in five is free of tumours, the others have 1 to 5.

    `tumors` sets their number instead (diameters 8 to 50 mm). With `oriented` the array axes (z, y, x) may be flipped,
    permuted and up to 10 degrees oblique; without it they are canonical. Raises ValueError when `tumors` is negative.
    """
    if tumors is not None and tumors < 0:
        raise ValueError(f"cannot make {tumors} tumours; give 0 or more")
    # One stream per subject: the body of a seed stays the same whatever number of tumours is asked for.
    layout, anatomy, lesions, noise = np.random.default_rng(seed).spawn(4)
    count = 0 if lesions.random() < 0.2 else int(lesions.integers(1, 6))
    scale = triple(anatomy.uniform(0.92, 1.06, 3))
    scene = Scene(_body_grid(layout, scale, oriented), scale, anatomy)
    _paint_body(scene)
    _paint_bones(scene)
    _paint_organs(scene)
    liver, liver_hu = _paint_liver(scene)
    labels = liver * np.uint8(LIVER)
    _paint_tumors(scene, labels, liver_hu, count if tumors is None else tumors, lesions)
    hu = np.clip(np.rint(_scanned(scene.hu, noise)), -1024, 3071).astype(np.int16)
    # The scanner's zero is not the centre of the body.
    grid = replace(scene.grid, origin_mm=triple(np.array(scene.grid.origin_mm) + layout.uniform(-150, 150, 3)))
    target = _shuffled(grid, layout) if oriented else grid
    # Copied to the new order in memory, as if read from a file.
    hu, labels = (np.ascontiguousarray(reoriented(array, grid, target)) for array in (hu, labels))
    return Phantom(Volume(hu, target), LabelMap(labels, target))


def _body_grid(rng: Rng, scale: Triple, oriented: bool) -> Grid:
    """A grid around the body, whose centre is world zero; the matrix is coarse to keep files small."""
    margin_mm, columns = rng.uniform(8, 18), rng.uniform(172, 218)
    width_mm, depth_mm = 2 * (HALF_WIDTH_MM * scale[0] + margin_mm), 2 * (HALF_DEPTH_MM * scale[1] + margin_mm)
    height_mm = rng.uniform(215, 255) * scale[2]
    pixel_mm = round(width_mm / columns, 3)
    spacing = (round(max(rng.uniform(2.5, 5), height_mm / 90), 2), pixel_mm, pixel_mm)
    shape = index3([round(mm / s) for mm, s in zip((height_mm, depth_mm, width_mm), spacing, strict=True)])
    axes, angle, turn = np.array(CANONICAL_AXES), math.radians(rng.uniform(-10, 10)), np.eye(3)
    a, b = (1, 2) if rng.random() < 0.5 else (0, 1)  # about x or about z
    turn[[a, a, b, b], [a, b, a, b]] = math.cos(angle), math.sin(angle), -math.sin(angle), math.cos(angle)
    if rng.random() < 0.5 and oriented:
        axes = axes @ turn
    grid = Grid(shape, spacing, axes=(triple(axes[0]), triple(axes[1]), triple(axes[2])))
    middle = np.array(grid.position_mm([(n - 1) / 2 for n in shape]))
    return replace(grid, origin_mm=triple(np.array([0.0, 0.0, rng.uniform(-8, 4)]) - middle))


def _shuffled(grid: Grid, rng: Rng) -> Grid:
    """The same voxels with array axes flipped at random and, in one case of three, permuted."""
    order = rng.permutation(3) if rng.random() < 1 / 3 else np.arange(3)
    flip = rng.random(3) < 0.5
    return grid.turned([int(axis) for axis in order], [bool(flip[axis]) for axis in order])


def _paint_body(scene: Scene) -> None:
    """Fat, the muscle ring, lungs, heart and diaphragm."""
    depth, height, hu = scene.depth, scene.height, scene.hu
    hu[depth > 0] = 20  # skin
    hu[depth > 2] = -102
    hu[depth > scene.fat_mm] = 55
    cavity = depth > scene.fat_mm + 11
    hu[cavity] = -98
    hu[cavity & (height > -3)] = 50
    hu[cavity & (height > 0)] = -850
    chest = cavity & (height > 2)
    heart = ellipsoid_radius(scene.at, (22, -38, 92), (62, 48, 48), 20)
    hu[chest & (heart < 1.12)] = -70
    hu[chest & (heart < 1)] = 70
    hu[chest & (heart < 0.8)] = 140
    hu[chest & (np.hypot(scene.at[0] - 5, (scene.at[1] - 48) / 1.1) < 32)] = -60  # mediastinum, around the aorta


def _paint_bones(scene: Scene) -> None:
    """Muscles of the back, the spine with its discs, and the ribs."""
    (x, y, z), hu = scene.at, scene.hu
    side = np.abs(x)
    body = scene.depth > scene.fat_mm
    hu[body & (((side - 36) / 27) ** 2 + ((y - 86) / 17) ** 2 < 1)] = 55
    psoas = np.clip((20 - z) / 60, 0, 1.4)
    hu[((side - 36) / 15) ** 2 + ((y - 52) / 17) ** 2 < psoas] = 55
    radius = np.hypot(x / 23, (y - 56) / 18)
    disc = np.mod(z, 34.0) < 6
    spine = radius < 1
    hu[spine] = np.where(disc, 80, np.where(radius > 0.86, 480, 230))[spine]
    arch = np.hypot(x / 15, (y - 78) / 11)
    hu[(arch < 1) & (arch > 0.62)] = 520
    hu[arch <= 0.62] = 25  # spinal canal
    hu[(side < 3.5) & (np.abs(y - 93) < 11) & (np.mod(z + 8, 34) < 22) & body] = 450
    hu[(side < 42) & (side > 12) & (np.abs(y - 76) < 4) & (np.mod(z, 34) > 22)] = 450
    scene.taken |= (radius < 1.08) | (arch < 1)
    # Ribs slope down to the front and end at the costal arch, which rises towards the middle.
    phase = np.mod(z - 0.4 * y, 27) - 13.5
    rib = np.hypot(phase / 6.5, (scene.depth - scene.fat_mm - 6) / 4.5)
    ribs = (rib < 1) & (z > -75 + 1.3 * np.maximum(-y - 10, 0)) & (side > 30)
    hu[ribs] = np.where(rib > 0.6, 620, 320)[ribs]


def _paint_organs(scene: Scene) -> None:
    """Bowel, stomach, pancreas, spleen, kidneys, great vessels, gallbladder: what must not be taken for liver."""
    rng, blob, tube = scene.rng, scene.blob, scene.tube
    for _ in range(26):
        centre = (rng.uniform(-95, 100), rng.uniform(-70, 5), rng.uniform(-150, -55))
        radii = triple(rng.uniform(11, 20, 3) * (1.3, 1, 1))
        turn, content = rng.uniform(-60, 60), rng.uniform(10, 60)
        blob(60, centre, triple(np.array(radii) + 2.5), turn_deg=turn)
        blob(content, centre, radii, turn_deg=turn)
        if rng.random() < 0.4:
            blob(-900, centre, radii, turn_deg=turn, y_max=centre[1] - 3)
    blob(65, (68, -22, 22), (46, 43, 56), turn_deg=25)
    blob(rng.uniform(10, 40), (68, -22, 22), (42, 39, 52), turn_deg=25)
    blob(-950, (68, -22, 22), (41, 38, 50), turn_deg=25, y_max=-22 - rng.uniform(2, 22))
    for a, b, r in (((-18, 2, -42), (0, -8, -28), 13.0), ((0, -8, -28), (40, 12, -14), 10.0)):
        tube(rng.uniform(85, 105), a, b, (r, r - 3))
    blob(rng.uniform(110, 130), (102, 38, 18), (32, 50, 56), turn_deg=20, keep=True)
    blob(-95, (62, 28, 10), (22, 34, 46), turn_deg=20)  # hollows the spleen
    for side in (-1, 1):
        centre = (side * 64.0, 46.0, -52.0 + 7 * side)
        blob(-100, centre, (36, 33, 66), turn_deg=-25 * side, keep=True)
        blob(rng.uniform(165, 180), centre, (27, 25, 55), turn_deg=-25 * side, keep=True)
        blob(150, (centre[0] - 4 * side, centre[1], centre[2]), (17, 14, 40), turn_deg=-25 * side)
        blob(-60, (centre[0] - 15 * side, centre[1] - 6, centre[2]), (15, 9, 22), turn_deg=-25 * side)
    tube(rng.uniform(165, 190), (10, 28, -200), (6, 33, 200), (10, 12))
    tube(rng.uniform(125, 140), (-20, 27, -200), (-24, 22, 62), (11, 13))
    tube(160, (8, 0, -45), (-34, 0, -6), (6, 7))  # portal vein
    blob(70, (-46, -42, -48), (17, 18, 33), keep=True)
    blob(rng.uniform(5, 18), (-46, -42, -48), (15, 16, 31), keep=True)
    tube(-95, (-6, -95, -40), (-6, -45, 4), (5, 3))  # the fissure between the lobes


def _branches(
    rng: Rng, start: Triple, ahead: Triple, radius: float, order: int
) -> Iterator[tuple[Triple, Triple, float]]:
    """Segments (start, end, radius at the start) of a vessel that forks `order` times."""
    end = triple(np.array(start) + ahead)
    yield start, end, radius
    for _ in range(2 if order else 0):
        turned = np.array(ahead) / np.linalg.norm(ahead) + rng.normal(0, 0.5, 3)
        child = triple(turned * (0.85 * np.linalg.norm(ahead) / np.linalg.norm(turned)))
        yield from _branches(rng, end, child, radius * 0.8, order - 1)


def _liver_field(scene: Scene) -> Field:
    """A field (z, y, x) that falls from the inside of the liver outwards, about in millimetres."""
    x, y, z = scene.at
    right = (1 - ellipsoid_radius(scene.at, (-74, 6, 4), (84, 98, 92))) * 84
    reach = scene.rng.uniform(66, 88)  # how far the left lobe goes
    left = (1 - ellipsoid_radius(scene.at, (8, -48, 32), (reach, 40, 40), 8)) * 40
    field = -soft_min(-right, -left, 25)
    # The underside rises from the right tip to the left lobe; in front of spine and stomach the liver is hollow.
    under = (z + 66 - 0.62 * (x + 78) + 0.18 * y) / 1.2
    field = soft_min(field, under, 22)
    hollow = (ellipsoid_radius(scene.at, (28, 60, -5), (58, 72, 110)) - 1) * 58
    kidney = (ellipsoid_radius(scene.at, (-50, 82, -60), (44, 62, 70)) - 1) * 50
    hollow = soft_min(hollow, kidney, 15)
    return soft_min(field, hollow, 15) + 5 * waves(scene.at, scene.rng, 75)


def _paint_liver(scene: Scene) -> tuple[Mask, float]:
    """Paint the liver with its vessels; its mask and HU."""
    rng = scene.rng
    field = _liver_field(scene)
    field[scene.taken | (scene.depth < scene.fat_mm + 13) | (scene.height > -3)] = -np.inf
    # The level of the field is what gives the wanted volume: shapes vary, sizes stay those of adults.
    wanted_ml = np.clip(rng.normal(1500, 230), 1050, 1950) * math.prod(scene.scale)
    rank = int(wanted_ml / scene.grid.voxel_ml)
    liver = field > np.partition(field, field.size - rank, axis=None)[field.size - rank]
    parts, _ = ndimage.label(liver)
    liver = parts == np.bincount(parts[liver]).argmax()
    hu = rng.uniform(100, 120)
    scene.hu[liver] = hu
    vessel_hu = hu + rng.uniform(25, 45)
    trees: list[tuple[Triple, Triple]] = [((-34, 0, -6), (-34, 4, 6)), ((-34, 0, -6), (18, -32, 22))]
    trees += [((-24, 20, 58), ahead) for ahead in ((-38, 6, -8), (-24, -32, -8), (14, -38, -6))]
    for start, ahead in trees:
        for a, b, radius in _branches(rng, start, ahead, 7.0, 4):
            scene.tube(vessel_hu, a, b, (radius, radius * 0.8), within=liver)
    return liver, hu


def _paint_tumors(scene: Scene, labels: NDArray[np.uint8], liver_hu: float, count: int, rng: Rng) -> None:
    """Paint `count` tumours, apart from each other while there is room, and set their label."""
    box = Box.around(labels)
    if box is None or not count:
        return
    grid = scene.grid.cropped(box)
    at = positions(grid)
    liver = labels[box.slices] > 0
    room = ndimage.distance_transform_edt(np.pad(liver, 1), grid.spacing_mm)[1:-1, 1:-1, 1:-1] / 0.75
    low, high = _TUMOR_MM
    for diameter_mm in sorted(low * (high / low) ** rng.random(count), reverse=True):
        radius = float(diameter_mm) / 2
        while radius > low / 2 and not (room > 1.2 * radius).any():
            radius *= 0.9
        choice = np.flatnonzero(room > min(1.2 * radius, float(room.max()) * 0.99))
        centre = grid.position_mm(index3(np.array(np.unravel_index(rng.choice(choice), grid.shape))))
        distance = ellipsoid_radius(at, centre, (1, 1, 1))
        uneven = triple(rng.uniform(0.85, 1.18, 3))
        edge = (
            ellipsoid_radius(at, centre, uneven, rng.uniform(0, 180)) * (1 + 0.25 * waves(at, rng, 1.7 * radius))
            - radius
        )
        tumor = liver & ((edge < 0) | (distance < 4.2)) & (distance < 24.5)
        hu = max(40.0, liver_hu - rng.uniform(46, 66))
        scene.hu[box.slices][tumor] = (hu + 7 * waves(at, rng, 12))[tumor]
        if radius > 12 and rng.random() < 0.4:
            scene.hu[box.slices][tumor & (edge < -0.55 * radius)] = max(25.0, hu - 20)  # necrosis
            scene.hu[box.slices][tumor & (edge > -1.8)] = liver_hu + 15  # enhancing rim
        labels[box.slices][tumor] = TUMOR
        room = np.minimum(room, distance - radius * 1.4 - 4)


def _scanned(hu: Field, rng: Rng) -> Field:
    """The picture as a scanner gives it: slightly blurred, with noise that is correlated between neighbours."""
    noise = ndimage.gaussian_filter(rng.standard_normal(hu.shape, np.float32), (0.4, 0.8, 0.8))
    blurred = ndimage.gaussian_filter(hu, (0.35, 0.6, 0.6))
    result: Field = blurred + noise * float(rng.uniform(10, 15) / noise.std())
    return result
