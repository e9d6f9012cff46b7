import os
import platform
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from cascade import machine
from cascade.machine import autocast_dtype, on_device, pick_device, tune_allocator
from preprocess.errors import ResourceError, UsageError


def test_auto_is_a_device_that_works():
    assert torch.zeros(1, device=pick_device("auto")).sum().item() == 0


def test_a_device_that_is_none_or_not_there_is_refused():
    with pytest.raises(UsageError, match="toaster: no such kind of device"):
        pick_device("toaster")
    for name in ("meta", "mps"):  # torch knows them, but nothing here was made for them
        with pytest.raises(UsageError, match=f"{name}: not a device that cascade was made for"):
            pick_device(name)
    if not torch.cuda.is_available():
        with pytest.raises(ResourceError, match="no usable GPU found; use --device cpu"):
            pick_device("cuda")


def test_bfloat16_only_where_the_processor_computes_it(monkeypatch):
    for flags, wanted in (({"avx512_bf16": True}, torch.bfloat16), ({"avx2": True}, None), ({}, None)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda flags=flags: flags)
        assert autocast_dtype(torch.device("cpu")) is wanted


@pytest.mark.parametrize(("capability", "dtype"), [((6, 1), None), ((7, 0), torch.float16), ((7, 5), torch.float16)])
def test_a_gpu_that_emulates_bfloat16_computes_in_float16_where_it_is_quick_in_it(monkeypatch, capability, dtype):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert autocast_dtype(torch.device("cuda")) is dtype


@pytest.mark.parametrize(("device", "step"), [("cpu", 1), ("meta", 60)])
def test_weights_lie_channels_last_on_a_cpu_alone(device, step):
    placed = on_device(torch.nn.Conv3d(2, 7, (3, 4, 5)), torch.device(device))
    assert placed.weight.stride(1) == step  # from one channel to the next


def test_tuning_the_allocator_never_fails():
    tune_allocator()
    assert torch.ones(1000, 1000).sum().item() == 1e6


_FREED = """
import ctypes, re
from cascade.machine import tune_allocator
{tune}
libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes, libc.memset.argtypes = [ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
piece = libc.malloc(200 << 20)
libc.memset(piece, 1, 200 << 20)
libc.free(piece)
print(int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) >> 10)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc alone")
def test_a_freed_activation_stays_in_the_process():
    resident = {}
    for tune in ("", "tune_allocator()"):
        code = _FREED.format(tune=tune)
        resident[tune] = int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    assert resident["tune_allocator()"] - resident[""] > 150


@pytest.mark.parametrize(
    ("most", "wanted"),
    [(2**31, [(-3, 2**30), (-1, 2**31 - 1)]), (2**25, [(-3, 2**25), (-1, 2**31 - 1)]), (0, [])],
)
def test_a_limit_that_glibc_refuses_is_not_half_set(monkeypatch, most, wanted):
    taken = []

    def mallopt(key, value):
        if key == -3 and value.value > most:
            return 0
        taken.append((key, value.value))
        return 1

    monkeypatch.setattr("cascade.machine.ctypes.CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    tune_allocator()
    assert taken == wanted


def test_of_processes_that_share_a_machine_each_takes_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(pick_device(name, 1)) for name in ("auto", "cuda", "cuda:0", "cpu")] == [
        "cuda:1",
        "cuda:1",
        "cuda:0",
        "cpu",
    ]
    assert str(pick_device("auto")) == "cuda"
    with pytest.raises(ResourceError, match="cuda:2: only 2 GPUs found, numbered from 0"):
        pick_device("cuda:2")
    with pytest.raises(ResourceError, match="2 GPUs for more processes: use --nproc-per-node 2"):
        pick_device("auto", 2)


def test_a_process_is_left_at_once_with_5_and_a_line():
    code = "import threading, time; from cascade.machine import leave; threading.Timer(0, leave, ['gone']).start(); "
    child = subprocess.run([sys.executable, "-c", f"{code}time.sleep(60)"], capture_output=True, text=True, timeout=30)
    assert (child.returncode, child.stderr) == (5, "cascade: gone\n")


_SET = """
from pathlib import Path
from cascade.batch import CaseSetup, Outputs
CaseSetup(None, None, False, "cpu", False, Outputs(Path(".")), 1, True)(None)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="torch's builds for Linux use GNU's OpenMP")
@pytest.mark.parametrize("code", ["import cascade.commands", _SET], ids=["command", "worker"])
@pytest.mark.parametrize(
    ("own", "spins"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "passive"}, "0")],
    ids=["default", "count", "policy"],
)
def test_threads_that_wait_for_each_other_soon_sleep_unless_the_user_has_said_how_they_wait(code, own, spins):
    env = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    env |= {"OMP_DISPLAY_ENV": "verbose", **own}
    code += "\nimport torch"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, env=env).stderr
    assert re.findall(r"GOMP_SPINCOUNT = '(\d+)'", told) == [spins]


def test_torch_gets_no_more_threads_than_a_container_has_time_for(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "")  # so that what is set below does not stay
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(machine, "cores", lambda: frozenset(range(64)))
    for usable, threads in ((64, None), (2, "2"), (1, "2")):  # what is set stays
        monkeypatch.setattr(machine, "usable_cores", lambda usable=usable: usable)
        machine.share_cores()
        assert os.environ.get("OMP_NUM_THREADS") == threads
