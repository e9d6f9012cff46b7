import pytest
import torch

from cascade.settings import Network
from cascade.unet import ConvBlock, ResidualBlock, UNet3d, unet


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
