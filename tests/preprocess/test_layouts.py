import json
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from preprocess.cases import Case, DicomMasks, LabelFile, PngMasks
from preprocess.errors import InputError, ResourceError
from preprocess.geometry import Grid
from preprocess.io import read_labels, read_scan
from preprocess.layouts import find_cases, read_label

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def touch(root, *names):
    """Files whose bytes differ, as finding cases reads no image."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")


def table(root, *lines, header="case,image,label"):
    path = root / "cases.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def summary(cases):
    return [(c.name, c.patient) for c in cases]


# --- LiTS


def test_lits_flat(tmp_path):
    touch(tmp_path, "volume-10.nii", "segmentation-10.nii.gz", "volume-2.nii.gz", "segmentation-2.nii")
    assert find_cases(tmp_path) == [
        Case("volume-2", tmp_path / "volume-2.nii.gz", LabelFile(tmp_path / "segmentation-2.nii"), "lits-2"),
        Case("volume-10", tmp_path / "volume-10.nii", LabelFile(tmp_path / "segmentation-10.nii.gz"), "lits-10"),
    ]


@pytest.mark.parametrize(
    ("images", "labels"), [("ct", "label"), ("data", "label"), ("Training Batch 1", "Training Batch 1")]
)
def test_lits_in_folders(tmp_path, images, labels):
    touch(tmp_path, f"{images}/volume-05.nii", f"{labels}/segmentation-5.nii")
    (case,) = find_cases(tmp_path)
    assert (case.name, case.patient, case.image) == ("volume-05", "lits-5", tmp_path / images / "volume-05.nii")
    assert case.label == LabelFile(tmp_path / labels / "segmentation-5.nii")


def test_lits_patients_are_those_of_3dircadb(tmp_path):
    for n in (0, 1, 27, 28, 47, 48):
        touch(tmp_path, f"volume-{n}.nii", f"segmentation-{n}.nii")
    assert [c.patient for c in find_cases(tmp_path)] == [
        "lits-0",
        "lits-0",
        "lits-27",
        "ircadb-01",
        "ircadb-20",
        "lits-48",
    ]


def test_lits_without_partner_lists_both_kinds(tmp_path):
    touch(tmp_path, "volume-1.nii", "segmentation-2.nii", "volume-3.nii", "segmentation-3.nii")
    with pytest.raises(
        InputError, match=r"images without label: .*volume-1.nii; labels without image: .*segmentation-2"
    ):
        find_cases(tmp_path)


def test_a_long_list_is_cut(tmp_path):
    touch(tmp_path, *(f"volume-{n}.nii" for n in range(13)))
    with pytest.raises(InputError, match=r"volume-9.nii and 3 more;"):
        find_cases(tmp_path)


def test_one_lits_case_in_two_files_is_refused(tmp_path):
    touch(tmp_path, "volume-1.nii", "volume-1.nii.gz", "segmentation-1.nii")
    with pytest.raises(InputError, match="the same case"):
        find_cases(tmp_path)


def test_hidden_files_are_ignored(tmp_path):
    touch(tmp_path, "volume-1.nii", "segmentation-1.nii", "._volume-1.nii", ".volume-2.nii", "Thumbs.db")
    assert [c.name for c in find_cases(tmp_path)] == ["volume-1"]


# --- MSD and nnU-Net


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize("channel", ["", "_0000"])
def test_nnunet_folders(tmp_path, ending, channel):
    touch(tmp_path, f"imagesTr/a_1{channel}{ending}", f"labelsTr/a_1{ending}", "imagesTs/b_0000.nii", "imagesTr/x.json")
    (case,) = find_cases(tmp_path)
    image, label = tmp_path / f"imagesTr/a_1{channel}{ending}", tmp_path / f"labelsTr/a_1{ending}"
    assert case == Case("a_1", image, LabelFile(label))


def test_four_digits_in_a_case_name_are_no_channel(tmp_path):
    touch(tmp_path, "imagesTr/ct_0001.nii", "labelsTr/ct_0001.nii", "imagesTr/ct_0002_0000.nii", "labelsTr/ct_0002.nii")
    assert [c.name for c in find_cases(tmp_path)] == ["ct_0001", "ct_0002"]


def test_a_second_channel_is_refused(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.nii", "imagesTr/a_0001.nii", "labelsTr/a.nii")
    with pytest.raises(InputError, match="case a has a second channel, a_0001"):
        find_cases(tmp_path)


def test_task03_patients_are_those_of_lits(tmp_path):
    for n in (0, 1, 2, 46):
        touch(tmp_path, f"imagesTr/liver_{n}.nii.gz", f"labelsTr/liver_{n}.nii.gz")
    assert summary(find_cases(tmp_path)) == [
        ("liver_0", "lits-0"),
        ("liver_1", "lits-0"),
        ("liver_2", "lits-2"),
        ("liver_46", "ircadb-19"),
    ]


def msd(root, image, label="./labelsTr/a.nii.gz", **more):
    touch(root, "imagesTr/a_0000.nii.gz", "imagesTr/b_0000.nii.gz", "labelsTr/a.nii.gz", "labelsTr/b.nii.gz")
    (root / "dataset.json").write_text(json.dumps({"training": [{"image": image, "label": label}], **more}))
    return root


def test_dataset_json_chooses_the_cases_and_leaves_out_the_channel(tmp_path):
    (case,) = find_cases(msd(tmp_path, "./imagesTr/a.nii.gz"))
    assert case == Case("a", tmp_path / "imagesTr/a_0000.nii.gz", LabelFile(tmp_path / "labelsTr/a.nii.gz"))


def test_dataset_json_pairs_as_it_says(tmp_path):
    root = msd(tmp_path, "imagesTr/b_0000.nii.gz", label="labelsTr/a.nii.gz")
    (case,) = find_cases(root)
    assert case == Case("a", root / "imagesTr/b_0000.nii.gz", LabelFile(root / "labelsTr/a.nii.gz"))


@pytest.mark.parametrize(("image", "label"), [("imagesTr/a.bmp", "labelsTr/a.nii"), ("imagesTr/a.nii", "labelsTr/a")])
def test_dataset_json_with_another_ending_is_refused(tmp_path, image, label):
    with pytest.raises(InputError, match=r"ends in none of .nii.gz, .nii, .nrrd, .mha"):
        find_cases(msd(tmp_path, image, label))


def test_dataset_json_without_training_leaves_the_folders(tmp_path):
    msd(tmp_path, "")
    (tmp_path / "dataset.json").write_text('{"numTraining": 2, "labels": {"background": 0, "liver": 1, "tumor": 2}}')
    assert [(c.name, c.tumor_label) for c in find_cases(tmp_path)] == [("a", "expert"), ("b", "expert")]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"0": "background", "1": "liver", "2": "cancer"}, "expert"),
        ({"background": 0, "liver": [1, 2], "tumor": [2]}, "expert"),
        ({"0": "background", "1": "liver"}, "none"),
        ({"background": 0, "liver": 1}, "none"),
    ],
)
def test_a_dataset_without_class_2_has_no_tumour_labels(tmp_path, labels, expected):
    (case,) = find_cases(msd(tmp_path, "imagesTr/a.nii.gz", labels=labels))
    assert case.tumor_label == expected
    assert case.scores_tumor == (expected == "expert")


@pytest.mark.parametrize("path", ["/etc/a.nii.gz", "../imagesTr/a.nii.gz", "imagesTr/../../a.nii.gz", r"C:\a.nii.gz"])
def test_dataset_json_must_not_lead_out(tmp_path, path):
    with pytest.raises(InputError, match="leads out of"):
        find_cases(msd(tmp_path, path))
    with pytest.raises(InputError, match="leads out of"):
        find_cases(msd(tmp_path, "imagesTr/a.nii.gz", label=path))


def test_dataset_json_must_not_lead_out_over_a_link(tmp_path):
    touch(tmp_path, "secret.nii.gz")
    root = msd(tmp_path / "set", "imagesTr/c.nii.gz")
    (root / "imagesTr/c.nii.gz").symlink_to(tmp_path / "secret.nii.gz")
    with pytest.raises(InputError, match="leads out of"):
        find_cases(root)


def test_dataset_json_with_a_loop_of_links_is_refused(tmp_path):
    root = msd(tmp_path, "imagesTr/c.nii.gz")
    (root / "imagesTr/c.nii.gz").symlink_to(root / "imagesTr/c.nii.gz")
    with pytest.raises(InputError, match=r"loop of links|missing or broken"):
        find_cases(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("\xff", "cannot be read as JSON"),
        ("[]", "holds no JSON object"),
        ('{"training": {}, "x": 1}', None),
        ('{"training": 3}', "must be a list"),
        ('{"training": ["imagesTr/a.nii.gz"]}', "must be a list"),
        ('{"training": [{"image": "imagesTr/a.nii.gz"}]}', "must be a list"),
        ('{"training": [{"image": 3, "label": "b"}]}', "path 3 is no text"),
    ],
)
def test_broken_dataset_json(tmp_path, text, message):
    (msd(tmp_path, "") / "dataset.json").write_bytes(text.encode("latin-1"))
    if message is None:
        assert len(find_cases(tmp_path)) == 2
    else:
        with pytest.raises(InputError, match=message):
            find_cases(tmp_path)


def test_dataset_json_names_a_file_that_is_absent(tmp_path):
    root = msd(tmp_path, "imagesTr/z.nii.gz", "labelsTr/z.nii.gz")
    with pytest.raises(InputError, match=r"missing or broken links: .*z_0000.nii.gz"):
        find_cases(root)


# --- 3D-IRCADb-01


def ircadb(root, patient, *masks):
    folder = root / f"3Dircadb1.{patient}"
    touch(folder, "PATIENT_DICOM/image_0", *(f"MASKS_DICOM/{mask}/image_0" for mask in masks))
    return folder


def test_ircadb_parent_folder(tmp_path):
    ircadb(tmp_path, 10, "liver", "livertumor01", "livertumors2", "livercyst", "bone")
    ircadb(tmp_path, 7, "liver", "tumor")
    seven, ten = find_cases(tmp_path)
    assert (seven.name, seven.patient, ten.name, ten.patient) == ("ircadb-07", "ircadb-07", "ircadb-10", "ircadb-10")
    assert ten.image == tmp_path / "3Dircadb1.10/PATIENT_DICOM"
    masks = tmp_path / "3Dircadb1.10/MASKS_DICOM"
    assert ten.label == DicomMasks(masks / "liver", (masks / "livertumor01", masks / "livertumors2"))
    assert seven.label == DicomMasks(tmp_path / "3Dircadb1.7/MASKS_DICOM/liver")
    assert seven.scores_tumor


def test_ircadb_one_patient(tmp_path, monkeypatch):
    monkeypatch.chdir(ircadb(tmp_path, 1, "liver", "livertumors1"))
    (case,) = find_cases(Path())
    assert case.name == "ircadb-01"
    assert case.label == DicomMasks(Path("MASKS_DICOM/liver"), (Path("MASKS_DICOM/livertumors1"),))


def test_ircadb_unpacked_into_a_folder_of_its_name(tmp_path):
    touch(
        tmp_path / "3Dircadb1.2", "PATIENT_DICOM/PATIENT_DICOM/image_0", "MASKS_DICOM/MASKS_DICOM/liver/liver/image_0"
    )
    (case,) = find_cases(tmp_path)
    assert case.image == tmp_path / "3Dircadb1.2/PATIENT_DICOM/PATIENT_DICOM"
    assert case.label == DicomMasks(tmp_path / "3Dircadb1.2/MASKS_DICOM/MASKS_DICOM/liver/liver")


def test_ircadb_without_liver_mask_is_listed(tmp_path):
    ircadb(tmp_path, 1, "liver")
    ircadb(tmp_path, 2, "bone")
    with pytest.raises(InputError, match=r"images without label: .*3Dircadb1.2/PATIENT_DICOM;"):
        find_cases(tmp_path)


def test_ircadb_without_image_is_listed(tmp_path):
    ircadb(tmp_path, 1, "liver")
    touch(tmp_path, "3Dircadb1.2/MASKS_DICOM/liver/image_0")
    with pytest.raises(InputError, match=r"missing or broken links: .*3Dircadb1.2/PATIENT_DICOM;"):
        find_cases(tmp_path)


# --- CHAOS


def test_chaos_parent_and_single(tmp_path):
    touch(tmp_path, "10/DICOM_anon/i0.dcm", "10/Ground/liver_GT_000.png", "2/DICOM_anon/i0.dcm", "2/Ground/g.png")
    two, ten = find_cases(tmp_path)
    assert ten == Case("chaos-10", tmp_path / "10/DICOM_anon", PngMasks(tmp_path / "10/Ground"))
    assert ten.scores_tumor
    assert find_cases(tmp_path / "2") == [two]


def test_chaos_test_set_has_no_labels(tmp_path):
    touch(tmp_path, "10/DICOM_anon/i0.dcm")
    with pytest.raises(InputError, match=r"images without label: .*10/DICOM_anon;"):
        find_cases(tmp_path)


# --- CSV table


def test_csv_table(tmp_path):
    touch(tmp_path, "a b.nii", "l.nii", "dicom/1", "png/1.png", "masks/liver/1", "masks/livertumor/1", "series/1")
    touch(tmp_path, "d.nii", "e.nii")
    header = "\ufeffnote, case,label , image,tumor_label,patient,liver_label"
    path = table(
        tmp_path,
        '"x, y",c-10,l.nii,a b.nii,none,P,automatic',
        ",c-9,,dicom,,,",
        ",c-8,png,dicom/1,,,",
        ",c-7,masks,d.nii,,,",
        ",c-6,series,e.nii,,,",
        header=header,
    )
    assert find_cases(path) == [
        Case("c-6", tmp_path / "e.nii", LabelFile(tmp_path / "series")),
        Case("c-7", tmp_path / "d.nii", DicomMasks(tmp_path / "masks/liver", (tmp_path / "masks/livertumor",))),
        Case("c-8", tmp_path / "dicom/1", PngMasks(tmp_path / "png")),
        Case("c-9", tmp_path / "dicom", None),
        Case("c-10", tmp_path / "a b.nii", LabelFile(tmp_path / "l.nii"), "P", "automatic", "none"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("b,no.nii,l.nii", r"line 3: image .*no.nii is missing"),
        ("b,a.nii,no.nii", r"line 3: label .*no.nii is missing"),
        (",a.nii,l.nii", "line 3 has an empty case or image"),
        ("b,,l.nii", "line 3 has an empty case or image"),
        ("b,a.nii", "line 3 has more or fewer fields"),
        ("b,a.nii,l.nii,x", "line 3 has more or fewer fields"),
        ("a,b.nii,l.nii", "more than one case named a"),
        ("../b,b.nii,l.nii", r"case names that are no file names: '../b'"),
        ("..,b.nii,l.nii", "case names that are no file names"),
        ("b\0,b.nii,l.nii", "CSV table|no file names"),
        ('b,b.nii,"l.nii', "cannot be read as a CSV table"),
        ("b," + "n" * 300 + ",l.nii", r"line 3: image .*\.\.\. is missing"),
        ("b," + "n" * 5000 + ",l.nii", r"line 3: image .*\.\.\. is missing"),
        ("n" * 256 + ",b.nii,l.nii", "case names that are no file names: 'nnn"),
        ("1" * 5000 + ",b.nii,l.nii", "case names that are no file names: '111"),
    ],
)
def test_broken_csv_line(tmp_path, line, message):
    touch(tmp_path, "a.nii", "b.nii", "l.nii")
    with pytest.raises(InputError, match=message):
        find_cases(table(tmp_path, "a,a.nii,l.nii", line))


@pytest.mark.parametrize("column", ["liver_label", "tumor_label"])
def test_csv_with_another_label_source(tmp_path, column):
    touch(tmp_path, "a.nii", "l.nii")
    with pytest.raises(InputError, match=f"line 2: {column} is 'Expert'"):
        find_cases(table(tmp_path, "a,a.nii,l.nii,Expert", header=f"case,image,label,{column}"))


@pytest.mark.parametrize("header", ["case,image", "case;image;label", ""])
def test_csv_without_required_column(tmp_path, header):
    with pytest.raises(InputError, match=r"has no column .*label"):
        find_cases(table(tmp_path, header=header))


def test_csv_in_another_encoding(tmp_path):
    (tmp_path / "cases.csv").write_bytes("case,image,label\n\xe4,a,b\n".encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        find_cases(tmp_path / "cases.csv")


def test_csv_without_labelled_case(tmp_path):
    touch(tmp_path, "a.nii")
    with pytest.raises(InputError, match="no case with a label"):
        find_cases(table(tmp_path, "a,a.nii,"))


# --- all layouts


def test_no_layout_names_the_path_and_what_was_looked_for(tmp_path):
    touch(tmp_path, "deep/deeper/volume-1.nii", "a.nii")
    for source in (tmp_path, tmp_path / "absent", tmp_path / "a.nii"):
        with pytest.raises(InputError, match=r"no dataset at .*LiTS .*MSD .*3D-IRCADb-01 .*CHAOS .*CSV") as caught:
            find_cases(source)
        assert str(source) in str(caught.value)
    touch(tmp_path, "cases.csv")
    with pytest.raises(InputError, match=rf"; is {tmp_path}/cases.csv the table of one\? give that"):
        find_cases(tmp_path)


def test_two_layouts_in_one_folder_are_refused(tmp_path):
    touch(tmp_path, "volume-1.nii", "segmentation-1.nii", "3/DICOM_anon/1", "3/Ground/1.png")
    with pytest.raises(InputError, match=r"several datasets: LiTS .*CHAOS"):
        find_cases(tmp_path)


def test_a_scan_under_two_names_is_refused(tmp_path):
    touch(tmp_path, "segmentation-1.nii", "segmentation-2.nii")
    for n in (1, 2):
        (tmp_path / f"volume-{n}.nii").write_bytes(b"the same")
    with pytest.raises(InputError, match="cases volume-1 and volume-2 are one scan"):
        find_cases(tmp_path)
    (tmp_path / "volume-2.nii").write_bytes(b"not same")
    assert len(find_cases(tmp_path)) == 2


def test_a_dicom_folder_under_two_names_is_refused(tmp_path):
    touch(tmp_path, "dicom/1", "l.nii")
    (tmp_path / "again").symlink_to(tmp_path / "dicom")
    with pytest.raises(InputError, match="cases a and b are one scan"):
        find_cases(table(tmp_path, "a,dicom,l.nii", "b,again,l.nii"))


def test_loops_of_links_do_not_hang(tmp_path):
    touch(tmp_path, "volume-1.nii", "segmentation-1.nii")
    (tmp_path / "data").symlink_to(tmp_path)
    (tmp_path / "other").symlink_to(tmp_path / "other")
    with pytest.raises(InputError, match="the same case"):
        find_cases(tmp_path)
    with pytest.raises(InputError, match="no dataset"):
        find_cases(tmp_path / "other")


def test_a_broken_link_is_listed(tmp_path):
    touch(tmp_path, "segmentation-1.nii")
    (tmp_path / "volume-1.nii").symlink_to(tmp_path / "gone.nii")
    with pytest.raises(InputError, match=r"missing or broken links: .*volume-1.nii"):
        find_cases(tmp_path)


def test_odd_names_are_kept(tmp_path):
    names = ["-dash", "it's", "l\u00e9sion \u809d", "two words"]
    touch(tmp_path, *(f"imagesTr/{n}.nii" for n in names), *(f"labelsTr/{n}.nii" for n in names))
    assert [c.name for c in find_cases(tmp_path)] == names


def test_a_folder_without_permission_is_a_resource_error(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)  # chmod does not stop root
    with pytest.raises(ResourceError, match="Permission denied"):
        find_cases(tmp_path)


def test_finding_writes_nothing(tmp_path):
    touch(tmp_path, "volume-1.nii", "segmentation-1.nii")
    before = sorted(os.listdir(tmp_path))
    find_cases(tmp_path)
    assert sorted(os.listdir(tmp_path)) == before


# --- reading a label onto its image's grid

GRID = Grid((3, 4, 5), (2.0, 0.7, 0.5), (-10.0, -20.0, 100.0))


def write_label(path, *, origin=(-10.0, -20.0, 100.0), value=2, shape=(3, 4, 5)):
    array = np.zeros(shape, np.uint8)
    array[0, 1, 2], array[2, 3, 4] = 1, value
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing((0.5, 0.7, 2.0))
    image.SetOrigin(origin)
    SimpleITK.WriteImage(image, str(path))
    return Case("volume-7", path.with_name("image.nii"), LabelFile(path))


def test_label_on_the_grid_of_the_image(tmp_path):
    # 0.0005 mm off: within the tolerance
    labels = read_label(write_label(tmp_path / "l.nii", origin=(-10.0, -20.0005, 100.0)), GRID)
    assert labels.grid is GRID
    assert (labels.array[0, 1, 2], labels.array[2, 3, 4], labels.array.sum()) == (1, 2, 3)


def test_label_elsewhere_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"case volume-7: the label lies 0.2 mm off the image \(allowed: 0.001 mm\)"):
        read_label(write_label(tmp_path / "l.nii", origin=(-10.0, -20.2, 100.0)), GRID)


def test_label_of_another_shape_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"case volume-7: .*shape \(4, 4, 5\) and the image \(3, 4, 5\)"):
        read_label(write_label(tmp_path / "l.nii", shape=(4, 4, 5)), GRID)


def test_label_with_other_classes_names_the_case(tmp_path):
    with pytest.raises(InputError, match=r"case volume-7: "):
        read_label(write_label(tmp_path / "l.nii", value=3), GRID)


def test_unlabelled_case_has_no_label_to_read(tmp_path):
    with pytest.raises(InputError, match="case a has no label"):
        read_label(Case("a", tmp_path / "a.nii", None), GRID)


def test_broken_mask_folder_names_the_case(tmp_path):
    with pytest.raises(InputError, match=r"case a: .*0 DICOM slices"):
        read_label(Case("a", tmp_path, DicomMasks(tmp_path)), GRID)


# --- real data


@pytest.fixture
def data():
    if not DATA.is_dir():
        pytest.skip("no ../shared/data")
    return DATA


def test_the_table_of_real_cases(data):
    cases = {c.name: c for c in find_cases(data / "cases.csv")}
    assert list(cases) == [
        "chaos-3",
        *(f"lits-{n}" for n in (0, 1, 2, 3, 4, 5, 13, 46)),
        "small-0",
    ]
    assert cases["lits-0"].patient == cases["lits-1"].patient == "P00"
    assert [n for n, c in cases.items() if not c.scores_tumor] == ["lits-13", "lits-46", "small-0"]
    assert cases["small-0"].liver_label == "automatic"


def test_real_lits_folder(data):
    assert summary(find_cases(data / "lits"))[-2:] == [("volume-13", "lits-13"), ("volume-46", "ircadb-19")]


def test_real_chaos_label_lies_on_its_image(data):
    (case,) = find_cases(data / "chaos")
    grid = read_scan(case.image).volume.grid
    labels = read_label(case, grid)
    published = read_labels(data / "chaos/3/segmentation.nii.gz")
    np.testing.assert_array_equal(labels.array, published.array)
    assert published.grid.mismatch_mm(grid) < 1e-3


@pytest.mark.parametrize(("number", "tumor_ml"), [(0, 6.4), (1, 15.9)])
def test_real_lits_labels_lie_on_their_images(data, number, tumor_ml):
    case = find_cases(data / "lits")[number]
    labels = read_label(case, read_scan(case.image).volume.grid)
    assert labels.ml(at_least=2) == pytest.approx(tumor_ml, abs=0.06)
