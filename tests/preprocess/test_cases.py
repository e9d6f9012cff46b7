from pathlib import Path

import pytest

from preprocess.cases import Case, LabelFile, folds, lits_number, natural_key, public_patient, split
from preprocess.errors import UsageError


def case(name, patient="", **more):
    return Case(name, Path(f"{name}.nii"), LabelFile(Path(f"{name}-label.nii")), patient, **more)


def test_patient_defaults_to_the_name():
    assert case("a").patient == "a"
    assert case("a", "p").patient == "p"


@pytest.mark.parametrize("field", ["liver_label", "tumor_label"])
def test_unknown_label_source_is_refused(field):
    with pytest.raises(ValueError, match=f"{field} is 'gold'"):
        case("a", **{field: "gold"})


def test_scores_tumor_needs_a_label_with_tumours():
    assert case("a").scores_tumor
    assert case("a", tumor_label="automatic").scores_tumor
    assert not case("a", tumor_label="none").scores_tumor
    assert not Case("a", Path("a.nii"), None).scores_tumor


def test_natural_order():
    names = ["v-10", "v-2", "w", "v-02", "9"]
    assert sorted(names, key=natural_key) == ["9", "v-02", "v-2", "v-10", "w"]


def test_a_name_of_thousands_of_digits_has_its_place():
    assert sorted(["a" + "9" * 5000, "a10", "b"], key=natural_key) == ["a10", "a" + "9" * 5000, "b"]


def test_heaviest_patients_are_dealt_in_snake_order():
    cases = [case(name) for name in "abcdef"]
    weights = {"a": 1.0, "b": 6.0, "c": 3.0, "d": 5.0, "e": 2.0, "f": 4.0}
    # ranks b d f c e a; dealt 0 1 2 2 1 0
    assert folds(cases, 3, weights) == [["a", "b"], ["d", "e"], ["c", "f"]]


def test_a_patient_weighs_as_much_as_all_its_cases():
    cases = [case("a1", "a"), case("a2", "a"), case("b"), case("c")]
    # a = 5, b = 4, c = 3, dealt 0 1 1
    assert folds(cases, 2, {"a1": 2, "a2": 3, "b": 4, "c": 3}) == [["a1", "a2"], ["b", "c"]]


def test_the_order_of_cases_does_not_matter():
    cases = [case(f"c{i}", f"p{i % 7}") for i in range(20)]
    weights = {f"c{i}": 0.1 * (i % 3) for i in range(20)}
    assert folds(cases, 3, weights) == folds(cases[::-1], 3, weights)


def test_equal_weights_fall_back_to_a_fixed_hash():
    # sha256 begins ca97 (a), 3e23 (b), 2e7d (c), 18ac (d): dealt d c b a to 0 1 1 0.
    assert folds([case(name) for name in "abcd"], 2) == [["a", "d"], ["b", "c"]]


def test_every_case_is_held_out_once_and_patients_stay_whole():
    cases = [case(f"c{i}", f"p{i % 7}") for i in range(20)]
    dealt = folds(cases, 3)
    assert sorted(name for names in dealt for name in names) == sorted(c.name for c in cases)
    for fold in range(3):
        train, held_out = split(cases, fold, 3)
        assert [c.name for c in held_out] == sorted(dealt[fold], key=natural_key)
        assert len(train) + len(held_out) == 20
        assert not {c.patient for c in train} & {c.patient for c in held_out}


def test_a_patient_name_outside_unicode_is_hashed():
    assert folds([case("a", "p\udcff"), case("b", "ä")], 2)


@pytest.mark.parametrize("count", [1, 0, -1])
def test_fewer_than_two_folds_are_refused(count):
    with pytest.raises(UsageError, match="use at least 2"):
        folds([case("a"), case("b")], count)


def test_more_folds_than_patients_are_refused():
    with pytest.raises(UsageError, match="2 folds of 1 patients"):
        folds([case("a", "p"), case("b", "p")], 2)


@pytest.mark.parametrize("fold", [-1, 2])
def test_a_fold_outside_the_range_is_refused(fold):
    with pytest.raises(UsageError, match=rf"fold {fold} is outside 0\.\.1"):
        split([case("a"), case("b")], fold, 2)


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("volume-0", "lits-0"),
        ("volume-1", "lits-0"),
        ("lits-01", "lits-0"),
        ("LiTS_volume-2", "lits-2"),
        ("segmentation-27", "lits-27"),
        ("liver_28", "ircadb-01"),
        ("liver_28_0000", "ircadb-01"),
        ("volume-47", "ircadb-20"),
        ("3Dircadb1.17", "ircadb-17"),
        ("3D-IRCADb-01_17", "ircadb-17"),
        ("ircadb-17", "ircadb-17"),
        ("volume-48", "lits-48"),
        ("liver_130", "lits-130"),
        ("liver_131", ""),
        ("volume-131", ""),
        ("3Dircadb1.21", ""),
        ("3Dircadb1.0", ""),
        ("volume-1000", ""),
        ("test-volume-3", ""),
        ("my-volume-3", ""),
        ("volume-3b", ""),
        ("small-0", ""),
        ("chaos-3", ""),
        ("", ""),
    ],
)
def test_published_names_stand_for_one_patient(name, patient):
    assert public_patient(name) == patient


def test_every_patient_of_3dircadb_is_one_of_lits():
    for number in range(1, 21):
        assert lits_number(f"3Dircadb1.{number}") == number + 27
        assert public_patient(f"volume-{number + 27}") == public_patient(f"3Dircadb1.{number}")


@pytest.mark.parametrize(
    "image", ["data/volume-44.nii.gz", "imagesTr/liver_44_0000.nii.gz", "3Dircadb1.17/PATIENT_DICOM"]
)
def test_the_patient_is_known_by_the_file_where_no_other_is_given(image):
    assert Case("a", Path(image), None).patient == "ircadb-17"
    assert Case("a", Path(image), None, "p").patient == "p"
