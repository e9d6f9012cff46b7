import json
import os
import signal
from dataclasses import replace

import pytest
import torch

from cascade import stepping, training_state
from cascade.checkpoint import load_model
from cascade.interrupts import Interrupted
from cascade.ranks import Ranks
from cascade.resume import Limit, limit_of, resumed_state
from cascade.settings import Optimizer
from cascade.stages import STAGES
from cascade.stepping import learning_rate
from cascade.tensorfile import read_tensors, write_tensors
from cascade.training import train
from cascade.training_state import Job
from preprocess.errors import ModelError, UsageError
from preprocess.prepared import load_dataset
from tests.made_training import log_without_seconds

QUIET = lambda step, share, loss, best: None  # noqa: E731


def job_for(stage, prepared, tiny_settings, folder, **changes):
    dataset = load_dataset(prepared)
    job = Job(
        stage=STAGES[stage],
        settings=tiny_settings[stage],
        preparation=dataset.preparations[stage],
        train=dataset.cases[:1],
        held_out=dataset.cases[1:],
        folder=folder,
        ranks=Ranks(torch.device("cpu")),
    )
    folder.mkdir(exist_ok=True)
    return replace(job, **changes)


def with_steps(settings, steps):
    return replace(settings, training=replace(settings.training, steps=steps))


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("stage", ["liver", "tumor"])
def test_a_run_leaves_best_last_state_events_and_metrics(stage, prepared, tiny_settings, tmp_path):
    outcome = train(job_for(stage, prepared, tiny_settings, tmp_path / "run"), QUIET)
    assert outcome.steps == 4
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == {
        "metrics.jsonl",
        "tensorboard",
        *(f"{name}.safetensors" for name in ("best", "last", "resume", "resume-previous")),
    }
    model = load_model(tmp_path / "run" / "best.safetensors", STAGES[stage])
    assert model.trained_on == ("0" * 16,)
    assert model.chosen_on == ("0" * 15 + "1", "0" * 15 + "2")
    assert model.preparation.spacing_mm == (3.0, 3.0, 3.0)
    last = load_model(tmp_path / "run" / "last.safetensors", STAGES[stage])
    assert last.chosen_on == ()
    validations = [row for row in rows_of(tmp_path / "run") if f"{stage}_dice" in row]
    assert [row["step"] for row in validations] == [2, 4]


def test_unlabelled_tumours_are_not_scored(prepared, tiny_settings, tmp_path):
    outcome = train(job_for("tumor", prepared, tiny_settings, tmp_path / "run"), QUIET)
    assert outcome.best is not None
    scores = outcome.best.table()
    assert scores[0]["tumor"] is not None
    assert scores[1]["tumor"] is None


def test_training_lowers_the_loss(prepared, tiny_settings, tmp_path):
    settings = tiny_settings["liver"]
    settings = replace(settings, training=replace(settings.training, steps=40))
    losses = []
    train(
        job_for("liver", prepared, {"liver": settings}, tmp_path / "run", held_out=[]),
        lambda step, share, loss, best: losses.append(loss),
    )
    assert sum(losses[-10:]) < 0.85 * sum(losses[:10])


@pytest.mark.parametrize("optimizer", ["muon", "adamw", "sgd"])
def test_resume_equals_the_uninterrupted_run_bit_for_bit(optimizer, prepared, tiny_settings, tmp_path):
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    settings = tiny_settings["tumor"]
    tiny_settings = {"tumor": replace(settings, optimizer=replace(settings.optimizer, name=optimizer))}
    train(job_for("tumor", prepared, tiny_settings, whole), QUIET)
    moments = {key.split("/")[2] for key in read_tensors(whole / "resume.safetensors").tensors if "optimizer/" in key}
    adam = {"step", "exp_avg", "exp_avg_sq"}
    assert moments == {"sgd": {"momentum_buffer"}, "adamw": adam, "muon": adam | {"momentum"}}[optimizer]

    def interrupt(step, share, loss, best):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    job = job_for("tumor", prepared, tiny_settings, parted)
    with pytest.raises(Interrupted, match="step 3; go on with --resume") as caught:
        train(job, interrupt)
    assert caught.value.exit_code == 143
    steps = []
    train(replace(job, resume=True), lambda step, *rest: steps.append(step))
    assert steps == [4]
    for name in ("last", "best"):
        one = read_tensors(whole / f"{name}.safetensors").tensors
        two = read_tensors(parted / f"{name}.safetensors").tensors
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)
    assert log_without_seconds(whole) == log_without_seconds(parted)


