import pytest
import torch

from cascade.machine import autocast_dtype, pick_device, tune_allocator
from preprocess.errors import ResourceError, UsageError


def test_auto_is_a_device_that_works():
    assert torch.zeros(1, device=pick_device("auto")).sum().item() == 0


def test_a_device_that_is_none_or_not_there_is_refused():
    with pytest.raises(UsageError, match="toaster: no such kind of device"):
        pick_device("toaster")
    if not torch.cuda.is_available():
        with pytest.raises(ResourceError, match="no usable GPU found; use --device cpu"):
            pick_device("cuda")


def test_bfloat16_only_where_the_processor_computes_it(monkeypatch):
    for flags, wanted in (({"avx512_bf16": True}, torch.bfloat16), ({"avx2": True}, None), ({}, None)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda flags=flags: flags)
        assert autocast_dtype(torch.device("cpu")) is wanted


def test_tuning_the_allocator_never_fails():
    tune_allocator()
    assert torch.ones(1000, 1000).sum().item() == 1e6


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
    with pytest.raises(ResourceError, match="2 GPUs for more processes: use --nproc-per-node 2"):
        pick_device("auto", 2)
