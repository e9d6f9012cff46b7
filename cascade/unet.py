"""The one network of both stages: a 3D U-Net (Çiçek et al., MICCAI 2016) in the form that nnU-Net settled on.

Two 3x3x3 convolutions a block with instance normalisation and leaky ReLU, strided convolutions down, transposed
convolutions up, one logit channel a region. On the way down blocks are plain or residual; on the way up, where less is
decided, one plain block a level (Isensee et al., nnU-Net revisited, MICCAI 2024). It knows neither spacing nor classes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cascade.settings import Network


class Convolution(nn.Conv3d):
    """A 3D convolution that oneDNN computes for one small image in float32 too.

    Where an image times its channels has few planes torch takes a slow convolution of its own, which made a window of
    the recipes' networks take a tenth to a sixth longer. More images, or bfloat16, go to oneDNN anyway.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(n, inputs, z, y, x) to (n, outputs, z / stride, y / stride, x / stride)."""
        if not _left_to_torch(input):
            where = cast(tuple[int, ...], self.padding), self.stride, self.dilation
            return torch.mkldnn_convolution(input, self.weight, self.bias, *where, self.groups)
        return super().forward(input)


def _left_to_torch(image: Tensor) -> bool:
    """Whether torch chooses well by itself, or has to: to cast, or so that a trace has operators that others know."""
    if len(image) > 1 or image.device.type != "cpu" or image.dtype != torch.float32:
        return True
    untyped = cast(Any, torch)
    there = untyped.backends.mkldnn.is_available() and untyped.backends.mkldnn.enabled
    return not there or torch.is_autocast_enabled("cpu") or bool(untyped.jit.is_tracing())


class Enlargement(nn.ConvTranspose3d):
    """A transposed convolution whose steps are as long as its kernel: it turns each voxel into a block of its own.

    With channels last that is one product of matrices and one copy, whose backward pass takes a third of the time of
    torch's.
    """

    def __init__(self, inputs: int, outputs: int, times: int) -> None:
        super().__init__(inputs, outputs, times, stride=times)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(n, inputs, z, y, x) to (n, outputs, z * times, y * times, x * times), in the same order of memory."""
        if input.is_contiguous() or not input.is_contiguous(memory_format=torch.channels_last_3d):
            return super().forward(input, output_size)
        (n, _, *size), times, outputs = input.shape, self.kernel_size[0], self.out_channels
        matrix = self.weight.permute(2, 3, 4, 1, 0).flatten(0, 3)  # to all outputs of one place, then of the next
        bias = None if self.bias is None else self.bias.repeat(times**3)
        blocks = F.linear(input.permute(0, 2, 3, 4, 1), matrix, bias).view(n, *size, times, times, times, outputs)
        large = blocks.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(n, *(side * times for side in size), outputs)
        return large.permute(0, 4, 1, 2, 3)


class Pointwise(nn.Conv3d):
    """A convolution of single voxels.

    With channels last that is one product of matrices. torch has few outputs computed with channels first, and so its
    backward pass sorts the whole image twice.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)

    def forward(self, input: Tensor) -> Tensor:
        """(n, inputs, z, y, x) to (n, outputs, z, y, x), in the same order of memory."""
        if input.is_contiguous() or not input.is_contiguous(memory_format=torch.channels_last_3d):
            return super().forward(input)
        return F.linear(input.permute(0, 2, 3, 4, 1), self.weight.flatten(1), self.bias).permute(0, 4, 1, 2, 3)


class InstanceNorm(nn.InstanceNorm3d):
    """Instance normalisation (Ulyanov et al., 2016) that leaves an image in the order of memory in which it comes.

    torch's own sorts every image by channel first, whatever order the convolutions around it are quick in (see
    `machine.on_device`). `_normalised` does not. Nor does group normalisation, but in bfloat16 its backward pass takes
    longer than all convolutions together.
    """

    def forward(self, image: Tensor) -> Tensor:
        """(n, channels, z, y, x) to the same."""
        if image.is_contiguous() or not image.is_contiguous(memory_format=torch.channels_last_3d):
            return super().forward(image)
        patches = [_normalised(patch, self.weight, self.bias, self.eps) for patch in image.chunk(len(image))]
        return torch.cat(patches) if len(patches) > 1 else patches[0]


