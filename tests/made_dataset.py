"""Tiny datasets that look like CT: air, a body of soft tissue, a liver in it, a tumour in the liver."""

import numpy as np
import SimpleITK as sitk

SHAPE = (8, 18, 20)
SPACING = (5.0, 0.8, 0.7)


def scene(seed=0, *, tumor=True):
    """HU (int16) and classes (uint8), (z, y, x); another seed is another noise, not another anatomy."""
    hu = np.full(SHAPE, -1000, np.int16)
    hu[:, 3:16, 2:18] = 30
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:6, 5:12, 4:10] = 1
    if tumor:
        labels[3:5, 7:9, 5:8] = 2
    hu[labels == 1] = 110
    hu[labels == 2] = 60
    noise = np.random.default_rng(seed).integers(-9, 10, SHAPE)
    return (hu + noise).astype(np.int16), labels


def write(path, array, *, spacing=SPACING, origin=(-120.5, -98.25, 310.0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1)):
    """Any array (z, y, x) as an image file; spacing (z, y, x) in mm, origin and direction as SimpleITK has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing[::-1])
    image.SetOrigin(origin)
    image.SetDirection([float(value) for value in direction])
    sitk.WriteImage(image, str(path))
    return path


def lits(folder, *numbers, **changes):
    """A LiTS folder; `changes` are for `write` of the labels."""
    for number in numbers:
        hu, labels = scene(number)
        write(folder / f"volume-{number}.nii", hu)
        write(folder / f"segmentation-{number}.nii", labels, **changes)
    return folder


def table(folder, *rows, header="case,image,label"):
    """cases.csv with these lines."""
    path = folder / "cases.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path
