"""Which prediction is scored against which truth; what has no partner is named, never dropped."""

import pytest

from evaluate.case_table import CaseFacts
from evaluate.names import case_key
from evaluate.pairs import evaluate_pairs, pair_cases
from preprocess.errors import InputError, ResourceError


@pytest.fixture
def files(tmp_path):
    """`files("out/a.nii.gz", ...)`: empty files below a temporary folder, which is returned."""

    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return make


def pairs_in(root, predictions="out", truth="truth"):
    pairs = pair_cases(root / predictions, root / truth)
    return [(case, str(p.relative_to(root)), str(t.relative_to(root))) for case, p, t in pairs]


def test_output_of_cascade_run_pairs_with_a_lits_folder_in_natural_order(files):
    root = files(
        "out/volume-10/segmentation.nii.gz",
        "out/volume-2/segmentation.nii.gz",
        "out/volume-2/report.json",
        "out/run.json",
        "truth/segmentation-2.nii.gz",
        "truth/volume-2.nii.gz",
        "truth/segmentation-10.nii",
        "truth/volume-10.nii",
    )
    assert pairs_in(root) == [
        ("volume-2", "out/volume-2/segmentation.nii.gz", "truth/segmentation-2.nii.gz"),
        ("volume-10", "out/volume-10/segmentation.nii.gz", "truth/segmentation-10.nii"),
    ]


@pytest.mark.parametrize(
    ("prediction", "truth", "case"),
    [
        ("volume-3.nii.gz", "segmentation-3.nii", "volume-3"),
        ("segmentation-3.nii.gz", "segmentation-3.nii.gz", "volume-3"),
        ("liver_7.nii.gz", "liver_7.nii.gz", "liver_7"),
        ("liver_7_0000.nii.gz", "liver_7.nii.gz", "liver_7"),
        ("liver_7_0000/segmentation.nii.gz", "liver_7.nii.gz", "liver_7"),
        ("a.nrrd", "a/segmentation.nii.gz", "a"),
        ("a/segmentation.nii.gz", "a/segmentation.mha", "a"),
    ],
)
def test_layouts_pair(files, prediction, truth, case):
    root = files(f"out/{prediction}", f"truth/{truth}")
    assert pairs_in(root) == [(case, f"out/{prediction}", f"truth/{truth}")]


def test_hidden_files_and_other_files_are_no_cases(files):
    root = files("out/a.nii.gz", "truth/a.nii.gz", "truth/._a.nii.gz", "truth/notes.txt", "truth/empty/notes.txt")
    assert [case for case, *_ in pairs_in(root)] == ["a"]


def test_two_files_are_one_pair_whatever_their_names(files):
    root = files("out/mine.nii.gz", "truth/label.nrrd")
    assert pairs_in(root, "out/mine.nii.gz", "truth/label.nrrd") == [("mine", "out/mine.nii.gz", "truth/label.nrrd")]


def test_the_folder_of_one_case_is_its_mask(files):
    root = files("out/volume-3/segmentation.nii.gz", "truth/segmentation-3.nii")
    expected = [("volume-3", "out/volume-3/segmentation.nii.gz", "truth/segmentation-3.nii")]
    assert pairs_in(root, "out/volume-3", "truth/segmentation-3.nii") == expected
    assert pairs_in(root, "out/volume-3/segmentation.nii.gz", "truth/segmentation-3.nii") == expected


def test_unpaired_cases_of_both_sides_are_named(files):
    root = files("out/a.nii", "out/b.nii", "out/d.nii", "truth/a.nii", "truth/c10.nii", "truth/c2.nii")
    with pytest.raises(InputError, match="no prediction of c2, c10; no truth for b, d;"):
        pairs_in(root)


def test_a_truth_without_prediction_alone_is_an_error(files):
    with pytest.raises(InputError, match="no prediction of b;"):
        pairs_in(files("out/a.nii", "truth/a.nii", "truth/b.nii"))


def test_a_prediction_without_truth_alone_is_an_error(files):
    with pytest.raises(InputError, match="no truth for b;"):
        pairs_in(files("out/a.nii", "out/b.nii", "truth/a.nii"))