class _Normalise(torch.autograd.Function):
    """Batch normalisation of one patch (1, channels, z, y, x), but by exact mean and variance.

    With channels last torch adds up voxel by voxel in float32, which is off by up to 1e-3 with 48^3 voxels and 6e-2
    with 128^3 on one thread. Here it does so plane by plane, and the planes are put together (Chan, Golub and LeVeque,
    The American Statistician 1983).
    """

    @staticmethod
    def forward(ctx: Any, patch: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        one, two = torch.zeros(2, patch.shape[1])  # in float32: then so is what comes back
        planes = [torch.batch_norm_update_stats(plane, one, two, 0.0) for plane in patch.unbind(2)]
        means, variances = (torch.stack(each) for each in zip(*planes, strict=True))
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        ctx.save_for_backward(patch, weight, mean, (variance + eps).rsqrt())
        ctx.eps = eps
        return F.batch_norm(patch, mean, variance, weight, bias, eps=eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        patch, weight, mean, scale = ctx.saved_tensors
        (gradient,) = gradients
        wanted = list(ctx.needs_input_grad[:3])
        found = torch.ops.aten.native_batch_norm_backward(
            gradient, patch, weight, None, None, mean, scale, True, ctx.eps, wanted
        )
        return *found, None


_normalised = cast(Callable[[Tensor, Tensor, Tensor, float], Tensor], _Normalise.apply)


class ConvBlock(nn.Sequential):
    """Two convolutions 3x3x3 a block, each with instance normalisation and leaky ReLU; the first may halve the size."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, blocks: int = 1) -> None:
        layers: list[nn.Module] = []
        for channels, step in ((inputs, stride), *[(outputs, 1)] * (2 * blocks - 1)):
            layers += [*_convolved(channels, outputs, 3, step), _relu()]
        super().__init__(*layers)


class ResidualBlock(nn.Module):
    """Two convolutions and a way around them (He et al., CVPR 2016), which averages where they take steps."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        first, second = _convolved(inputs, outputs, 3, stride), _convolved(outputs, outputs, 3, 1)
        self.change = nn.Sequential(*first, _relu(), *second)
        around: list[nn.Module] = [nn.AvgPool3d(stride)] if stride > 1 else []
        self.around = nn.Sequential(*around, *(_convolved(inputs, outputs, 1, 1) if inputs != outputs else []))
        self.relu = _relu()

    def forward(self, image: Tensor) -> Tensor:
        """(n, inputs, z, y, x) to (n, outputs, z / stride, y / stride, x / stride)."""
        return cast(Tensor, self.relu(self.change(image) + self.around(image)))


def _convolved(inputs: int, outputs: int, size: int, stride: int) -> list[nn.Module]:
    convolution = Convolution(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)
    return [convolution, InstanceNorm(outputs, affine=True)]


def _relu() -> nn.Module:
    return nn.LeakyReLU(0.01, inplace=True)


def _residual(inputs: int, outputs: int, stride: int, blocks: int) -> nn.Module:
    rest = (ResidualBlock(outputs, outputs) for _ in range(blocks - 1))
    return nn.Sequential(ResidualBlock(inputs, outputs, stride), *rest)


def unet(network: Network, regions: int, deep_levels: int = 0) -> UNet3d:
    """The network that `network` describes, with one output a region; see `UNet3d` for `deep_levels`."""
    down = _residual if network.encoder == "residual" else ConvBlock
    return UNet3d(
        network.features,
        regions,
        stem=network.stem,
        deep_levels=deep_levels,
        level=partial(down, blocks=network.blocks),
    )


class UNet3d(nn.Module):
    """Image (n, 1, z, y, x) to logits (n, regions, z, y, x); z, y, x must be multiples of `multiple`.

    `features` are the channels of each level, finest first. The finest level has the image's resolution divided by
    `stem`: the first convolution takes steps of that size, and the last one turns each of its voxels into `stem`^3
    again, so that nothing is computed at full resolution, where most of the time goes and least is seen. With
    `deep_levels`, so many coarser levels have an output of their own, for training alone (see `outputs`). `level`
    makes a level of the way down from its channels in and out and the step of its first convolution.
    """

    def __init__(
        self,
        features: tuple[int, ...],
        regions: int,
        *,
        stem: int = 1,
        deep_levels: int = 0,
        level: Callable[[int, int, int], nn.Module] = ConvBlock,
    ) -> None:
        super().__init__()
        self.multiple, self.regions = stem * 2 ** (len(features) - 1), regions
        self.down = nn.ModuleList(
            level(inputs, outputs, stem if number == 0 else 2)
            for number, (inputs, outputs) in enumerate(zip((1, *features[:-1]), features, strict=True))
        )
        self.up = nn.ModuleList(Enlargement(deep, shallow, 2) for shallow, deep in pairwise(features))
        self.join = nn.ModuleList(ConvBlock(2 * shallow, shallow) for shallow in features[:-1])
        # With so few outputs torch's own is as quick as an `Enlargement`.
        self.head = nn.ConvTranspose3d(features[0], regions, stem, stride=stem)
        # Each output is half the size of the one before it.
        first = 1 if stem == 1 else 0
        self.deep_heads = nn.ModuleList(Pointwise(n, regions) for n in features[first : first + deep_levels])
        self.apply(_initialise)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of one batch."""
        return cast(Tensor, self.head(self._levels(image)[-1]))

    def outputs(self, image: Tensor) -> list[Tensor]:
        """Logits at full resolution, then at each coarser level that has an output, halved in size each time."""
        levels = self._levels(image)[::-1]
        full = self.head(levels[0])
        coarser = levels if full.shape[2:] != levels[0].shape[2:] else levels[1:]
        return [full, *(head(level) for head, level in zip(self.deep_heads, coarser, strict=False))]

    def _levels(self, image: Tensor) -> list[Tensor]:
        """Features of every level on the way up, coarsest first."""
        skips = []
        for block in self.down:
            image = block(image)
            skips.append(image)
        levels = [skips.pop()]
        for up, join in zip(reversed(self.up), reversed(self.join), strict=True):
            levels.append(join(torch.cat((up(levels[-1]), skips.pop()), dim=1)))
        return levels


def _initialise(module: nn.Module) -> None:
    """He initialisation for leaky ReLU (He et al., ICCV 2015); torch's default starts too small and learns later."""
    if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
