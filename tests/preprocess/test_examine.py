"""What a close look at one case finds; each finding on a scene that lacks it but for one change."""

from pathlib import Path

import numpy as np
import pytest

from preprocess.cases import Case, LabelFile
from preprocess.examine import examine, values_id
from preprocess.geometry import Grid
from preprocess.io import read_labels, read_scan, write_image
from preprocess.volume import LabelMap, Volume, content_id
from tests.made_dataset import write

SHAPE, SPACING = (40, 60, 70), (5.0, 1.5, 1.4)


def scene():
    """HU and classes (z, y, x) of a liver of 494 mL, with a tumour of 10.6 mL, as a healthy case."""
    hu = np.full(SHAPE, -1000, np.int16)
    hu[:, 5:55, 4:66] = 20
    labels = np.zeros(SHAPE, np.uint8)
    labels[10:31, 8:48, 6:62] = 1
    labels[14:17, 20:32, 12:40] = 2
    hu[labels == 1] = 100
    hu[labels == 2] = 60
    return hu, labels


@pytest.fixture
def look(tmp_path):
    """`examine` of a case made of these arrays."""

    def at(hu=None, labels=None, name="a", spacing=SPACING, origin=(-40.0, -30.0, 800.0), **known):
        image = write(tmp_path / "image.nii", scene()[0] if hu is None else hu, spacing=spacing, origin=origin)
        label = write(tmp_path / "label.nii", scene()[1] if labels is None else labels, spacing=spacing, origin=origin)
        return examine(Case(name, image, LabelFile(label), **known))

    return at


def texts(seen):
    return [finding.text for finding in seen.findings]


def test_a_healthy_case_is_measured_and_nothing_found(look):
    seen = look()
    ml = 5.0 * 1.5 * 1.4 / 1000
    assert texts(seen) == []
    assert (seen.shape, seen.spacing_mm, seen.hu) == (SHAPE, pytest.approx(SPACING), (-1000, 100))
    assert seen.liver_ml == pytest.approx(21 * 40 * 56 * ml, abs=1e-3)
    assert seen.tumor_ml == pytest.approx(3 * 12 * 28 * ml, abs=1e-3)
    assert (seen.lesions, seen.liver_hu, seen.odd_share, seen.context, seen.clipped) == (1, 100, 0, True, False)


def test_a_case_whose_tumours_are_not_labelled_has_none(look):
    seen = look(tumor_label="none")
    assert (seen.tumor_ml, seen.lesions) == (0, 0)


def test_a_case_without_label(tmp_path):
    seen = examine(Case("a", write(tmp_path / "a.nii", scene()[0], spacing=SPACING), None))
    assert (seen.liver_ml, seen.liver_hu, seen.mask, texts(seen)) == (0, None, "", [])


@pytest.mark.parametrize(("planes", "level"), [(0, None), (1, "warning"), (4, "error")])
def test_a_label_that_does_not_lie_on_a_liver(look, planes, level):
    """Of 21 planes of the liver, so many are air: 4.9 % are odd, 19.5 % wrong."""
    hu, labels = scene()
    hu[27 : 27 + planes] = -800
    hu[27 : 27 + planes, 0, 0] = -801  # slices of one value show nothing
    seen = look(hu, labels)
    assert [finding.severity for finding in seen.findings] == ([level] if level else [])
    if planes == 4:
        assert texts(seen)[0].startswith("19.5% of the liver's label lie on air, fat or bone (outside -70 to 230 HU")


@pytest.fixture
def lits():
    folder = Path(__file__).resolve().parents[2].parent / "shared/data/lits"
    if not folder.is_dir():
        pytest.skip("no ../shared/data")
    return folder


def test_a_real_label_lies_on_its_liver_and_the_next_one_does_not(lits, tmp_path):
    """The off-by-one hold-out: volume-1 with segmentation-2, cut so that the shapes agree."""
    own = examine(Case("volume-1", lits / "volume-1.nii.gz", LabelFile(lits / "segmentation-1.nii.gz")))
    assert own.odd_share < 0.001
    assert {finding.severity for finding in own.findings} == {"warning"}
    said = [finding.text for finding in own.findings]
    assert ["clipped to a window" in said[0], "its end is cut off" in said[1], len(said)] == [True, True, 2]
    scan = read_scan(lits / "volume-1.nii.gz").volume
    other = read_labels(lits / "segmentation-2.nii.gz").array[40 : 40 + len(scan.array)]
    write_image(tmp_path / "label.nii.gz", LabelMap(other, scan.grid))
    wrong = examine(Case("a", lits / "volume-1.nii.gz", LabelFile(tmp_path / "label.nii.gz")))
    assert wrong.odd_share > 0.1
    assert "error" in [finding.severity for finding in wrong.findings]


def test_hu_that_were_never_rescaled(look):
    (finding,) = look(scene()[0] + np.int16(500)).findings[-1:]
    assert finding.severity == "error"
    assert "median 600 HU" in finding.text
    mended = look(scene()[0] + np.int16(1024))
    assert mended.liver_hu == look(scene()[0]).liver_hu
    assert "look like CT without its rescale (HU + 1024): 1024 was subtracted" in texts(mended)[0]


