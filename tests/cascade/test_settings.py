import dataclasses
import json
from pathlib import Path

import pytest

from cascade.settings import Settings, as_table, completed, load_settings, settings_from, shipped_table
from preprocess.errors import UsageError
from stage1_liver.recipe import LiverPolicy
from stage2_tumor.recipe import TumorPolicy

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def write(folder, text, name="mine.toml"):
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def message(stage="liver", files=(), assignments=()):
    with pytest.raises(UsageError) as caught:
        load_settings(stage, files, assignments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("stage", "kind"), [("liver", LiverPolicy), ("tumor", TumorPolicy)])
def test_the_shipped_recipes_are_complete(stage, kind):
    settings = load_settings(stage)
    assert isinstance(settings, Settings)
    assert isinstance(settings.policy, kind)


@pytest.mark.parametrize("stage", ["liver", "tumor"])
def test_the_demo_is_laid_over_its_stage(stage):
    demo = as_table(load_settings(stage, [CONFIGS / f"demo_{stage}.toml"]))
    over = shipped_table(f"demo_{stage}")
    assert set(over.get("policy", {})) <= {"tumor_threshold", "tumor_peak"}  # so short a training is sure of little
    assert demo["network"]["features"] == (8, 16, 32, 64)
    for table, below in as_table(load_settings(stage)).items():
        for key, value in below.items():
            wanted = over.get(table, {}).get(key, value)
            assert demo[table][key] == (tuple(wanted) if isinstance(wanted, list) else wanted), (table, key)


def test_no_setting_has_a_default():
    for kind in {type(getattr(load_settings("liver"), f.name)) for f in dataclasses.fields(Settings)} | {Settings}:
        for field in dataclasses.fields(kind):
            assert field.default is field.default_factory is dataclasses.MISSING


@pytest.mark.parametrize("stage", ["liver", "tumor"])
def test_round_trip(stage):
    settings = load_settings(stage, assignments=["training.seed=77", "network.features=[1, 2]", "network.stem=1"])
    assert settings_from(as_table(settings), stage, "here") == settings


def test_round_trip_through_json():
    settings = load_settings("tumor")
    assert settings_from(json.loads(json.dumps(as_table(settings))), "tumor", "here") == settings


def test_files_lie_over_the_recipe_in_order_and_assignments_over_all(tmp_path):
    one = write(tmp_path, "[training]\nsteps = 10\nvalidations = 3\nseed = 5\n", "1.toml")
    two = write(tmp_path, "[training]\nsteps = 20\nvalidations = 4\n", "2.toml")
    both = load_settings("liver", [one, two], ["training.steps=30", "policy.threshold=0.25"])
    assert dataclasses.astuple(both.training) == (30, 4, 5, load_settings("liver").training.teacher_share)
    assert both.policy.threshold == 0.25
    assert both.window == load_settings("liver").window
    assert load_settings("liver", [two, one]).training.steps == 10
    assert load_settings("liver", [one], ["training.steps=30", "training.steps=40"]).training.steps == 40


@pytest.mark.parametrize(
    ("assignment", "read", "value"),
    [
        ("training.seed=3", lambda s: s.training.seed, 3),
        (" training.seed = 3", lambda s: s.training.seed, 3),
        ("optimizer.learning_rate=1e-3", lambda s: s.optimizer.learning_rate, 0.001),
        ("sampling.patch=[16, 32, 48]", lambda s: s.sampling.patch, (16, 32, 48)),
        ("sampling.shares={ liver = 1, anywhere = 0.5 }", lambda s: s.sampling.shares, {"liver": 1.0, "anywhere": 0.5}),
        ("sampling.shares={ liver = 0 }", lambda s: s.sampling.shares, {"liver": 0.0, "anywhere": 0.4}),
        ("sampling.shares.liver=1", lambda s: s.sampling.shares, {"liver": 1.0, "anywhere": 0.4}),
        ("sampling.shares={}", lambda s: s.sampling.shares, {"liver": 0.6, "anywhere": 0.4}),
        ("preparation.window_hu=[-100, 200]", lambda s: s.preparation.window_hu, (-100.0, 200.0)),
    ],
)
def test_assignments_are_toml_values(assignment, read, value):
    assert read(load_settings("liver", assignments=[assignment])) == value


def test_a_whole_number_will_do_for_a_number():
    decay = load_settings("liver", assignments=["optimizer.weight_decay=1"]).optimizer.weight_decay
    assert (decay, type(decay)) == (1.0, float)


