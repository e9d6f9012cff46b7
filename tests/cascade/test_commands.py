import re
from types import SimpleNamespace

import pytest

from cascade.commands import training


@pytest.fixture
def clock(monkeypatch):
    """Seconds that a test sets."""
    at = [100.0]
    monkeypatch.setattr(training.time, "monotonic", lambda: at[0])
    return at


def test_without_a_terminal_a_training_tells_how_far_it_is_once_a_minute(clock, capsys):
    tell = training._teller()
    for second in range(0, 151):  # a percent a second, from a tenth on: a run that is resumed
        clock[0] = 100.0 + second
        tell(second, 0.1 + 0.0025 * second, 1.25, -1.0 if second < 100 else 0.5)
    assert capsys.readouterr().out.splitlines() == [
        "step 60, loss 1.250; 25 %, 0:05:00 left",
        "step 120, loss 1.250, Dice 0.500; 40 %, 0:04:00 left",
    ]


def test_no_time_is_foretold_from_nothing(clock, capsys):
    tell = training._teller()
    clock[0] += 1000
    tell(1, 0.5, 1.0, -1.0)
    assert capsys.readouterr().out == ""
    clock[0] += 10
    tell(2, 0.75, 1.0, -1.0)
    assert re.fullmatch(r"step 2, loss 1.000; 75 %, 0:00:10 left\n", capsys.readouterr().out)


def test_what_was_done_before_a_resumed_run_took_it_no_time(clock):
    """Half of 100 minutes are done: the other half takes 50."""
    said = []
    show = training._shower(SimpleNamespace(pos=0, update=lambda steps, text: said.append(text)))
    for second in (0, 6, 600):
        clock[0] = 100.0 + second
        show(7, 0.5 + second / 6000, 1.0, -1.0)
    assert said == [f"step 7, loss 1.000{left}" for left in ("", ", 0:49:54 left", ", 0:40:00 left")]


def case(lesions, scores_tumor=True):
    return SimpleNamespace(survey=SimpleNamespace(lesions=lesions), scores_tumor=scores_tumor)


@pytest.mark.parametrize(
    ("learned", "held_out", "warned"),
    [([case(0), case(3, scores_tumor=False)], [case(7)], True), ([case(2)], [case(7)], False), ([case(0)], [], False)],
)
def test_a_fold_that_leaves_no_drawn_tumour_to_learn_from_is_told(capsys, learned, held_out, warned):
    training._tell_tumors(learned, held_out, painted=False)
    assert ("no tumour is learned from" in capsys.readouterr().out) == warned
    training._tell_tumors(learned, held_out, painted=True)
    told = capsys.readouterr().out
    assert f"drawn tumours: {learned[0].survey.lesions} to train on, {7 * len(held_out)} held out\n" in told
    assert ("warning: only synthetic tumours are learned from; give another --fold, or --fold all" in told) == warned