@pytest.mark.parametrize(("optimizer", "moments"), [("adamw", ("exp_avg", "exp_avg_sq")), ("muon", ("momentum",))])
def test_resumed_moments_lie_in_memory_as_their_weights_do(optimizer, moments, prepared, tiny_settings, tmp_path):
    settings = tiny_settings["tumor"]
    tiny_settings = {"tumor": replace(settings, optimizer=replace(settings.optimizer, name=optimizer))}
    job = job_for("tumor", prepared, tiny_settings, tmp_path / "run")
    train(job, QUIET)
    state = resumed_state(job)
    weight = state.network.join[0][3].weight
    assert not weight.is_contiguous()
    assert {state.optimizer.state[weight][key].stride() for key in moments} == {weight.stride()}


def test_the_same_seed_gives_the_same_weights_and_another_does_not(prepared, tiny_settings, tmp_path):
    other = tiny_settings["liver"]
    other = {"liver": replace(other, training=replace(other.training, seed=2))}
    weights = []
    for number, settings in enumerate((tiny_settings, tiny_settings, other)):
        folder = tmp_path / str(number)
        train(job_for("liver", prepared, settings, folder, held_out=[]), QUIET)
        weights.append(read_tensors(folder / "last.safetensors").tensors)
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert not torch.equal(weights[0]["head.weight"], weights[2]["head.weight"])


def test_resume_refuses_other_settings_and_other_cases(prepared, tiny_settings, tmp_path):
    job = job_for("liver", prepared, tiny_settings, tmp_path / "run", held_out=[])
    train(job, QUIET)
    settings = replace(job.settings, network=replace(job.settings.network, features=(4, 16)))
    with pytest.raises(ModelError, match=r"other settings \(network\)"):
        train(replace(job, resume=True, settings=settings), QUIET)
    with pytest.raises(ModelError, match="other training cases"):
        train(replace(job, resume=True, train=load_dataset(prepared).cases[:2]), QUIET)


def test_a_resumed_training_takes_another_policy_which_weights_do_not_depend_on(prepared, tiny_settings, tmp_path):
    job = job_for("liver", prepared, tiny_settings, tmp_path / "run", held_out=[])
    train(job, QUIET)
    settings = replace(job.settings, policy=replace(job.settings.policy, margin_mm=7.5))
    train(replace(job, resume=True, settings=settings), QUIET)
    last = load_model(tmp_path / "run" / "last.safetensors", STAGES["liver"])
    assert last.settings.policy.margin_mm == 7.5


def test_a_state_of_an_earlier_version_is_refused_as_such(prepared, tiny_settings, tmp_path):
    job = job_for("liver", prepared, tiny_settings, tmp_path / "run", held_out=[])
    train(job, QUIET)
    file = read_tensors(tmp_path / "run" / "resume.safetensors")
    del file.header["settings"]["network"]["encoder"], file.header["settings"]["network"]["blocks"]
    write_tensors(tmp_path / "run" / "resume.safetensors", file.tensors, file.header)
    with pytest.raises(ModelError, match="another version of cascade"):
        train(replace(job, resume=True), QUIET)


def test_a_residual_network_is_trained_and_predicts(prepared, tiny_settings, tmp_path):
    network = replace(tiny_settings["tumor"].network, encoder="residual", blocks=2)
    train(
        job_for("tumor", prepared, {"tumor": replace(tiny_settings["tumor"], network=network)}, tmp_path / "r"), QUIET
    )
    assert load_model(tmp_path / "r" / "best.safetensors", STAGES["tumor"]).settings.network == network


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [("loss", {"name": "hinge"}, "loss.name"), ("sampling", {"shares": {"lesion": 1.0}}, "unknown lesion")],
)
def test_a_slip_in_the_settings_leaves_no_run(prepared, tiny_settings, tmp_path, table, change, message):
    wrong = replace(tiny_settings["liver"], **{table: replace(getattr(tiny_settings["liver"], table), **change)})
    with pytest.raises(UsageError, match=message):
        train(job_for("liver", prepared, {"liver": wrong}, tmp_path / "run"), QUIET)
    assert list((tmp_path / "run").iterdir()) == []


def test_a_resumed_run_still_warns_of_what_its_model_has_seen(prepared, tiny_settings, tmp_path):
    train(job_for("liver", prepared, tiny_settings, tmp_path / "all", train=load_dataset(prepared).cases), QUIET)
    seen = load_model(tmp_path / "all" / "last.safetensors", STAGES["liver"])
    coarse = replace(seen, preparation=replace(seen.preparation, spacing_mm=(3.0, 4.0, 3.0)))
    job = job_for("liver", prepared, tiny_settings, tmp_path / "run", init=coarse)
    warnings = train(job, QUIET).warnings
    assert "learned at [3.0, 4.0, 3.0] mm, these scans are prepared at [3.0, 3.0, 3.0]" in warnings[0]
    assert "held out here: its score is no score" in warnings[1]
    assert train(replace(job, init=None, resume=True), QUIET).warnings == warnings


