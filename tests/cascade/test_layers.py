import pytest
import torch

from cascade.layers import Convolution, Enlargement, InstanceNorm, Pointwise


def operators(work):
    """The names of torch's operators that `work()` takes."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        work()
    return {event.key for event in profile.key_averages()}


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last_3d])
def test_a_small_image_by_itself_is_convolved_by_onednn_as_torch_would(order):
    torch.manual_seed(1)
    layer = Convolution(3, 4, (1, 3, 5), stride=(1, 2, 1), padding=(0, 1, 2)).to(memory_format=order)
    image = torch.randn(1, 3, 4, 6, 8).contiguous(memory_format=order).requires_grad_()
    assert "aten::slow_conv3d" in operators(lambda: torch.nn.Conv3d.forward(layer, image))  # torch's own choice
    assert "aten::slow_conv3d" not in operators(lambda: layer(image))
    results = []
    for forward in (layer.forward, lambda image: torch.nn.Conv3d.forward(layer, image)):
        out = forward(image)
        results.append([out, *torch.autograd.grad((out**2).sum(), (image, layer.weight, layer.bias))])
    assert results[0][0].shape == (1, 4, 4, 3, 8)
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # which `flags` sets too, and torch has a word on
def test_where_torch_casts_or_has_no_onednn_the_convolution_is_torchs_own():
    torch.manual_seed(1)
    layer, image = Convolution(2, 3, 3), torch.randn(1, 2, 4, 5, 6)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(image).dtype == torch.bfloat16
    assert layer.to(torch.float64)(image.double()).dtype == torch.float64
    with torch.backends.mkldnn.flags(enabled=False):
        assert "aten::slow_conv3d" in operators(lambda: layer.float()(image))


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last_3d])
def test_an_enlargement_is_a_transposed_convolution_in_the_order_in_which_the_image_comes(order):
    torch.manual_seed(1)
    layer, image = Enlargement(4, 3, 2), torch.randn(2, 4, 2, 3, 5).contiguous(memory_format=order).requires_grad_()
    torch.nn.init.uniform_(layer.bias)
    results = []
    for forward in (layer.forward, lambda image: torch.nn.ConvTranspose3d.forward(layer, image)):
        large = forward(image)
        assert large.is_contiguous(memory_format=order)
        results.append([large, *torch.autograd.grad((large**3).sum(), (image, layer.weight, layer.bias))])
    assert results[0][0].shape == (2, 3, 4, 6, 10)
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


def test_an_enlargement_with_channels_last_leaves_torchs_own_alone():
    layer, image = Enlargement(4, 3, 2), torch.randn(1, 4, 2, 3, 5)
    assert "aten::conv_transpose3d" in operators(lambda: layer(image))
    assert "aten::conv_transpose3d" not in operators(lambda: layer(image.to(memory_format=torch.channels_last_3d)))


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last_3d])
def test_a_pointwise_convolution_computes_what_torchs_does_in_the_order_in_which_the_image_comes(order):
    torch.manual_seed(1)
    layer, image = Pointwise(4, 3), torch.randn(2, 4, 2, 3, 5).contiguous(memory_format=order).requires_grad_()
    torch.nn.init.uniform_(layer.bias)
    results = []
    for forward in (layer.forward, lambda image: torch.nn.Conv3d.forward(layer, image)):
        results.append([forward(image)])
        results[-1] += torch.autograd.grad((results[-1][0] ** 3).sum(), (image, layer.weight, layer.bias))
    assert results[0][0].shape == (2, 3, 2, 3, 5)
    assert all(each.is_contiguous(memory_format=order) for each in results[0][:2])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


def test_a_pointwise_convolution_with_channels_last_leaves_torchs_own_alone():
    layer, image = Pointwise(4, 3), torch.randn(1, 4, 2, 3, 5)
    assert "aten::conv3d" in operators(lambda: layer(image))
    assert "aten::conv3d" not in operators(lambda: layer(image.to(memory_format=torch.channels_last_3d)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_instance_normalisation_is_the_same_with_channels_last(dtype):
    torch.manual_seed(1)
    norm, image = InstanceNorm(3, affine=True), torch.randn(2, 3, 4, 6, 8)
    image[1] = 3 * image[1] + 5
    weights = torch.nn.init.uniform_(norm.weight), torch.nn.init.uniform_(norm.bias)
    results = []
    for order in (torch.contiguous_format, torch.channels_last_3d):
        own = image.to(dtype, memory_format=order, copy=True).requires_grad_()
        normal = norm(own)
        assert normal.is_contiguous(memory_format=order)
        results.append([normal, *torch.autograd.grad((normal.float() ** 3).sum(), (own, *weights))])
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 0.02}[dtype]
    torch.testing.assert_close(results[1], results[0], rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("training", [False, True])
def test_a_large_image_is_normalised_to_the_last_digits(training):
    torch.manual_seed(1)
    norm, image = InstanceNorm(3, affine=True), torch.randn(2, 3, 60, 64, 70)
    image[:, :, 30:] = -3.0  # much of one value, as air is
    with torch.set_grad_enabled(training):
        last = norm(image.contiguous(memory_format=torch.channels_last_3d))
        torch.testing.assert_close(last, norm(image), rtol=1e-5, atol=1e-5)
