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