def test_a_model_remembers_who_it_has_seen_in_whatever_form(prepared, tiny_settings, tmp_path):
    first, *others = load_dataset(prepared).cases
    public, other = (replace(case, patient="ircadb-19") for case in (first, others[0]))
    train(job_for("liver", prepared, tiny_settings, tmp_path / "a", train=[public], held_out=[]), QUIET)
    model = load_model(tmp_path / "a" / "last.safetensors", STAGES["liver"])
    assert model.trained_on == ("0" * 16, "ircadb-19")
    job = job_for("liver", prepared, tiny_settings, tmp_path / "b", held_out=[other], init=model)
    assert "is held out here: its score is no score" in train(job, QUIET).warnings[0]


def test_a_finished_run_can_be_extended_and_is_looked_at_again(prepared, tiny_settings, tmp_path):
    job = job_for("liver", prepared, tiny_settings, tmp_path / "run")
    train(job, QUIET)
    longer = replace(job.settings, training=replace(job.settings.training, steps=8))
    assert train(replace(job, resume=True, settings=longer), QUIET).steps == 8
    validations = [row["step"] for row in rows_of(tmp_path / "run") if "liver_dice" in row]
    assert validations == [2, 4, 8]


def test_a_loss_that_is_not_finite_is_skipped_and_in_the_end_stops(prepared, tiny_settings, tmp_path, monkeypatch):
    calls = []

    def sometimes_nan(sums, settings):
        calls.append(1)
        return sums.mean() * (float("nan") if len(calls) == 2 or len(calls) > 4 else 1.0)

    monkeypatch.setattr(stepping, "deep_loss", sometimes_nan)
    job = job_for("liver", prepared, tiny_settings, tmp_path / "run", held_out=[])
    assert train(job, QUIET).warnings == ("1 of 4 steps were skipped: their loss or its gradients were not finite",)
    state = read_tensors(tmp_path / "run" / "resume.safetensors")
    assert state.header["skipped"] == 1
    assert all(torch.isfinite(tensor).all() for tensor in state.tensors.values())
    longer = replace(job.settings, training=replace(job.settings.training, steps=100))
    with pytest.raises(ModelError, match="not finite 20 times in a row at step 24"):
        train(replace(job, resume=True, settings=longer), QUIET)


@pytest.fixture
def float16(monkeypatch):
    """The CPU computes in float16, as old GPUs do."""
    for module in (stepping, training_state):
        monkeypatch.setattr(module, "autocast_dtype", lambda device: torch.float16)


def test_in_float16_the_loss_is_scaled_and_a_resumed_run_goes_on_with_the_scale(
    prepared, tiny_settings, tmp_path, float16
):
    job = job_for("liver", prepared, tiny_settings, tmp_path / "run", held_out=[])
    train(job, QUIET)
    whole = read_tensors(tmp_path / "run" / "resume.safetensors")
    assert whole.header["scaler"]["_growth_tracker"] == 4
    half = replace(job, folder=tmp_path / "half", settings=with_steps(job.settings, 2))
    half.folder.mkdir()
    train(half, QUIET)
    train(replace(half, settings=job.settings, resume=True), QUIET)
    again = read_tensors(tmp_path / "half" / "resume.safetensors")
    assert again.header["scaler"] == whole.header["scaler"]
    assert all(tensor.isfinite().all() for tensor in whole.tensors.values())


def test_a_loss_that_was_scaled_too_much_for_float16_is_scaled_less_and_is_no_fault(
    prepared, tiny_settings, tmp_path, float16, monkeypatch
):
    true_loss = stepping.deep_loss
    monkeypatch.setattr(stepping, "deep_loss", lambda sums, settings: true_loss(sums, settings) * 1e6)
    job = job_for("liver", prepared, tiny_settings, tmp_path / "run", held_out=[])
    assert train(replace(job, settings=with_steps(job.settings, 19)), QUIET).warnings == ()
    state = read_tensors(tmp_path / "run" / "resume.safetensors")
    assert 0 < state.header["scaler"]["scale"] < 65536
    assert state.header["skipped"] == 0
    moments = [tensor for name, tensor in state.tensors.items() if name.startswith("optimizer/")]
    assert moments  # some step was taken


def test_a_float16_training_whose_gradients_are_never_numbers_ends(
    prepared, tiny_settings, tmp_path, float16, monkeypatch
):
    monkeypatch.setattr(stepping, "deep_loss", lambda sums, settings: sums.sum().sub(sums.sum().detach()).sqrt())
    job = job_for("liver", prepared, tiny_settings, tmp_path / "run", held_out=[])
    with pytest.raises(ModelError, match="not finite 20 times in a row"):
        train(replace(job, settings=with_steps(job.settings, 30)), QUIET)