def test_an_image_beside_lits_labels_is_never_taken_for_a_truth(files):
    root = files("out/volume-1.nii", "out/volume-2.nii", "truth/segmentation-1.nii", "truth/volume-2.nii")
    with pytest.raises(InputError, match="no truth for volume-2;"):
        pairs_in(root)


def test_many_unpaired_cases_are_counted(files):
    root = files("out/a.nii", "truth/a.nii", *(f"truth/b{i}.nii" for i in range(12)))
    with pytest.raises(InputError, match="b8, b9 and 2 more;"):
        pairs_in(root)


@pytest.mark.parametrize("empty", ["out", "truth"])
def test_a_folder_without_cases_is_refused(files, empty):
    other = "truth" if empty == "out" else "out"
    root = files(f"{other}/a.nii", f"{empty}/notes.txt")
    with pytest.raises(InputError, match=f"{empty} holds no label file"):
        pairs_in(root)


def test_a_missing_path_is_refused(files):
    with pytest.raises(InputError, match="truth does not exist"):
        pairs_in(files("out/a.nii"))


def test_a_file_against_a_folder_of_cases_is_refused(files):
    with pytest.raises(InputError, match="one is a file, the other a folder"):
        pairs_in(files("out/a.nii", "truth/a.nii"), "out/a.nii")


def test_one_path_given_twice_is_refused(files):
    root = files("out/a.nii")
    (root / "truth").symlink_to(root / "out")
    with pytest.raises(InputError, match="is both prediction and truth"):
        pairs_in(root)


@pytest.mark.parametrize("second", ["a.nrrd", "a/segmentation.nii.gz", "a_0000.nii"])
def test_two_masks_of_one_case_are_refused(files, second):
    with pytest.raises(InputError, match="two masks of one case"):
        pairs_in(files("out/a.nii", f"out/{second}", "truth/a.nii"))


def test_two_masks_in_one_case_folder_are_refused(files):
    root = files("out/a/segmentation.nii", "out/a/segmentation.nii.gz", "truth/a.nii")
    with pytest.raises(InputError, match=r"holds segmentation\.nii\.gz and segmentation\.nii;"):
        pairs_in(root)


def test_a_folder_that_may_not_be_read_is_no_traceback(files, monkeypatch):
    def forbidden(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    root = files("out/a.nii", "truth/a.nii")
    monkeypatch.setattr("pathlib.Path.iterdir", forbidden)
    with pytest.raises(ResourceError, match=r"out cannot be read \(Permission denied\)"):
        pairs_in(root)


def test_case_keys():
    names = ("segmentation-12", "volume-12", "liver_3_0000", "_0000", "segmentation-x", "segmentation")
    expected = ["volume-12", "volume-12", "liver_3", "_0000", "segmentation-x", "segmentation"]
    assert [case_key(name) for name in names] == expected


def test_evaluate_pairs_reads_and_scores(tmp_path, write):
    pairs = [
        (
            "a",
            write(tmp_path / "p/a.nii.gz", {(0, 0, 0): 2, (1, 2, 3): 1}),
            write(tmp_path / "t/a.nii", {(0, 0, 0): 2}),
        ),
        ("b", write(tmp_path / "p/b.nii.gz", {(0, 0, 0): 1}), write(tmp_path / "t/b.nrrd", {(0, 0, 0): 1})),
    ]
    cohort = evaluate_pairs(pairs, {"b": CaseFacts("p", scores_tumor=False)}, convention="nnunet")
    assert [(c.case, c.liver_dice, c.tumor_dice) for c in cohort.cases] == [("a", 2 / 3, 1.0), ("b", 1.0, None)]
    assert [(c.patient, c.convention) for c in cohort.cases] == [("a", "nnunet"), ("p", "nnunet")]
    assert cohort.cases[0].liver_ml == pytest.approx(0.010)


def test_a_pair_that_is_not_at_one_place_is_named(tmp_path, write):
    prediction, truth = write(tmp_path / "p.nii.gz", {}, shift_mm=7), write(tmp_path / "t.nii.gz", {})
    with pytest.raises(InputError, match=r"case a: .* 7\.00 mm apart"):
        evaluate_pairs([("a", prediction, truth)])
    assert evaluate_pairs([("a", prediction, truth)], resample_truth=True).n == 1


def test_no_pair_is_refused():
    with pytest.raises(InputError, match="no pair"):
        evaluate_pairs([])
