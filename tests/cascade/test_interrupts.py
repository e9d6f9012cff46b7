import os
import signal

import pytest

from cascade.interrupts import Interrupted, StopNow, StopSignals


def test_a_second_sigterm_is_no_impatience_and_a_second_sigint_is():
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_together_gives_the_result_while_nobody_is_told_to_stop():
    stop = StopSignals()
    assert stop.together(lambda: 7) == 7
    stop.raise_if_agreed("nothing")


def test_a_signal_to_another_process_stops_this_one_too():
    stop = StopSignals(agree=lambda own: max(own, float(signal.SIGTERM)))
    with pytest.raises(StopNow):
        stop.together(lambda: 7)
    assert stop.signal is None  # one of its own would still be the first
    with pytest.raises(Interrupted, match="saved") as caught:
        stop.raise_if_agreed("saved")
    assert caught.value.exit_code == 143


def test_a_signal_cuts_the_work_off_and_is_told_to_the_others():
    told = []
    with StopSignals(agree=lambda own: told.append(own) or own) as stop:
        with pytest.raises(StopNow):
            stop.together(lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert told == [signal.SIGTERM]
