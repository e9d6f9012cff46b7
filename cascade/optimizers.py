"""How gradients move weights, by the name in the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from cascade.settings import Optimizer
from cascade.unet import UNet3d

#: Newton and Schulz's step that multiplies singular values s by a + b s² + c s⁴, and how often: K. Jordan's constants,
#: which bring what is not tiny to .7 to 1.2 in five.
_A, _B, _C, _TIMES = 3.4445, -4.7750, 2.0315, 5
#: The root mean square of an update at rate 1: about what AdamW's has, so that one rate suits both (Liu et al., 2025).
_RMS = 0.2
_MOMENTUM = 0.95


def optimizer_for(network: UNet3d, settings: Optimizer) -> torch.optim.Optimizer:
    """The optimiser that `settings` name, for all weights of `network`."""
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.name == "sgd":
        return torch.optim.SGD(network.parameters(), rate, momentum=0.99, nesterov=True, weight_decay=decay)
    if settings.name == "adamw":
        return torch.optim.AdamW(network.parameters(), rate, weight_decay=decay, fused=True)
    return Muon(*_inner_and_others(network), rate, decay)


def _inner_and_others(network: UNet3d) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The weights of convolutions between features, and all others: of the image, the outputs, norms, biases."""
    inner: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, weight in network.named_parameters():
        between = weight.dim() == 5 and weight.shape[1] > 1 and not name.startswith(("head.", "deep_heads."))
        (inner if between else others).append(weight)
    return inner, others


class Muon(torch.optim.AdamW):
    """Muon for convolutions between features, AdamW for all other weights (K. Jordan et al., 2024).

    A convolution is a matrix from its inputs' neighbourhoods to its outputs, and so is its gradient, with a few large
    singular values and many small ones. Muon steps by the matrix that has them all alike (the orthogonal factor of the
    momentum's polar decomposition), so directions that are rare in the data are learned as fast as common ones. Here
    that is worth four times the steps of AdamW (docs/training.md).
    """

    def __init__(
        self, inner: Iterable[nn.Parameter], others: Iterable[nn.Parameter], rate: float, decay: float
    ) -> None:
        groups: list[dict[str, Any]] = [{"params": list(inner)}, {"params": list(others)}]
        super().__init__(groups, rate, weight_decay=decay, fused=True)

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step with the gradients that are there; those of the inner convolutions are gone then."""
        assert closure is None
        inner = self.param_groups[0]
        with torch.no_grad():
            for weight in inner["params"]:
                if weight.grad is not None:
                    self._turn(weight, inner["lr"], inner["weight_decay"])
                    weight.grad = None  # so AdamW leaves it alone
        super().step()

    def _turn(self, weight: nn.Parameter, rate: float, decay: float) -> None:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
            state["step"] = torch.zeros(())  # which AdamW expects in every state that it loads
        gradient = cast(Tensor, weight.grad)
        momentum = state["momentum"].lerp_(gradient, 1 - _MOMENTUM)
        ahead = gradient.lerp(momentum, _MOMENTUM).movedim(1, -1)  # Nesterov's; with channels last as it lies in memory
        matrix = ahead.flatten(1)
        step = orthogonal(matrix).reshape(ahead.shape).movedim(-1, 1)
        weight.mul_(1 - rate * decay).add_(step, alpha=-rate * _RMS * max(matrix.shape) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """Roughly the orthogonal factor of the polar decomposition of `matrix`: its singular values brought to about 1.

    All steps are taken on the Gram matrix of the smaller side, whose polynomials commute; the matrix, which is up to 50
    times as long, is multiplied twice.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonal(matrix.T).T
    gram = matrix @ matrix.T
    scale = gram.trace() + 1e-14  # the sum of all s²
    gram = gram / scale
    product = factor = _factor(gram)
    for _ in range(_TIMES - 1):
        gram = factor @ (gram @ factor)
        factor = _factor(gram)
        product = product @ factor
    return (product * scale.rsqrt()) @ matrix


def _factor(gram: Tensor) -> Tensor:
    factor = torch.addmm(gram, gram, gram, beta=_B, alpha=_C)
    factor.diagonal().add_(_A)
    return factor