@pytest.mark.parametrize("assignment", ["training.seed", "seed=3", "training=3", "=3"])
def test_an_assignment_of_another_form_is_refused(assignment):
    assert message(assignments=[assignment]) == (
        f"--set {assignment}: write table.key=value, e.g. --set training.seed=3"
    )


@pytest.mark.parametrize("value", ["", "a b", "[1, 2", "1 2", "True", "Inf"])
def test_an_assignment_that_is_no_toml_is_refused(value):
    text = message(assignments=[f"training.seed={value}"])
    assert text.startswith(f"--set training.seed={value}: {value!r} is no TOML value")


def test_a_word_needs_no_quotes_which_a_shell_takes_away():
    for value in ("dice_ce", '"dice_ce"', " dice_ce "):
        assert load_settings("tumor", assignments=[f"loss.name={value}"]).loss.name == "dice_ce"
    assert "training.seed" in message(assignments=["training.seed=abc"])


def test_an_unknown_key_names_the_file_the_table_the_key_and_the_known_keys(tmp_path):
    path = write(tmp_path, "[training]\nstep = 10\n")
    known = "steps, validations, seed, teacher_share"
    assert message(files=[path]) == f"{path}: unknown key training.step; known here: {known}"


def test_an_unknown_table_names_the_file_and_the_known_tables(tmp_path):
    path = write(tmp_path, "[trainig]\nsteps = 10\n")
    assert message(files=[path]) == (
        f"{path}: unknown key trainig; known here: network, preparation, sampling, augmentation, lesions, loss, "
        "optimizer, training, window, policy"
    )


def test_an_unknown_key_of_an_assignment():
    assert message(assignments=["window.stride=1"]) == (
        "--set window.stride=1: unknown key window.stride; known here: size, step, one_pass_voxels"
    )


def test_keys_of_the_other_stage_are_unknown():
    assert "unknown key policy.reach_mm; known here: threshold" in message(assignments=["policy.reach_mm=1.0"])
    assert "unknown key policy.margin_mm; known here: stage2_weight" in message(
        "tumor", assignments=["policy.margin_mm=1.0"]
    )


def test_a_value_where_a_table_belongs(tmp_path):
    path = write(tmp_path, "training = 3\n")
    assert message(files=[path]) == f"{path}: training must be a table, [training]"


@pytest.mark.parametrize(
    ("assignment", "end"),
    [
        ("training.seed=3.0", "training.seed = 3.0 is not of the kind whole number"),
        ("training.seed=true", "training.seed = True is not of the kind whole number"),
        ("training.seed='3'", "training.seed = '3' is not of the kind whole number"),
        ("training.seed=[3]", "training.seed = [3] is not of the kind whole number"),
        ("optimizer.learning_rate=true", "optimizer.learning_rate = True is not of the kind number"),
        ("optimizer.learning_rate='fast'", "optimizer.learning_rate = 'fast' is not of the kind number"),
        ("sampling.patch=64", "sampling.patch = 64 is not of the kind list of numbers"),
        ("sampling.patch=[64, 64]", "sampling.patch = [64, 64] must hold 3 values"),
        ("sampling.patch=[64, 64, 6.5]", "sampling.patch = 6.5 is not of the kind whole number"),
        ("network.features=[8, '16']", "network.features = '16' is not of the kind whole number"),
        ("sampling.shares=0.5", "sampling.shares = 0.5 is not of the kind table of numbers"),
        ("sampling.shares={ liver = 'much' }", "sampling.shares.liver = 'much' is not of the kind number"),
    ],
)
def test_values_of_the_wrong_kind_are_refused(assignment, end):
    assert message(assignments=[assignment]) == f"settings of the liver stage: {end}"


