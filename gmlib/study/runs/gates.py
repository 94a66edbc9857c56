"""Gates of components: where a component is open, shut or undecided."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from gmlib.functional import relu_moments
from gmlib.layer import MixtureLayer

__all__ = ["OPEN", "SHUT", "gates", "watched_gates"]

SHUT, OPEN = 0.05, 0.95
"""A component is shut to an input on which fewer of its neurons than this share fire.

It is open where more than `OPEN` fire, and undecided between.
"""


def gates(x: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
    """The share of each component's neurons that fire on each input.

    Args:
        x: Inputs.
        mu: Component means.
        sigma: Component standard deviations.

    Returns:
        ``G = P(<beta, x> > 0)``.

    Shape:
        - x: :math:`(N, d)`.
        - mu, sigma: :math:`(*, K, d)`.
        - Output: :math:`(*, N, K)`.
    """
    t = (x.square() @ sigma.square().mT).clamp_min(torch.finfo(x.dtype).tiny).sqrt()
    return relu_moments(x @ mu.mT, t)[1]


@contextmanager
def watched_gates(network: nn.Module) -> Iterator[Mapping[str, Tensor]]:
    """Take note of the gates while inputs pass through a network.

    Yields:
        By ``"layer.shut"`` and ``"layer.open"``, filled as inputs pass: the shares of inputs to
        which each of the layer's components is shut or open, shape ``(K,)``.
    """
    shares: dict[str, Tensor] = {}

    def note(name: str, layer: MixtureLayer, args: tuple[Tensor], output: Tensor) -> None:
        G = gates(args[0], layer.mu, layer.sigma)
        shares[f"{name}.shut"] = (G < SHUT).double().mean(0)
        shares[f"{name}.open"] = (G > OPEN).double().mean(0)

    handles = [
        layer.register_forward_hook(partial(note, name))
        for name, layer in network.named_modules()
        if isinstance(layer, MixtureLayer)
    ]
    try:
        yield shares
    finally:
        for handle in handles:
            handle.remove()
