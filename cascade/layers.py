"""Layers that compute what torch's do, more quickly on a CPU, with an image's channels last in memory.

`machine.on_device` brings networks into that order, and images follow the weights. In any other, and on a GPU, each
layer is torch's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