@pytest.mark.parametrize(
    ("assignment", "part"),
    [
        ("network.features=[]", "network.features = ()"),
        ("network.features=[8, 0]", "network.features = (8, 0) must be positive"),
        ("network.encoder='dense'", "network.encoder = 'dense' must be plain or residual"),
        ("network.blocks=0", "network.blocks = 0 must be positive"),
        ("sampling.patch=[8, 0, 8]", "sampling.patch and sampling.batch must be positive"),
        ("sampling.batch=0", "sampling.patch and sampling.batch must be positive"),
        ("sampling.shares={ liver = 0, anywhere = 0 }", "must be positive in sum"),
        ("sampling.shares={ liver = 2, anywhere = -1 }", "must be positive in sum"),
        ("sampling.shares={ liver = nan, anywhere = 1 }", "sampling.shares.liver = nan must be finite"),
        ("augmentation.noise=-0.1", "no value may be negative"),
        ("augmentation.scale=1.0", "augmentation.scale and augmentation.contrast must be below 1"),
        ("augmentation.contrast=1.5", "augmentation.scale and augmentation.contrast must be below 1"),
        ("training.steps=0", "training.steps and training.validations must be positive"),
        ("training.validations=0", "training.steps and training.validations must be positive"),
        ("training.teacher_share=-0.1", "training.teacher_share = -0.1 must lie in 0..1"),
        ("training.teacher_share=1.5", "training.teacher_share = 1.5 must lie in 0..1"),
        ("window.size=[8, 8, 0]", "window.size = (8, 8, 0) must be positive"),
        ("window.step=0.0", "window.step = 0.0 must lie in 0..1"),
        ("window.step=1.1", "window.step = 1.1 must lie in 0..1"),
        ("preparation.finest_mm=[9.0, 9.0, 9.0]", "preparation.finest_mm"),
        pytest.param(
            "preparation.window_hu=[5.0, 5.0]",
            "preparation.window_hu",
        ),
        ("policy.threshold=1.0", "policy.threshold = 1.0"),
    ],
)
def test_values_that_cannot_work_are_refused(assignment, part):
    text = message(assignments=[assignment])
    assert text.startswith("settings of the liver stage: ")
    assert part in text


@pytest.mark.parametrize(
    ("assignment", "part"),
    [
        # numpy refuses a negative seed, with a traceback, at the first batch
        ("training.seed=-1", "training.seed = -1 must not be negative"),
        # negative probabilities: a traceback at the first batch
        ("sampling.context_weight=-1.0", "sampling.context_weight = -1.0 must be positive"),
        ("sampling.context_weight=0", "sampling.context_weight = 0.0 must be positive"),
        ("sampling.context_weight=nan", "sampling.context_weight = nan must be finite"),
        ("optimizer.learning_rate=-0.001", "optimizer.learning_rate = -0.001 must be positive"),
        ("optimizer.learning_rate=nan", "optimizer.learning_rate = nan must be finite"),
        ("optimizer.learning_rate=inf", "optimizer.learning_rate = inf must be finite"),
        ("optimizer.clip_norm=0", "optimizer.clip_norm = 0.0 must be positive"),
        ("optimizer.weight_decay=-0.1", "optimizer: no value may be negative"),
        ("optimizer.warmup_steps=-1", "optimizer: no value may be negative"),
        ("augmentation.noise=nan", "augmentation.noise = nan must be finite"),
        ("preparation.window_hu=[nan, 240.0]", "preparation.window_hu = nan must be finite"),
        ("preparation.coarsest_mm=[3.0, 3.0, inf]", "preparation.coarsest_mm = inf must be finite"),
        # no multiple of 16: the network's skips do not fit
        ("sampling.patch=[60, 64, 64]", "sampling.patch = (60, 64, 64) must be multiples of 16"),
        ("sampling.patch=[64, 64, 72]", "sampling.patch = (64, 64, 72) must be multiples of 16"),
        # one voxel on the deepest level: instance norm raises
        ("sampling.patch=[16, 16, 16]", "sampling.patch = (16, 16, 16) must be"),
        ("network.features=[2, 2, 2, 2, 2, 2, 2]", "sampling.patch = (64, 96, 96) must be"),
    ],
)
def test_values_that_would_fail_later_are_refused(assignment, part):
    assert part in message(assignments=[assignment])


def test_a_patch_that_does_not_fit_names_the_source_of_the_settings():
    table = as_table(load_settings("liver"))
    table["sampling"]["patch"] = [60, 64, 64]
    with pytest.raises(UsageError, match=r"^model\.bin: sampling\.patch = \(60, 64, 64\) must be multiples of 16"):
        settings_from(table, "liver", "model.bin")


@pytest.mark.parametrize(
    ("features", "patch"), [([4], [5, 6, 7]), ([4, 8], [8, 10, 12]), ([4, 8], [2, 2, 4]), ([4, 8, 8], [4, 8, 4])]
)
def test_a_patch_fits_by_its_multiples_and_one_longer_axis(features, patch):
    chosen = load_settings(
        "liver", assignments=[f"network.features={features}", "network.stem=1", f"sampling.patch={patch}"]
    )
    assert chosen.sampling.patch == tuple(patch)


