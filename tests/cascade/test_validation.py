import numpy as np
import pytest

from cascade.stages import LIVER, TUMOR
from cascade.validation import Validation, validate
from evaluate.detection import Detection
from preprocess.prepared import load_dataset


def answer(*regions):
    """An `Infer` that gives these regions, as fractions of columns, whatever the image."""

    def infer(image, where):
        out = np.zeros((len(regions), *image.shape), np.float32)
        for channel, part in zip(out, regions, strict=True):
            channel[part] = 0.9
        return out

    return infer


TRUE_LIVER = np.s_[2:10, 3:11, 2:12]


def test_the_true_liver_scores_one_and_names_are_kept(prepared):
    dataset = load_dataset(prepared)
    result = validate(LIVER, dataset.preparations["liver"], dataset.cases, answer(TRUE_LIVER))
    assert result.cases == {name: {"liver": 1.0} for name in "abc"}
    assert result.mean("liver") == 1.0
    assert result.table() == [{"liver": 1.0}] * 3


def test_a_tumour_implies_liver_and_unlabelled_ones_are_not_scored(prepared):
    dataset = load_dataset(prepared)
    tumour_alone = answer(np.s_[:0], np.s_[4:7, 5:8, 5:9])  # all of 12 x 14 x 16 is within 10 mm of the liver
    result = validate(TUMOR, dataset.preparations["tumor"], dataset.cases[1:], tumour_alone)
    liver = pytest.approx(2 * 36 / (36 + 640))
    assert result.cases == {"b": {"liver": liver, "tumor": 1.0}, "c": {"liver": liver, "tumor": None}}
    assert result.means() == {"liver_dice": liver, "tumor_dice": 1.0}


def test_which_class_is_taken_for_which(prepared):
    dataset = load_dataset(prepared)
    # Of the tumour's 3 x 3 x 4 voxels 9 are called liver, and 18 of the liver's other 604 tumour.
    result = validate(
        TUMOR, dataset.preparations["tumor"], dataset.cases[1:], answer(TRUE_LIVER, np.s_[4:7, 5:8, 6:11])
    )
    assert list(result.confusions) == ["b"]  # of c the tumours are not labelled
    confused = result.confused()
    assert confused.pop("tumor_as_liver") == 9 / 36
    assert confused.pop("liver_as_tumor") == 18 / 604
    assert confused == dict.fromkeys(
        ("background_as_liver", "background_as_tumor", "liver_as_background", "tumor_as_background"), 0.0
    )
    liver = validate(LIVER, dataset.preparations["liver"], dataset.cases, answer(np.s_[2:10, 3:11, 2:7]))
    # Half of the tumours too; that stage 1 calls the other half liver is right.
    shares = {"background_as_liver": 0.0, "liver_as_background": 0.5, "tumor_as_background": 0.5}
    assert liver.confused() == shares


def test_the_picture_is_the_slice_with_most_of_the_highest_class(prepared):
    dataset = load_dataset(prepared)
    everything = answer(np.s_[:], np.s_[:0])
    picture = validate(TUMOR, dataset.preparations["tumor"], dataset.cases[:1], everything).picture
    assert (picture.truth == 2).sum() == 12
    assert (picture.prediction == 1).all()
    assert picture.image.shape == picture.truth.shape == (14, 16)


def test_nothing_to_score_has_no_mean():
    assert Validation({"a": {"tumor": None}}).mean("tumor") is None
    assert Validation({}).means() == {}


def test_lesions_are_counted_by_size_where_tumours_are_scored(prepared):
    dataset = load_dataset(prepared)
    # The tumour of 3 x 3 x 4 voxels of 27 mm3 is as large as a sphere of 12.3 mm; a single voxel of 3.7 mm.
    two = np.zeros((12, 14, 16), bool)
    two[4, 5, 5] = two[9, 9, 9] = True
    result = validate(TUMOR, dataset.preparations["tumor"], dataset.cases[1:], answer(np.s_[:0], two))
    none = Detection()
    assert result.lesions == {"b": {"<10": Detection(0, 0, 2, 1), "10-20": Detection(1, 1), ">20": none}}
    assert result.found() == result.lesions["b"]
    assert result.text().endswith(", 1 of 1 lesions found, 1 false")
    again = Validation.from_table(result.table())
    assert (again.found(), again.means(), again.table()) == (result.found(), result.means(), result.table())
    liver = validate(LIVER, dataset.preparations["liver"], dataset.cases, answer(TRUE_LIVER))
    assert liver.lesions == liver.found() == {}
    assert liver.text() == "liver 1.000"


def test_what_no_case_scores_is_said_so():
    assert Validation({"a": {"liver": 0.5, "tumor": None}}).text() == "liver 0.500, tumor not scored"
