r"""Learning rates and weight decay for networks with GM layers.

In folded coordinates a step at rate :math:`\eta` along the gradient of the readout changes a
layer's outputs at :math:`x'`, for a gradient :math:`g` in its outputs at :math:`x`, by

.. math::
    -\eta\,g\sum_{k=1}^K\big[F_k(x)F_k(x') + G_k(x)G_k(x')\langle x, x'\rangle\big],

a sum over the components: the more there are, the longer the same step. At a rate of
:math:`\eta/K` it is a mean. The components themselves need no such factor: what a step in
:math:`\mu` and :math:`\sigma` does is weighted by the squares of the readouts, whose sum over the
components an initialization fixes. With few components the rates are kept as they are. There it is
not the readout's step that bounds them: a gate that a long step shuts is a large part of the layer.

Weight decay is for all parameters of a GM layer but :math:`\sigma`. The layer is linear in its
readout, offsets and all: where both parts decay, its function does. Where :math:`\mu` decays, the
gates open. But where :math:`\sigma` is zero there is no cloud any more, and in affine coordinates
nothing that moves `A`.
"""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor, nn

from gmlib._validation import check_positive
from gmlib.layer import FoldedGaussianMixtureLayer, MixtureLayer

__all__ = ["ParamGroups", "param_groups", "readout_factor"]

_COMPONENTS = 10  # of the layers with which the rates of the note were chosen
# Names of what a parameter is computed from, where it is parametrized, pruned or weight-normed.
_SOURCE = re.compile(r"(?:parametrizations\.)?(\w+?)(?:\.original\d*|_orig|_g|_v)?")


def readout_factor(num_components: int) -> float:
    """The factor ``min(1, 10 / K)`` of the learning rate of a folded readout.

    Args:
        num_components: Number `K` of Gaussian components.

    Examples:
        >>> readout_factor(40)
        0.25
    """
    return min(1.0, _COMPONENTS / num_components)


class ParamGroups(list[dict[str, Any]]):
    """Parameter groups, as optimizers take them. Prints a table.

    Each has its ``"params"``, their ``"names"`` and an ``"lr"``, and those that shall not decay a
    ``"weight_decay"`` of zero. An optimizer writes to the same dictionaries: printed later, the
    table has its weight decay and the rates that a scheduler has set.

    Examples:
        >>> layer = FoldedGaussianMixtureLayer(784, 10, num_components=40)
        >>> groups = param_groups(layer, lr=0.1)
        >>> optimizer = torch.optim.SGD(groups, weight_decay=1e-4)
        >>> groups
        parameter  shape             lr  weight decay
        A          (40, 10, 784)  0.025        0.0001
        w          (40, 10)       0.025        0.0001
        mu         (40, 784)        0.1        0.0001
        sigma      (40, 784)          1           0.0
    """

    def __repr__(self) -> str:
        rows = [("parameter", "shape", "lr", "weight decay")]
        rows += [
            (name, str(tuple(p.shape)), f"{group['lr']:g}", f"{group.get('weight_decay', '-')}")
            for group in self
            for name, p in zip(group["names"], group["params"], strict=True)
        ]
        name, shape, lr, decay = (max(map(len, column)) for column in zip(*rows, strict=True))
        return "\n".join(
            f"{row[0]:<{name}}  {row[1]:<{shape}}  {row[2]:>{lr}}  {row[3]:>{decay}}"
            for row in rows
        )


def param_groups(module: nn.Module, lr: float = 0.1, *, sigma_factor: float = 10.0) -> ParamGroups:
    """Parameter groups for an optimizer of a network with GM layers.

    - The `sigma` of GM layers learn at ``lr * sigma_factor``, as in the note, and do not decay.
    - The `A` and `w` of folded layers of more than ten components learn at ``lr * 10 / K``, so that
      one `lr` serves layers of all `K`.
    - All other parameters learn at `lr`. Outside of GM layers those of less than two dimensions,
      biases and the scales of norms, do not decay.

    What a parameter is computed from, where it is parametrized, goes with it.

    Args:
        module: A network.
        lr: The learning rate, positive.
        sigma_factor: Factor of the learning rate of `sigma`, positive.

    Returns:
        A group for each rate and either kind of decay, the lowest rate first, with all parameters
        of the network among them, frozen ones too, each once.

    Raises:
        ValueError: If a number is not positive and finite.
        TypeError: If it is not a number.

    Notes:
        Weight decay is the optimizer's, as in ``AdamW(param_groups(network, 1e-3),
        weight_decay=0.05)``: the groups that shall not decay have a zero of their own.

        Schedulers multiply the rate of each group and so keep their ratios, with two exceptions.
        ``OneCycleLR`` and ``CyclicLR`` set all to what they are given: hand them
        ``max_lr=[group["lr"] for group in groups]``, not a number. And ``CosineAnnealingLR`` ends
        at one ``eta_min`` for all.

        The factor of `sigma` is for SGD. A step of Adam is as long whatever the size of a gradient:
        begin at ``sigma_factor=1.0`` there. PyTorch's ``Muon`` takes matrices alone, and refuses
        `U` and `A`; their orthogonal updates mean nothing for `sigma` and offsets, either. Give it
        the matrices of other layers, and the GM layers to another optimizer.

    Examples:
        >>> layer = FoldedGaussianMixtureLayer(784, 10, num_components=40)
        >>> groups = param_groups(nn.Sequential(nn.Linear(28, 784), layer), lr=0.1)
        >>> for group in groups:
        ...     print(group["lr"], group["names"])
        0.025 ['1.A', '1.w']
        0.1 ['0.bias']
        0.1 ['0.weight', '1.mu']
        1.0 ['1.sigma']
    """
    check_positive("lr", lr)
    check_positive("sigma_factor", sigma_factor)
    known: dict[Tensor, tuple[float, bool]] = {}  # rate, and whether it decays
    for layer in module.modules():
        if isinstance(layer, MixtureLayer):
            for name, parameter in layer.named_parameters():
                source = _SOURCE.fullmatch(name)
                role = source[1] if source else ""
                if role == "sigma":
                    known[parameter] = (lr * sigma_factor, False)
                elif role in layer.readout_names and isinstance(layer, FoldedGaussianMixtureLayer):
                    known[parameter] = (lr * readout_factor(layer.num_components), True)
                elif role in ("mu", *layer.readout_names):
                    known.setdefault(parameter, (lr, True))
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for name, parameter in module.named_parameters():
        rate, decays = known.get(parameter, (lr, parameter.ndim >= 2))
        fresh = {"params": [], "names": [], "lr": rate} | ({} if decays else {"weight_decay": 0.0})
        group = groups.setdefault((rate, decays), fresh)
        group["params"].append(parameter)
        group["names"].append(name)
    return ParamGroups(groups[key] for key in sorted(groups))
