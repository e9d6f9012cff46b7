"""What a table says of the cases that are scored."""

import pytest

from evaluate.case_table import CaseFacts, read_facts
from preprocess.errors import InputError


@pytest.fixture
def facts(tmp_path):
    """`facts("table text", case="truth file", ...)`: what a table in a temporary folder says of the cases."""

    def read(text, **truths):
        table = tmp_path / "cases.csv"
        table.write_text(text, encoding="utf-8-sig")
        names = {case.replace("_", "-"): tmp_path / truth for case, truth in truths.items()}
        return read_facts(table, names)

    return read


def test_patient_and_tumour_label_are_read(facts):
    table = "case,patient,tumor_label\nvolume-1,p1,expert\nvolume-2, p1 ,none\nvolume-3,,\nother,p9,none\n"
    assert facts(table, volume_1="a", volume_2="b", volume_3="c") == {
        "volume-1": CaseFacts("p1", True),
        "volume-2": CaseFacts("p1", False),
        "volume-3": CaseFacts("volume-3", True),
    }


def test_blanks_around_the_names_of_columns_mean_nothing(facts):
    table = "case , patient, tumor_label\nvolume-1, p1, none\n"
    assert facts(table, volume_1="a") == {"volume-1": CaseFacts("p1", False)}


def test_a_table_of_cases_alone_is_enough(facts):
    assert facts("case\nsegmentation-1\n", volume_1="a") == {"volume-1": CaseFacts("volume-1")}


def test_a_row_is_found_by_its_label_being_the_truth(facts):
    table = "case,label,patient\na,x/segmentation-1.nii,p1\nb,y/segmentation-1.nii,p2\n"
    assert facts(table, volume_1="y/segmentation-1.nii")["volume-1"].patient == "p2"


def test_a_row_is_found_by_the_name_of_its_files(facts):
    table = "case,image,label,patient\na,x/volume-1.nii,x/segmentation-1.nii,p1\nb,3/dicom,3/segmentation.nii,p3\n"
    assert facts(table, volume_1="elsewhere.nii")["volume-1"].patient == "p1"
    assert facts(table, **{"3": "elsewhere.nii"})["3"].patient == "p3"


def test_the_case_itself_comes_before_the_name_of_a_file(facts):
    table = "case,label,patient\nvolume-1,segmentation-2.nii,p1\nvolume-2,segmentation-1.nii,p2\n"
    assert facts(table, volume_1="t")["volume-1"].patient == "p1"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name,patient\na,b\n", "has no column case"),
        ("case,patient\nvolume-2,p\n", "has no row for case volume-1"),
        ("case,label\na,x/volume-1.nii\nb,y/volume-1.nii\n", "volume-1 may be a and b; name the case"),
        (
            "case,tumor_label\nvolume-1,yes\n",
            "tumor_label of case volume-1 is 'yes'; use one of expert",
        ),
        ("case,liver_label\nvolume-1,none\n", "liver_label of case volume-1 is none"),
        ("case,patient\nvolume-1,p,q\n", "line 2 has more or fewer fields"),
        ("case,patient\nvolume-1\n", "line 2 has more or fewer fields"),
    ],
)
def test_a_table_that_does_not_tell_is_refused(facts, table, message):
    with pytest.raises(InputError, match=message):
        facts(table, volume_1="t")


def test_a_table_that_is_none_is_refused(tmp_path):
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    for name in ("binary.csv", "absent.csv"):
        with pytest.raises(InputError, match="cannot be read as a CSV table"):
            read_facts(tmp_path / name, {})
