"""What holds for every test."""

import threading
import time

import pytest


@pytest.fixture(autouse=True)
def _no_batches_stay_in_the_making():
    """A thread that a test leaves, asleep, could wake inside torch just when the tests end, which aborts them all."""
    yield
    until = time.monotonic() + 5
    left = [thread for thread in threading.enumerate() if thread.name == "batches"]
    for thread in left:
        thread.join(max(0.0, until - time.monotonic()))
    assert not [thread for thread in left if thread.is_alive()]
