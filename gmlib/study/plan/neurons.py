"""Networks of finitely many neurons, whose limits are GM layers."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from gmlib.layer import GaussianMixtureLayer

__all__ = ["NeuronLayer", "draw_neurons"]


class NeuronLayer(nn.Module):
    r"""A two-layer block of `n` neurons in mean-field scaling.

    .. math::
        h(x) = \frac1n \sum_{j=1}^n \omega_j\,\mathrm{relu}(\langle\beta_j, x\rangle)

    Args:
        beta: Directions, shape ``(n, d)``.
        omega: Readouts, shape ``(n, C)``.

    Shape:
        - Input: ``(..., d)``.
        - Output: ``(..., C)``.
    """

    def __init__(self, beta: Tensor, omega: Tensor) -> None:
        super().__init__()
        self.beta = nn.Parameter(beta)
        self.omega = nn.Parameter(omega)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs, shape ``(..., C)``, for `x` of shape ``(..., d)``."""
        return torch.relu(x @ self.beta.T) @ self.omega / len(self.beta)


@torch.no_grad()
def draw_neurons(
    layer: GaussianMixtureLayer, num_neurons: int, *, generator: Generator | None = None
) -> NeuronLayer:
    """Draw a layer of neurons from the mixture of `layer`, equally many from each component.

    Args:
        layer: The GM layer.
        num_neurons: Total number of neurons, a multiple of the number of components.
        generator: Source of randomness; the global one by default.

    Raises:
        ValueError: If `num_neurons` is not a positive multiple of the number of components.
    """
    each, rest = divmod(num_neurons, layer.num_components)
    if rest or each < 1:
        raise ValueError(
            f"num_neurons must be a positive multiple of the layer's {layer.num_components} "
            f"components, got {num_neurons!r}"
        )
    shape = (layer.num_components, each, layer.in_features)
    noise = torch.empty(shape, dtype=layer.mu.dtype, device=layer.mu.device)
    beta = layer.mu.unsqueeze(1) + layer.sigma.unsqueeze(1) * noise.normal_(generator=generator)
    omega = beta @ layer.U.mT + layer.v.unsqueeze(1)
    return NeuronLayer(beta.flatten(0, 1), omega.flatten(0, 1))
