import pytest
import torch

from cascade.unet import ConvBlock, UNet3d


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
    assert [type(m).__name__ for m in block] == ["Conv3d", "InstanceNorm3d", "LeakyReLU"] * 2
    assert block(torch.zeros(1, 1, 4, 6, 8)).shape == (1, 3, 2, 3, 4)


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
