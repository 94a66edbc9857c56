r"""Learning rates for networks with GM layers.

In folded coordinates a step at rate :math:`\eta` along the gradient of the readout changes a
layer's outputs at :math:`x'`, for a gradient :math:`g` in its outputs at :math:`x`, by

.. math::
    -\eta\,g\sum_{k=1}^K\big[F_k(x)F_k(x') + G_k(x)G_k(x')\langle x, x'\rangle\big],

a sum over the components: the more there are, the longer the same step. At a rate of
:math:`\eta/K` it is a mean, and one :math:`\eta` serves all `K`. The components themselves need no
such factor: what a step in :math:`\mu` and :math:`\sigma` does is weighted by the squares of the
readouts, whose sum over the components an initialization fixes.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from gmlib._validation import check_positive
from gmlib.layer import FoldedGaussianMixtureLayer, MixtureLayer

__all__ = ["param_groups", "readout_factor"]

_COMPONENTS = 10  # of the layers with which the rates of the note were chosen


def readout_factor(num_components: int) -> float:
    """The factor ``10 / K`` of the learning rate of a folded readout.

    Args:
        num_components: Number `K` of Gaussian components.

    Examples:
        >>> readout_factor(40)
        0.25
    """
    return _COMPONENTS / num_components


def param_groups(
    module: nn.Module, lr: float = 0.1, *, sigma_factor: float = 10.0
) -> list[dict[str, Any]]:
    """Parameter groups for SGD on a network with GM layers, with the learning rate of each.

    - The `sigma` of GM layers learn at ``lr * sigma_factor``, as in the note.
    - The `A` and `w` of folded layers of `K` components learn at ``lr * 10 / K``, so that one `lr`
      serves layers of all `K`.
    - All other parameters learn at `lr`.

    Args:
        module: A network.
        lr: The learning rate, positive.
        sigma_factor: Factor of the learning rate of `sigma`, positive.

    Returns:
        One group for each rate, the lowest first, with all parameters of the network among them,
        each once. Schedulers keep the ratios of the rates.

    Raises:
        ValueError: If a number is not positive and finite.
        TypeError: If it is not a number.

    Examples:
        >>> layer = FoldedGaussianMixtureLayer(784, 10, num_components=40)
        >>> [(group["lr"], len(group["params"])) for group in param_groups(layer, lr=0.1)]
        [(0.025, 2), (0.1, 1), (1.0, 1)]
    """
    check_positive("lr", lr)
    check_positive("sigma_factor", sigma_factor)
    rates: dict[Tensor, float] = {}
    for layer in module.modules():
        if isinstance(layer, MixtureLayer):
            rates[layer.sigma] = lr * sigma_factor
        if isinstance(layer, FoldedGaussianMixtureLayer):
            for tensor in layer.readout:
                rates[tensor] = lr * readout_factor(layer.num_components)
    groups: dict[float, list[Tensor]] = {}
    for parameter in module.parameters():
        groups.setdefault(rates.get(parameter, lr), []).append(parameter)
    return [{"params": groups[rate], "lr": rate} for rate in sorted(groups)]