def test_one_share_is_laid_over_the_others(tmp_path):
    shares = load_settings("tumor", assignments=["sampling.shares.lesion=0.9"]).sampling.shares
    assert shares == {"lesion": 0.9, "liver": 0.25, "outside": 0.35}
    path = write(tmp_path, "[sampling.shares]\nliver = 0\n")
    shares = load_settings("tumor", [path], ["sampling.shares.lesion=0.9"]).sampling.shares
    assert shares == {"lesion": 0.9, "liver": 0.0, "outside": 0.35}


def test_a_list_is_replaced_as_a_whole():
    features = load_settings("liver", assignments=["network.features=[8, 16]"]).network.features
    assert features == (8, 16)


def test_a_table_where_a_number_belongs_is_refused():
    assert message("tumor", assignments=["sampling.shares.lesion.much=1"]).endswith(
        "sampling.shares.lesion = {'much': 1} is not of the kind number"
    )
    assert message(assignments=["sampling.batch.much=1"]).endswith(
        "sampling.batch = {'much': 1} is not of the kind whole number"
    )


def test_missing_tables_and_keys_are_named():
    table = as_table(load_settings("liver"))
    del table["training"]["seed"]
    with pytest.raises(UsageError, match=r"^model\.bin: training\.seed is missing$"):
        settings_from(table, "liver", "model.bin")
    del table["training"], table["window"]
    with pytest.raises(UsageError, match=r"^model\.bin: table \[training, window\] is missing$"):
        settings_from(table, "liver", "model.bin")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"extra": {}}, "here: unknown key extra; known here: network, "),
        ({"training": {"steps": 1, "validations": 1, "seed": 1, "extra": 1}}, "here: unknown key training.extra"),
        ({"training": 3}, r"here: training must be a table, [training]"),
    ],
)
def test_settings_from_a_table_are_checked_too(change, text):
    with pytest.raises(UsageError) as caught:
        settings_from(as_table(load_settings("liver")) | change, "liver", "here")
    assert str(caught.value).startswith(text)


def test_files_that_cannot_be_read_are_named(tmp_path):
    assert message(files=[tmp_path / "none.toml"]).startswith(f"{tmp_path / 'none.toml'}: cannot be read (No such file")
    assert message(files=[tmp_path]).startswith(f"{tmp_path}: cannot be read (")
    broken = write(tmp_path, "[training\n")
    assert message(files=[broken]).startswith(f"{broken}: not valid TOML: ")
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b"# \xe9\n")
    assert message(files=[latin]).startswith(f"{latin}: not valid TOML: ")


def test_a_table_without_shares_is_refused():
    table = as_table(load_settings("liver"))
    table["sampling"]["shares"] = {}
    with pytest.raises(UsageError, match=r"^here: sampling\.shares = \{\} must be positive in sum$"):
        settings_from(table, "liver", "here")


def test_settings_cannot_be_changed():
    settings = load_settings("liver")
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.training.seed = 3


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 3000, "'a'" + "x" * 3000])
def test_a_value_that_breaks_the_parser_is_one_short_line(tmp_path, value):
    """Found by the fuzz target: Python refuses numbers of more than 4300 digits, and deep lists."""
    file = tmp_path / "a.toml"
    file.write_text(f"[training]\nsteps = {value}\n")
    for given in ({"files": [file]}, {"assignments": [f"training.steps={value}"]}):
        with pytest.raises(UsageError, match="TOML") as caught:
            load_settings("liver", **given)
        assert len(str(caught.value)) < 1000


def test_an_unknown_key_is_shown_on_one_line():
    with pytest.raises(UsageError, match=r"unknown key training\.a\?b; known here") as caught:
        load_settings("liver", assignments=["training.a\nb=1"])
    assert "\n" not in str(caught.value)


def test_what_an_earlier_version_stored_stands_for_what_it_did():
    stored = {"network": {"features": [4, 8]}, "policy": {"tumor_threshold": 0.5}, "window": {"step": 0.5}}
    assert completed(stored) == {
        "network": {"encoder": "plain", "blocks": 1, "features": [4, 8]},
        "policy": {
            "minimum_contrast_hu": 0.0,
            "clear_peak": 1.0,
            "clear_contrast_hu": [0.0, 0.0],
            "clear_mm3": 0.0,
            "stage2_weight": 0.5,
            "outline_threshold": 0.5,
            "outline_share": 0.0,
            "fat_share": 0.0,
            "gallbladder_hu": -1024.0,
            "tumor_threshold": 0.5,
        },
        "window": {"step": 0.5},
    }
    present = {"network": {"encoder": "residual", "blocks": 2}, "policy": {"threshold": 0.3}}
    assert completed(present) == present
    assert completed({"network": 3}) == {"network": 3}  # refused later, by its name