@pytest.mark.parametrize(
    ("spacing", "ml"), [((2.5, 1.2, 1.1), "155.2"), ((7.0, 3.89, 3.89), ""), ((7.0, 3.9, 3.9), "5008")]
)
def test_a_liver_of_odd_size(look, spacing, ml):
    told = [text for text in texts(look(spacing=spacing)) if "a liver of" in text]
    assert told == ([f"a liver of {ml} mL is outside 400 to 5000 mL; are label and spacing right?"] if ml else [])


def test_odd_spacing_and_an_affine_that_was_never_filled_in(look):
    told = texts(look(spacing=(5.0, 1.6, 1.4)))
    assert told == [
        "spacing 5 x 1.6 x 1.4 mm (z, y, x) is unusual (CT of the abdomen: 0.4 to 7.5 and 0.4 to 1.5 mm); "
        "is the header right?"
    ]
    told = texts(look(spacing=(1.0, 1.0, 1.0), origin=(0, 0, 0), name="volume-30"))
    assert "the affine was never filled in (as published for LiTS 28-47)" in told[0]
    assert not any("never filled in" in text for text in texts(look(spacing=(1.0, 1.0, 1.0))))


def test_few_slices(look):
    hu, labels = scene()
    assert "19 slices, 95 mm: too few to show a whole liver; was the scan cut?" in texts(look(hu[10:29], labels[10:29]))
    assert texts(look(hu[9:32], labels[9:32])) == []


@pytest.mark.parametrize(("first", "last", "cut"), [(9, 32, False), (10, 32, True), (9, 31, True)])
def test_a_liver_cut_by_the_scan(look, first, last, cut):
    hu, labels = scene()
    seen = look(hu[first:last], labels[first:last])
    assert seen.context != cut
    assert any("reaches the first or last slice" in text for text in texts(seen)) == cut


def test_no_liver(look):
    assert texts(look(labels=scene()[1] * 0))[0].startswith("the label holds no liver")
    assert texts(look(labels=scene()[1] * 0, liver_label="none")) == []


def test_liver_in_parts_and_tumours_beside_it(look):
    hu, labels = scene()
    labels[34:38, 40:50, 30:50] = 1  # 8.4 mL
    labels[33, 12:15, 12:14] = 2  # 0.063 mL
    hu[labels > 0] = 100
    told = texts(look(hu, labels))
    assert told[0].startswith("the liver is in 2 parts, the second of 8.4 mL;")
    assert told[1].startswith("1 tumours with 0.063 mL in all touch no liver;")


def test_stray_voxels_are_left_alone(look):
    hu, labels = scene()
    labels[34, 40:50, 30:50] = 1  # 2.1 mL of 496
    labels[33, 12:14, 12:14] = 2  # 0.042 mL
    hu[labels > 0] = 100
    assert texts(look(hu, labels)) == []


@pytest.mark.parametrize(
    ("name", "tumor", "said"),
    [
        ("volume-32", True, "10.58 mL of tumour, but LiTS 32 is published without"),
        ("3Dircadb1.5", True, "10.58 mL of tumour, but LiTS 32 is published without"),
        ("volume-32", False, None),
        ("volume-33", True, None),
        ("liver_33", False, "no tumour, but LiTS 33 is published with"),
        ("patient-33", False, None),
    ],
)
def test_tumours_of_lits_are_as_published(look, name, tumor, said):
    labels = scene()[1] if tumor else scene()[1].clip(0, 1)
    hu = scene()[0]
    told = texts(look(hu, labels, name=name))
    assert [text.startswith(said or "") for text in told] == ([True] if said else [])


@pytest.mark.parametrize(
    ("low", "high", "clipped"), [(-160, 240, True), (-1000, 3000, False), (-160, 3000, False), (-1000, 100, False)]
)
def test_clipped_hu(look, low, high, clipped):
    hu = scene()[0]
    hu[:, 50:54, 20:40] = 2500  # bone
    assert look(hu.clip(low, high)).clipped == clipped


def test_the_reader_is_heard(look):
    hu = scene()[0].astype(np.float32)
    hu[0, 0, :3] = np.nan
    assert any("3 voxels are not finite" in text for text in texts(look(hu)))


def test_values_are_the_same_however_the_image_is_turned():
    hu = np.arange(24, dtype=np.int16).reshape(2, 3, 4) - 100
    grid = Grid((2, 3, 4), (1.0, 1.0, 1.0))
    turned = Volume(hu[::-1, :, ::-1], grid)
    assert values_id(Volume(hu, grid)) == values_id(turned)
    assert content_id(Volume(hu, grid)) != content_id(turned)
    moved = Volume(hu.transpose(2, 0, 1), Grid((4, 2, 3), (1.0, 1.0, 1.0)))
    assert values_id(moved) == values_id(turned)
    other = hu.copy()
    other[0, 0, 0] += 1
    assert values_id(Volume(other, grid)) != values_id(turned)
    assert values_id(Volume(hu + 1, grid)) != values_id(turned)
    assert values_id(Volume(hu.astype(np.float32), grid)) == values_id(turned)


def test_a_mask_is_told_by_its_content(look):
    grid = Grid(SHAPE, SPACING)
    assert look().mask == content_id(LabelMap(scene()[1], grid))
