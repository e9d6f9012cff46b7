import pytest
import torch

from cascade.settings import Network
from cascade.unet import ConvBlock, Convolution, Enlargement, InstanceNorm, Pointwise, ResidualBlock, UNet3d, unet


@pytest.mark.parametrize(
    ("features", "regions", "multiple"), [((3,), 1, 1), ((2, 3), 1, 2), ((2, 3, 4), 2, 4), ((4, 3, 2, 5), 2, 8)]
)
def test_logits_have_the_shape_of_the_image(features, regions, multiple):
    network = UNet3d(features, regions)
    assert network.multiple == multiple
    shape = (2 * multiple, 3 * multiple, 5 * multiple)
    assert network(torch.zeros(2, 1, *shape)).shape == (2, regions, *shape)


def test_every_level_halves_every_axis():
    network = UNet3d((2, 3, 4), 1)
    shapes = []
    for block in network.down:
        block.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape)))
    network(torch.zeros(1, 1, 8, 12, 20))
    assert shapes == [(1, 2, 8, 12, 20), (1, 3, 4, 6, 10), (1, 4, 2, 3, 5)]


def test_a_size_that_cannot_be_halved_is_refused():
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        UNet3d((2, 3, 4), 1)(torch.zeros(1, 1, 8, 8, 10))


def test_every_weight_takes_part():
    torch.manual_seed(1)
    network = UNet3d((2, 3, 4), 2)
    network(torch.randn(1, 1, 8, 12, 16)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_samples_do_not_see_each_other():
    torch.manual_seed(1)
    network = UNet3d((2, 3), 1)
    one, other = torch.randn(1, 1, 4, 6, 8), 5 * torch.randn(1, 1, 4, 6, 8)
    torch.testing.assert_close(network(torch.cat([one, other]))[:1], network(one), rtol=1e-4, atol=1e-4)


def test_a_block_has_two_normalised_convolutions():
    block = ConvBlock(1, 3, stride=2)
    assert [type(m).__name__ for m in block] == ["Convolution", "InstanceNorm", "LeakyReLU"] * 2
    assert block(torch.zeros(1, 1, 4, 6, 8)).shape == (1, 3, 2, 3, 4)


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


@pytest.mark.parametrize("encoder", ["plain", "residual"])
def test_channels_last_is_kept_by_every_block_and_computes_the_same(encoder):
    torch.manual_seed(1)
    network, image = unet(Network((4, 6), stem=2, encoder=encoder, blocks=1), 2).eval(), torch.randn(2, 1, 8, 12, 16)
    plain = network(image)
    network.to(memory_format=torch.channels_last_3d)
    orders = []
    for block in (*network.down, *network.join):
        block.register_forward_hook(lambda module, inputs, output: orders.append(output.stride(1)))
    torch.testing.assert_close(network(image), plain, rtol=1e-4, atol=1e-5)
    assert orders == [1, 1, 1]  # voxels from one channel to the next


def test_weights_start_at_the_scale_of_he():
    torch.manual_seed(0)
    weight = UNet3d((16, 32), 1).down[0][3].weight
    assert weight.std().item() == pytest.approx((2 / (1 + 0.01**2) / (16 * 27)) ** 0.5, rel=0.03)


def test_deep_outputs_halve_in_size_and_the_first_is_the_result():
    torch.manual_seed(1)
    network = UNet3d((2, 3, 4), 2, deep_levels=2).eval()
    image = torch.randn(1, 1, 8, 12, 16)
    outputs = network.outputs(image)
    assert [tuple(o.shape) for o in outputs] == [(1, 2, 8, 12, 16), (1, 2, 4, 6, 8), (1, 2, 2, 3, 4)]
    torch.testing.assert_close(outputs[0], network(image))


def test_a_stem_leaves_out_the_full_resolution_and_gives_it_back():
    torch.manual_seed(1)
    network = UNet3d((2, 3, 4), 2, stem=2, deep_levels=2)
    assert network.multiple == 8
    shapes = []
    for block in network.down:
        block.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
    outputs = network.outputs(torch.randn(1, 1, 16, 24, 32))
    assert shapes == [(2, 8, 12, 16), (3, 4, 6, 8), (4, 2, 3, 4)]
    assert [tuple(o.shape) for o in outputs] == [(1, 2, 16, 24, 32), (1, 2, 8, 12, 16), (1, 2, 4, 6, 8)]
    sum(o.square().sum() for o in outputs).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_there_are_no_more_deep_outputs_than_levels():
    assert len(UNet3d((2, 3), 1, deep_levels=5).outputs(torch.zeros(1, 1, 4, 4, 4))) == 2


def test_a_plain_network_is_what_it_was_before_it_had_a_description():
    torch.manual_seed(1)
    described = unet(Network((2, 3, 4), 2, "plain", 1), 2, deep_levels=1)
    before = UNet3d((2, 3, 4), 2, stem=2, deep_levels=1)
    described.load_state_dict(before.state_dict())
    assert list(described.state_dict())[:3] == ["down.0.0.weight", "down.0.1.weight", "down.0.1.bias"]
    image = torch.randn(1, 1, 8, 16, 24)
    torch.testing.assert_close(described(image), before(image))


@pytest.mark.parametrize("encoder", ["plain", "residual"])
@pytest.mark.parametrize("stem", [1, 2])
def test_both_encoders_have_deep_outputs_and_use_every_weight(encoder, stem):
    torch.manual_seed(1)
    network = unet(Network((2, 3, 4), stem, encoder, 2), 2, deep_levels=2)
    outputs = network.outputs(torch.randn(1, 1, 8 * stem, 12 * stem, 16 * stem))
    full = torch.tensor([8, 12, 16]) * stem
    assert [tuple(o.shape[2:]) for o in outputs] == [tuple((full // 2**k).tolist()) for k in range(3)]
    sum(o.square().sum() for o in outputs).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize(
    ("encoder", "blocks", "convolutions"), [("plain", 3, 6), ("residual", 1, 3), ("residual", 3, 7)]
)
def test_a_level_has_so_many_blocks(encoder, blocks, convolutions):
    level = unet(Network((2, 3), 1, encoder, blocks), 1).down[1]
    assert sum(isinstance(m, torch.nn.Conv3d) for m in level.modules()) == convolutions


def test_a_residual_block_adds_what_it_changes():
    block = ResidualBlock(2, 2)
    for weight in block.change.parameters():
        torch.nn.init.zeros_(weight)
    image = torch.rand(1, 2, 2, 3, 4)
    torch.testing.assert_close(block(image), image)


def test_the_way_around_averages_where_the_block_takes_steps():
    block = ResidualBlock(1, 1, 2)
    for weight in block.change.parameters():
        torch.nn.init.zeros_(weight)
    image = torch.arange(16.0).reshape(1, 1, 2, 2, 4)
    # voxels 0 1 4 5 8 9 12 13 and 2 3 6 7 10 11 14 15
    assert block(image).flatten().tolist() == [6.5, 8.5]
