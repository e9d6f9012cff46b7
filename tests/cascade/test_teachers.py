from dataclasses import replace

import pytest
import torch

from cascade.checkpoint import load_model
from cascade.cli import run_command
from cascade.sampler import Batch
from cascade.stages import STAGES
from cascade.teachers import Teachers
from cascade.tensorfile import read_tensors
from cascade.training import train
from preprocess.errors import ModelError
from tests.made_training import QUIET, TINY, dataset_at, job_at, model_at

CPU = torch.device("cpu")
#: Logits whose probabilities are 1/2, 3/4 and 1/4.
EVEN, HIGH, LOW = 0.0, 1.0986123, -1.0986123


def model(path, liver, tumor, **changes):
    return replace(load_model(model_at(path, "tumor", (liver, tumor)), STAGES["tumor"]), **changes)


def teachers(models, share=0.5):
    made = Teachers.of(models, models[0].preparation, share, CPU)
    assert made is not None
    return made


def batch(target, trust, size=(4, 6, 8)):
    """One patch whose regions, liver and tumour, have these targets and trusts everywhere."""
    shape = (1, 2, *size)
    return Batch(
        torch.zeros(1, 1, *size),
        *(torch.tensor(of).view(1, 2, 1, 1, 1).expand(shape).clone() for of in (target, trust)),
    )


def values(tensor):
    """The one value of each region. Fails where there are several."""
    first = tensor[0, :, 0, 0, 0]
    assert torch.allclose(tensor, first.view(1, 2, 1, 1, 1).expand(tensor.shape), atol=1e-3)
    return first.tolist()


def test_where_it_is_known_the_share_is_theirs_and_where_it_is_not_all(tmp_path):
    taught = teachers([model(tmp_path / "a", HIGH, HIGH)], 0.2).taught(batch((1.0, 0.0), (4.0, 0.0)))
    assert values(taught.target) == pytest.approx([0.95, 0.75], abs=1e-3)
    assert values(taught.trust) == [4.0, 1.0]


def test_several_teach_by_their_mean(tmp_path):
    models = [model(tmp_path / "a", HIGH, HIGH), model(tmp_path / "b", HIGH, LOW), model(tmp_path / "c", EVEN, LOW)]
    taught = teachers(models, 1.0).taught(batch((0.0, 0.0), (1.0, 1.0)))
    assert values(taught.target) == pytest.approx([2 / 3, 5 / 12], abs=1e-3)


def test_one_of_scans_that_are_prepared_otherwise_is_refused(tmp_path):
    one = model(tmp_path / "a", HIGH, HIGH)
    other = replace(one.preparation, spacing_mm=(3.0, 3.0, 2.0))
    with pytest.raises(
        ModelError, match=r"--teacher: a model of scans at \[3.0, 3.0, 3.0\] mm.*these are at \[3.0, 3.0, 2"
    ):
        Teachers.of([one], other, 0.5, CPU)


def test_without_models_there_are_none(tmp_path):
    assert Teachers.of([], model(tmp_path / "a", HIGH, HIGH).preparation, 0.5, CPU) is None


def job(tmp_path, name, *models, share=0.5, steps=4):
    data = tmp_path / "data"
    data = data if data.exists() else dataset_at(data)
    made = Teachers.of(models, models[0].preparation, share, CPU) if models else None
    return job_at(tmp_path / name, data, f"training.steps={steps}", stage="tumor", teachers=made)


def test_who_is_taught_learns_what_they_say(tmp_path):
    """They say that nothing is liver, and all of the target is theirs."""
    never = model(tmp_path / "never", -9.0, -9.0)
    alone, taught = (
        job(tmp_path, name, *of, share=1.0, steps=40) for name, of in (("alone", ()), ("taught", (never,)))
    )
    said = []
    for made in (alone, taught):
        train(made, QUIET)
        network = load_model(made.folder / "last.safetensors", STAGES["tumor"]).network()
        image = torch.from_numpy(made.train[0].image("tumor").astype("float32"))[None, None, :12, :12]
        with torch.no_grad():
            said.append(torch.sigmoid(network(image))[0, 0, 4:8, 5:9, 4:10].mean().item())
    assert said[0] > 0.7
    assert said[1] < 0.3


def test_what_they_have_seen_was_seen(tmp_path):
    first = model(tmp_path / "a", HIGH, HIGH, trained_on=("f" * 16,), chosen_on=("0" * 15 + "1",))
    made = job(tmp_path, "run", first)
    outcome = train(made, QUIET)
    last = load_model(made.folder / "last.safetensors", STAGES["tumor"])
    assert last.trained_on == ("0" * 16, "f" * 16)
    assert last.chosen_on == ("0" * 15 + "1",)
    assert outcome.warnings == ("--teacher has seen b, which is held out here: its score is no score",)


def test_a_training_goes_on_with_the_same_alone(tmp_path):
    one, other = (model(tmp_path / name, HIGH, tumor) for name, tumor in (("a", HIGH), ("b", LOW)))
    made = job(tmp_path, "run", one, other)
    train(made, QUIET)
    longer = replace(made.settings, training=replace(made.settings.training, steps=6))
    again = replace(made, resume=True, settings=longer)
    for differing in (None, Teachers.of([one], one.preparation, 0.5, CPU)):
        with pytest.raises(ModelError, match="made with other teachers; give the same --teacher, or another -o"):
            train(replace(again, teachers=differing), QUIET)
    assert train(replace(again, teachers=Teachers.of([other, one], one.preparation, 0.5, CPU)), QUIET).steps == 6


def test_the_command_takes_them_for_all_folds_and_asks_for_them_again(tmp_path, capsys):
    words = [word for setting in (*TINY, "training.validations=1") for word in ("--set", setting)]
    of = ["--teacher", str(model_at(tmp_path / "a", "tumor")), "--teacher", str(model_at(tmp_path / "b", "tumor"))]
    command = ["train-tumor", str(dataset_at(tmp_path / "data")), "-o", str(tmp_path / "run"), "--folds", "2", *words]
    assert run_command([*command, *of]) == 0
    states = [read_tensors(tmp_path / "run" / f"fold-{k}" / "resume.safetensors").header for k in range(2)]
    assert [len(state["teachers"]) for state in states] == [2, 2]
    capsys.readouterr()
    assert run_command([*command, *of[:2], "--resume"]) == 4
    assert "made with other teachers; give the same --teacher" in capsys.readouterr().err
    assert run_command([*command, *of, "--resume"]) == 0
