"""Rows 80 to 94 of the catalogue of faults: labels and datasets, from files to exit code and message."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cascade.cli import run_command
from preprocess.cases import folds, split
from preprocess.errors import UsageError
from preprocess.io import read_scan
from preprocess.layouts import find_cases, read_label
from preprocess.prepared import load_dataset
from tests.made_dataset import lits, scene, table, write

ODD = Path(__file__).resolve().parents[2].parent / "shared" / "odd"


@pytest.fixture(autouse=True)
def _in_threads(monkeypatch):
    """No new process a command: that they are processes is tested elsewhere."""
    monkeypatch.setattr("preprocess.workers.pool", ThreadPoolExecutor)


@pytest.fixture
def cascade(capsys):
    """Runs a command; its exit code, stdout and stderr."""

    def run(*arguments):
        code = run_command([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def refused(cascade, tmp_path):
    """`check` finds an error with this text and `prepare` refuses with it, in one line; nothing is prepared."""

    def both(source, *texts):
        code, out, err = cascade("check", source)
        assert code == 3, out + err
        found = [line for line in out.splitlines() if line.startswith("error")]
        for text in texts:
            assert any(text in line for line in found), out
        code, _, err = cascade("prepare", source, "-o", tmp_path / "never")
        assert (code, err.count("\n")) == (3, 1), err
        for text in texts:
            assert text in err
        assert not (tmp_path / "never" / "dataset.json").exists()

    return both


@pytest.fixture
def accepted(cascade, tmp_path):
    """`check` finds no error and `prepare` prepares; what check said, and the prepared dataset."""

    def both(source):
        code, out, err = cascade("check", source)
        assert code == 0, out + err
        code, _, err = cascade("prepare", source, "-o", tmp_path / "data")
        assert code == 0, err
        return out, load_dataset(tmp_path / "data")

    return both


def test_row_80_shape_mismatch(refused, tmp_path):
    lits(tmp_path / "lits", 2, 3)
    write(tmp_path / "lits/segmentation-3.nii", scene(3)[1][:-1])
    refused(tmp_path / "lits", "volume-3: the label has shape (7, 18, 20) and the image (8, 18, 20)")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"origin": (-120.5, -98.248, 310.0)}, "0.002 mm off the image (allowed: 0.001 mm), position"),
        ({"spacing": (5.001, 0.8, 0.7)}, "0.007 mm off the image (allowed: 0.001 mm), spacing (5.001, 0.8, 0.7)"),
        ({"direction": (-1, 0, 0, 0, -1, 0, 0, 0, 1)}, "mm off the image (allowed: 0.001 mm), position"),
        ({"direction": (1, 0, 0, 0, 0.9999995, -0.001, 0, 0.001, 0.9999995)}, "turned against it"),
    ],
)
def test_row_81_affine_mismatch(refused, tmp_path, change, text):
    lits(tmp_path / "lits", 2)
    lits(tmp_path / "lits", 3, **change)
    refused(tmp_path / "lits", "volume-3: the label lies", text)


def test_row_82_same_affine_within_tolerance(accepted, tmp_path):
    lits(tmp_path / "lits", 2)
    lits(tmp_path / "lits", 3, origin=(-120.5, -98.2495, 310.0))
    accepted(tmp_path / "lits")


def test_row_82_headers_rounded_to_float32(accepted, tmp_path):
    """An oblique scan far from the origin, its geometry in text (double) for the image and in float32 for the label."""
    c, s = np.cos(0.3), np.sin(0.3)
    geometry = {
        "spacing": (1.2500001, 0.70312501, 0.7031249),
        "origin": (-312.4567891, 214.7654321, 1536.5123457),
        "direction": (c, -s, 0, s, c, 0, 0, 0, 1),
    }
    hu, labels = np.pad(scene()[0], ((0, 0), (0, 494), (0, 492)), "edge"), np.zeros((8, 512, 512), np.uint8)
    labels[2:6, 5:12, 4:10] = 1
    write(tmp_path / "imagesTr/a.mha", hu, **geometry)
    write(tmp_path / "labelsTr/a.nii.gz", labels, **geometry)
    accepted(tmp_path)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int16, np.uint16, np.int8])
def test_row_83_float_labels(accepted, tmp_path, kind):
    lits(tmp_path / "lits", 2)
    write(tmp_path / "lits/segmentation-2.nii", scene()[1].astype(kind))
    _, dataset = accepted(tmp_path / "lits")
    assert dataset.cases[0].survey.tumor_ml == pytest.approx(12 * 5 * 0.8 * 0.7 / 1000, abs=1e-3)
    (case,) = find_cases(tmp_path / "lits")
    np.testing.assert_array_equal(read_label(case, read_scan(case.image).volume.grid).array, scene()[1])


@pytest.mark.parametrize("value", [1.5, np.nan, np.inf, 1 + 1e-6])
def test_row_83_fractions_and_no_numbers(refused, tmp_path, value):
    lits(tmp_path / "lits", 2, 3)
    labels = scene(3)[1].astype(np.float32)
    labels[3, 6, 6] = value
    write(tmp_path / "lits/segmentation-3.nii", labels)
    refused(tmp_path / "lits", f"label values 0, 1, {'1' if value == 1 + 1e-6 else f'{value:g}'}" if value < 2 else "")


@pytest.mark.parametrize(
    ("values", "shown"),
    [((0, 255), "0, 255;"), ((0, 1, 3), "0, 1, 3;"), ((0, 257), "0, 257;"), ((-1, 0, 1), "-1, 0, 1;")],
)
def test_row_84_other_values(refused, tmp_path, values, shown):
    lits(tmp_path / "lits", 2, 3)
    labels = np.zeros(scene()[1].shape, np.int16)
    labels.flat[: 10 * len(values)] = np.repeat(values, 10)
    write(tmp_path / "lits/segmentation-3.nii", labels)
    refused(tmp_path / "lits", f"segmentation-3.nii: label values {shown}", "map the others to these")


@pytest.mark.parametrize("name", ["labels_0_117.nii.gz", "label_values_0_257.nii.gz"])
def test_row_84_real_label_maps(cascade, tmp_path, name):
    if not ODD.is_dir():
        pytest.skip("no ../shared/odd")
    lits(tmp_path / "lits", 2, 3)
    shutil.copy(ODD / "nifti" / name, tmp_path / "lits/segmentation-3.nii.gz")
    (tmp_path / "lits/segmentation-3.nii").unlink()
    code, out, _ = cascade("check", tmp_path / "lits")
    assert code == 3
    assert f"{tmp_path / 'lits/segmentation-3.nii.gz'}: label values 0, " in out


def test_row_85_no_tumour_and_all_background(cascade, accepted, tmp_path):
    lits(tmp_path / "set", 2)
    for name, labels in (("healthy", scene(3, tumor=False)[1]), ("head", np.zeros_like(scene()[1]))):
        write(tmp_path / f"set/{name}.nii", scene(len(name))[0])
        write(tmp_path / f"set/{name}-label.nii", labels)
    rows = ["a,volume-2.nii,segmentation-2.nii", "b,healthy.nii,healthy-label.nii", "c,head.nii,head-label.nii"]
    out, dataset = accepted(table(tmp_path / "set", *rows))
    assert "1 with tumours, 1 without tumour, 1 without liver" in out
    assert "c: the label holds no liver" in out
    assert [case.survey.tumor_ml > 0 for case in dataset.cases] == [True, False, False]
    assert [case.survey.liver_ml > 0 for case in dataset.cases] == [True, True, False]
    tiny = [
        f"--set={s}"
        for s in ("network.features=[4, 8]", "network.stem=1", "sampling.patch=[4, 8, 8]", "training.validations=1")
    ]
    for stage in ("liver", "tumor"):
        code, _, err = cascade(f"train-{stage}", tmp_path / "data", "-o", tmp_path / stage, "--steps", 2, *tiny)
        assert code == 0, err


def test_row_86_label_without_image_and_reverse(cascade, refused, tmp_path):
    lits(tmp_path / "lits", *range(2, 7))
    for name in ("volume-2", "volume-3", "segmentation-4"):
        (tmp_path / f"lits/{name}.nii").unlink()
    _, out, _ = cascade("check", tmp_path / "lits")
    lines = [line for line in out.splitlines() if line.startswith("error")]
    folder = tmp_path / "lits"
    assert [line.split(";")[0].split(None, 1)[1] for line in lines] == [
        f"image without label: {folder}/volume-4.nii",
        f"label without image: {folder}/segmentation-2.nii",
        f"label without image: {folder}/segmentation-3.nii",
    ]
    assert "2 cases of 2 patients" in out  # the whole ones were looked at all the same
    refused(folder, "volume-4.nii")


def test_row_87_case_ids_twice(refused, tmp_path):
    lits(tmp_path, 2, 3)
    row = "volume-{0}.nii,segmentation-{0}.nii"
    refused(table(tmp_path, f"a,{row.format(2)}", f"a,{row.format(3)}"), "more than one case named a")


def test_row_87_same_bytes_under_two_names(refused, tmp_path):
    lits(tmp_path, 2, 3)
    shutil.copy(tmp_path / "volume-2.nii", tmp_path / "volume-3.nii")
    refused(tmp_path, "cases volume-2 and volume-3 are one scan")


def test_row_87_same_voxels_in_another_file(refused, tmp_path):
    """Compressed and in another data type: no byte is the same."""
    lits(tmp_path, 2, 3)
    (tmp_path / "volume-3.nii").unlink()
    write(tmp_path / "volume-3.nii.gz", scene(2)[0].astype(np.float32))
    refused(tmp_path, "cases volume-2, volume-3 hold the same voxels")


def test_row_88_one_scan_turned(cascade, tmp_path):
    """MSD Task03 holds the scans of LiTS with other directions."""
    lits(tmp_path, 2, 3)
    hu, labels = scene(2)
    turned = {"direction": (-1, 0, 0, 0, -1, 0, 0, 0, 1)}
    write(tmp_path / "volume-3.nii", hu, **turned)
    write(tmp_path / "segmentation-3.nii", labels, **turned)
    code, out, _ = cascade("check", tmp_path)
    assert code == 3
    assert "cases volume-2 and volume-3 hold the same HU turned or mirrored" in out


PAIRS_OF_ONE = [("volume-0", "volume-1"), ("3Dircadb1.1", "volume-28"), ("ircadb-20", "lits-47"), ("lits-5", "liver_5")]


@pytest.fixture
def four(tmp_path):
    """A table of four scans with file names that say nothing, by the names of the first two cases."""

    def written(one, other, header="case,image,label", ends=("", "", "", "")):
        for seed, letter in enumerate("wxyz"):
            hu, labels = scene(seed)
            write(tmp_path / f"{letter}.nii", hu)
            write(tmp_path / f"{letter}-label.nii", labels)
        rows = zip((one, other, "c", "d"), "wxyz", ends, strict=True)
        return table(tmp_path, *(f"{name},{x}.nii,{x}-label.nii{end}" for name, x, end in rows), header=header)

    return written


@pytest.mark.parametrize(("one", "other"), PAIRS_OF_ONE)
def test_row_88_one_patient_under_two_names(refused, four, one, other):
    source = four(one, other, "case,image,label,patient", (",A", ",B", ",C", ",D"))
    refused(source, f"cases {one}, {other} are one patient")


@pytest.mark.parametrize(("one", "other"), PAIRS_OF_ONE)
def test_row_88_one_patient_is_never_split(four, one, other):
    cases = find_cases(four(one, other))
    assert len({case.patient for case in cases}) == 3
    for fold in range(3):
        train, held_out = split(cases, fold, 3)
        assert not {case.patient for case in train} & {case.patient for case in held_out}
        assert len({one, other} & {case.name for case in train}) in (0, 2)


def test_row_88_label_of_the_next_case(refused, tmp_path):
    """The off-by-one hold-out: shapes and affines agree, names do not."""
    lits(tmp_path, 27, 28)
    rows = ["a,volume-27.nii,segmentation-28.nii"]
    refused(table(tmp_path, *rows), "volume-27.nii and segmentation-28.nii are two cases of LiTS")


def msd(folder):
    for name in ("a", "b"):
        hu, labels = scene(ord(name))
        write(folder / f"imagesTr/{name}.nii", hu)
        write(folder / f"labelsTr/{name}.nii", labels)
    return folder


OUTSIDE = ["/etc/a.nii", "../out/a.nii", "imagesTr/../../out/a.nii", "imagesTr/../imagesTr/a.nii", r"C:\a.nii"]


@pytest.mark.parametrize("path", [*OUTSIDE, "imagesTr/link.nii"])
def test_row_89_paths_that_lead_out(cascade, tmp_path, path):
    root = msd(tmp_path / "set")
    write(tmp_path / "out/a.nii", scene()[0])
    (root / "imagesTr/link.nii").symlink_to(tmp_path / "out/a.nii")
    (root / "dataset.json").write_text(json.dumps({"training": [{"image": path, "label": "labelsTr/a.nii"}]}))
    for command in (["check", root], ["prepare", root, "-o", tmp_path / "data"]):
        code, _, err = cascade(*command)
        assert (code, err.count("\n")) == (3, 1)
        assert f"dataset.json: the path {path!r} leads out of {root}; put the files inside it" in err


def test_row_90_loop_of_links(cascade, tmp_path):
    root = msd(tmp_path / "set")
    (root / "imagesTr/loop.nii").symlink_to(root / "imagesTr/loop.nii")
    (root / "labelsTr/loop.nii").symlink_to(root / "labelsTr/loop.nii")
    (root / "imagesTr/deeper").symlink_to(root)
    code, out, _ = cascade("check", root)
    assert code == 3
    assert "error    loop: " in out
    assert "3 cases of 3 patients" in out
    code, _, err = cascade("prepare", root, "-o", tmp_path / "data")
    assert (code, err.count("\n")) == (3, 1)
    assert "loop.nii" in err


def test_row_91_hidden_files(accepted, tmp_path):
    """What macOS leaves beside every file on a foreign disk, and what a copy that was stopped leaves."""
    root = msd(tmp_path / "set")
    for name in ("imagesTr/._a.nii", "labelsTr/._a.nii", "imagesTr/._c.nii", "imagesTr/.d.nii", "labelsTr/.DS_Store"):
        (root / name).write_bytes(b"\0\5\26\7 no image")
    out, dataset = accepted(root)
    assert [case.name for case in dataset.cases] == ["a", "b"]
    assert "2 cases of 2 patients" in out


ODD_NAMES = [
    "l\u00e9sion \u809d\u81d3 \U0001f600",
    "it's",
    'say "a"',
    "new\nline",
    "-o",
    "a b",
    "=1+1",
    "<i>",
    "\u809d" * 83 + "xx",
]


def test_row_92_odd_names(accepted, tmp_path):
    assert len((ODD_NAMES[-1] + ".nii").encode()) == 255
    for number, name in enumerate(ODD_NAMES):
        hu, labels = scene(number)
        write(tmp_path / "plain.nii", hu).rename(_made(tmp_path / "set/imagesTr") / f"{name}.nii")
        write(tmp_path / "plain.nii", labels).rename(_made(tmp_path / "set/labelsTr") / f"{name}.nii")
    out, dataset = accepted(tmp_path / "set")
    assert {case.name for case in dataset.cases} == set(ODD_NAMES)
    assert all(case.image("liver").size for case in dataset.cases)
    assert "new?line" in out
    assert out.startswith("check\nwarning")


def _made(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_row_92_a_case_id_of_255_bytes_in_a_table(accepted, tmp_path):
    lits(tmp_path, 2)
    name = "n" * 255
    _, dataset = accepted(table(tmp_path, f"{name},volume-2.nii,segmentation-2.nii"))
    assert dataset.cases[0].image("tumor").size


def test_row_93_read_only_dataset(accepted, tmp_path):
    """Nothing is made, changed or touched in it; without write permission, unless root runs this."""
    folder = lits(tmp_path / "lits", 2, 3)
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    changed = folder.stat().st_mtime_ns
    for path in (*folder.iterdir(), folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        accepted(folder)
        assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()} == before
        assert folder.stat().st_mtime_ns == changed
    finally:
        folder.chmod(0o755)


def test_row_93_a_file_that_may_not_be_read(cascade, monkeypatch, tmp_path):
    """Simulated, as permissions do not stop root: the other case is looked at, and the line says what to do."""
    folder = lits(tmp_path / "lits", 2, 3)
    plain = Path.open

    def refuse(path, *arguments, **options):
        if path.name == "volume-3.nii":
            raise PermissionError(13, "Permission denied", str(path))
        return plain(path, *arguments, **options)

    def compare(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr("filecmp.cmp", compare)
    code, out, _ = cascade("check", folder)
    assert code == 3
    assert f"error    volume-3: {folder}/volume-3.nii may not be read; check its permissions" in out
    assert "1 with tumours, 1 not usable" in out
    code, _, err = cascade("prepare", folder, "-o", tmp_path / "data")
    assert (code, err.count("\n")) == (5, 1)
    assert "volume-3.nii may not be read; check its permissions" in err


@pytest.mark.parametrize("kind", ["empty folder", "empty table", "empty imagesTr"])
def test_row_94_no_case(cascade, tmp_path, kind):
    source = tmp_path / "set"
    if kind == "empty imagesTr":
        (source / "imagesTr").mkdir(parents=True)
        (source / "labelsTr").mkdir()
    else:
        source.mkdir()
    source = table(source) if kind == "empty table" else source
    for command in (["check", source], ["prepare", source, "-o", tmp_path / "data"]):
        code, _, err = cascade(*command)
        assert (code, err.count("\n")) == (2, 1)
        assert "no case" in err


def test_row_94_one_case(cascade, accepted, tmp_path):
    out, _ = accepted(lits(tmp_path / "lits", 2))
    assert "all cases are of one patient, so none can be held out" in out
    code, _, err = cascade("train-liver", tmp_path / "data", "-o", tmp_path / "run")
    assert (code, err.count("\n")) == (2, 1)
    assert "all cases are of one patient, nothing can be held out; use --fold all" in err


def test_row_94_empty_fold(cascade, accepted, tmp_path):
    _, dataset = accepted(lits(tmp_path / "lits", 2, 3))
    code, _, err = cascade("train-liver", tmp_path / "data", "-o", tmp_path / "run", "--fold", "2/3")
    assert (code, err.count("\n")) == (2, 1)
    assert "fold 2 is outside 0..1" in err
    with pytest.raises(UsageError, match="leave a fold empty"):
        folds([*dataset.cases], 3)