def test_the_time_limit_ends_a_run(prepared, tiny_settings, tmp_path):
    settings = replace(tiny_settings["liver"], training=replace(tiny_settings["liver"].training, steps=10**9))
    job = job_for("liver", prepared, {"liver": settings}, tmp_path / "run", minutes=0.01)
    assert 0 < train(job, QUIET).steps < 10**4
    assert limit_of(tmp_path / "run") == Limit(0.01, 10**9, 10**9)


def test_learning_rate_warms_up_and_decays_to_zero():
    settings = Optimizer(
        name="adamw",
        decay="cosine",
        learning_rate=1.0,
        init_share=0.5,
        weight_decay=0.0,
        warmup_steps=4,
        clip_norm=1.0,
        average_decay=0.0,
    )
    assert learning_rate(settings, 0, 0.0) == 0.25
    assert learning_rate(settings, 3, 0.0) == 1.0
    assert learning_rate(settings, 100, 0.5) == pytest.approx(0.5)
    assert learning_rate(settings, 200, 1.0) == 0.0
    assert learning_rate(settings, 3, 0.0, begun=True) == 0.5
    assert learning_rate(replace(settings, decay="poly"), 100, 0.75) == pytest.approx(0.25**0.9)


def test_models_are_the_running_mean_of_the_weights(prepared, tiny_settings, tmp_path):
    settings = tiny_settings["liver"]
    for decay, differs in ((0.0, False), (0.9, True)):
        chosen = replace(settings, optimizer=replace(settings.optimizer, average_decay=decay))
        folder = tmp_path / f"{decay}"
        train(job_for("liver", prepared, {"liver": chosen}, folder, held_out=[]), QUIET)
        model = read_tensors(folder / "last.safetensors").tensors
        state = read_tensors(folder / "resume.safetensors").tensors
        assert torch.equal(model["head.weight"], state["average/head.weight"].half())
        assert torch.equal(model["head.weight"], state["weights/head.weight"].half()) is not differs


def test_a_model_file_holds_no_deep_outputs(prepared, tiny_settings, tmp_path):
    train(job_for("liver", prepared, tiny_settings, tmp_path / "run", held_out=[]), QUIET)
    model = read_tensors(tmp_path / "run" / "last.safetensors").tensors
    state = read_tensors(tmp_path / "run" / "resume.safetensors").tensors
    assert "weights/deep_heads.0.weight" in state
    assert not [name for name in model if "deep" in name]


def test_a_training_can_begin_from_a_model_and_has_seen_what_that_has(prepared, tiny_settings, tmp_path, caplog):
    train(job_for("tumor", prepared, tiny_settings, tmp_path / "a"), QUIET)
    model = load_model(tmp_path / "a" / "best.safetensors", STAGES["tumor"])
    cases = load_dataset(prepared).cases
    still = replace(tiny_settings["tumor"].optimizer, learning_rate=1e-12, init_share=0.25)
    longer = replace(tiny_settings["tumor"].training, steps=10)  # the tenth is the first to be logged
    settings = {"tumor": replace(tiny_settings["tumor"], optimizer=still, training=longer)}
    split = {"train": cases[1:2], "held_out": cases[:1]}
    job = job_for("tumor", prepared, settings, tmp_path / "b", init=model, **split)
    outcome = train(job, QUIET)
    assert outcome.warnings == (f"--init has seen {cases[0].name}, which is held out here: its score is no score",)
    begun = load_model(tmp_path / "b" / "last.safetensors", STAGES["tumor"])
    assert all(torch.allclose(begun.weights[name], model.weights[name], atol=1e-6) for name in model.weights)
    assert begun.trained_on == ("0" * 16, "0" * 15 + "1")
    assert begun.chosen_on == ("0" * 15 + "1", "0" * 15 + "2")
    (rate,) = [row["learning_rate"] for row in rows_of(tmp_path / "b") if "loss" in row]
    assert rate == learning_rate(still, 10, 0.9, begun=True) < 0.25e-12
    train(replace(job, init=None, resume=True), QUIET)  # what it began from is remembered
    assert load_model(tmp_path / "b" / "last.safetensors", STAGES["tumor"]).trained_on == begun.trained_on


def test_a_model_of_another_network_is_no_beginning(prepared, tiny_settings, tmp_path):
    train(job_for("liver", prepared, tiny_settings, tmp_path / "a", held_out=[]), QUIET)
    model = load_model(tmp_path / "a" / "last.safetensors", STAGES["liver"])
    other = replace(tiny_settings["liver"], network=replace(tiny_settings["liver"].network, features=(4, 16)))
    with pytest.raises(ModelError, match=r"--init: .*features \[4, 8\], .*features \[4, 16\], .*set \[network\] to"):
        train(job_for("liver", prepared, {"liver": other}, tmp_path / "b", init=model), QUIET)
