"""OpenVINO against torch. Skipped where OpenVINO, an extra of the package, is not installed."""

import importlib.util
import sys

import numpy as np
import pytest
import torch

from cascade import engine
from cascade.engine import OpenVinoNetwork, pick_engine
from cascade.inference import as_infer
from cascade.machine import pick_device
from cascade.settings import Window
from cascade.unet import UNet3d
from preprocess.errors import ResourceError, UsageError

CPU = torch.device("cpu")

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed (pip install openvino)"
)


def network(stem=1):
    torch.manual_seed(3)
    net = UNet3d((8, 12, 16), 2, stem=stem, deep_levels=1).eval()
    for name, weight in net.named_parameters():  # norms that do something
        if weight.dim() == 1:
            torch.nn.init.normal_(weight, 1.0 if name.endswith("weight") else 0.0, 0.3)
    return net


def picture(*shape):
    return np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)


@needs_openvino
@pytest.mark.parametrize("stem", [1, 2])
@pytest.mark.parametrize("shape", [(16, 24, 40), (7, 11, 13)])
def test_in_float32_the_probabilities_are_those_of_torch(monkeypatch, stem, shape):
    for module in ("engine", "inference"):
        monkeypatch.setattr(f"cascade.{module}.autocast_dtype", lambda _: None)
    net, window, image = network(stem), Window((16, 16, 24), 0.5, 0), picture(*shape)
    found = as_infer(OpenVinoNetwork(net), window, CPU)(image, None)
    wanted = as_infer(net, window, CPU)(image, None)
    assert (found.dtype, found.shape) == (np.float32, (2, *shape))
    assert wanted.std() > 0.05  # there is something to get wrong
    np.testing.assert_allclose(found, wanted, atol=2e-3)
    np.testing.assert_array_equal(found >= 0.5, wanted >= 0.5)


@needs_openvino
@pytest.mark.skipif(engine.autocast_dtype(CPU) is None, reason="this CPU does not compute in bfloat16")
def test_in_bfloat16_it_is_as_near_to_float32_as_torch_is(monkeypatch):
    net, window, image = network(), Window((16, 16, 24), 0.5, 0), picture(32, 40, 48)
    found = as_infer(OpenVinoNetwork(net), window, CPU)(image, None)
    halves = as_infer(net, window, CPU)(image, None)
    monkeypatch.setattr("cascade.inference.autocast_dtype", lambda _: None)
    exact = as_infer(net, window, CPU)(image, None)
    assert np.abs(found - exact).max() > 1e-5  # it was bfloat16
    assert np.abs(found - exact).mean() < 1.5 * np.abs(halves - exact).mean()
    assert np.mean((found >= 0.5) != (exact >= 0.5)) < 0.01


@needs_openvino
def test_each_shape_is_compiled_once_and_few_are_kept(monkeypatch):
    taken = []
    net = OpenVinoNetwork(network())
    real = net._graph.clone
    monkeypatch.setattr(net, "_graph", type("Graph", (), {"clone": lambda _: taken.append(1) or real()})())
    for n in (16, 24, 16, 24, 32, 16):
        assert net(torch.zeros(1, 1, n, 16, 16)).shape == (1, 2, n, 16, 16)
    assert len(taken) == 4  # 16, 24, 32, and 16 again, which 32 had pushed out


@needs_openvino
def test_a_logit_of_one_call_outlives_the_next():
    net = OpenVinoNetwork(network())
    first = net(torch.zeros(1, 1, 16, 16, 16))
    kept = first.clone()
    net(torch.ones(1, 1, 16, 16, 16))
    assert torch.equal(first, kept)


@needs_openvino
def test_what_openvino_fails_with_is_one_line_with_a_remedy(monkeypatch):
    def fail(_):
        raise RuntimeError("Exception from src/plugins/intel_cpu: no such primitive")

    computed = OpenVinoNetwork(network())
    monkeypatch.setattr(computed, "_compiled", fail)
    with pytest.raises(ResourceError, match="no such primitive; use --device cpu"):
        computed(torch.zeros(1, 1, 8, 8, 8))


def test_without_openvino_who_asks_for_it_gets_one_line_and_auto_is_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ResourceError, match=r"OpenVINO is not installed .* pip install openvino, or"):
        pick_engine("openvino")
    pick_engine("auto")


@needs_openvino
def test_the_engine_makes_a_model_predict_by_openvino():
    class Model:
        settings = type("Settings", (), {"window": Window((16, 16, 24), 0.5, 0)})

        def network(self):
            return network()

    out = pick_engine("openvino")(Model())(picture(7, 11, 13), None)
    assert (out.shape, out.min() >= 0, out.max() <= 1) == ((2, 7, 11, 13), True, True)


def test_openvino_trains_nothing():
    with pytest.raises(UsageError, match="--device openvino: computes predictions, it cannot train"):
        pick_device("openvino")


def test_a_gpu_takes_several_windows_at_once(monkeypatch):
    seen = []
    monkeypatch.setattr(engine, "as_infer", lambda *arguments: seen.append(arguments[3]))

    class Model:
        settings = type("Settings", (), {"window": None})

        def network(self):
            return None

    for name in ("cuda:0", "cpu"):
        engine.torch_engine(torch.device(name))(Model())
    assert seen == [engine.GPU_WINDOWS, 1]
