"""Processes that train one network together, started as torchrun would, but each by itself: none ends another."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

#: Before a script of `started`: one thread, float32, and short limits in place of most of a minute.
BEGIN = """
import os, signal, sys, threading, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from cascade import ranks, stepping, training
ranks.PULSE_S, ranks.LIMIT_S, ranks.GRACE_S = 0.2, 6.0, 5.0
stepping.autocast_dtype = lambda device: None
rank = int(os.environ["RANK"])
"""


def started(code, *arguments, world=2):
    """`world` processes that run `code` after `BEGIN`, with `arguments`, stdout and stderr to be read."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}", "OMP_NUM_THREADS": "1", "GROUP_RANK": "0"}
    common |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), f"{world}")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [
        subprocess.Popen(
            [sys.executable, "-c", BEGIN + code, *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, **common, "TORCHELASTIC_RUN_ID": "x", "RANK": str(rank), "LOCAL_RANK": str(rank)},
            **pipes,
        )
        for rank in range(world)
    ]


def ended(processes, limit_s=300):
    """(exit code, stdout, stderr) of each; none is left behind."""
    try:
        told = [process.communicate(timeout=limit_s) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [(process.returncode, *texts) for process, texts in zip(processes, told, strict=True)]
