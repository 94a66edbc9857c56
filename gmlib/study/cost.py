"""What a network costs, counted from its sizes: parameters, and multiplications for one input.

Multiplications are those of a trained network that answers: what depends on parameters alone is
computed once, beforehand, and costs an input nothing. Not counted are the thirty or so
multiplications and the two special functions by which `F` and `G` of a component follow from mean
and variance of its pre-activation: they are as many in a layer of 784 inputs as in a layer of one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from gmlib.study.config import RunConfig

__all__ = ["multiplications", "num_parameters"]


def num_parameters(config: RunConfig, num_features: int) -> int:
    """Trained parameters of the network that `config` describes.

    With `d` inputs and `C` outputs a layer has ``C (d + 1)`` of them in a dense network,
    ``K (2 d + C d + C)`` in a stack of GM layers of `K` components (`mu` and `sigma`, `U`, `v`),
    and ``n (d + C)`` in a network of `n` neurons a layer (directions and readouts).

    Args:
        config: The run.
        num_features: Size of the data set's inputs.
    """
    K, n = config.num_components, config.num_neurons

    def of_layer(d: int, C: int) -> int:
        if config.arm == "FC":
            return C * (d + 1)
        if config.arm == "NEURONS":
            return n * (d + C)
        return K * (2 * d + C * d + C)

    return sum(of_layer(d, C) for d, C in _layers(config, num_features))


def multiplications(config: RunConfig, num_features: int) -> int:
    r"""Multiplications by which the trained network answers one input.

    A dense layer takes ``C d``, one a weight, and a layer of `n` neurons ``n (d + C)``. A GM layer

    .. math::
        h(x) = \sum_k\big[w_k F_k + (A_k x)\,G_k\big],\qquad
        w_k = \tfrac1K(U_k\mu_k + v_k),\quad A_k = \tfrac1KU_k\,\mathrm{diag}(\sigma_k^2),

    takes ``d`` for the squares of `x`, and for each of its `K` components ``d`` for the mean
    :math:`\langle\mu_k, x\rangle` of the pre-activation, ``d`` for its variance
    :math:`\langle\sigma_k^2, x^2\rangle`, ``C d`` for :math:`A_k x`, ``C`` for `F` and ``C`` for
    `G`: together ``d + K (d (C + 2) + 2 C)``. :math:`w_k`, :math:`A_k` and :math:`\sigma_k^2` do
    not depend on the input. `gm_layer` forms what it needs of them anew for every batch, at no more
    than ``K d (2 C + 1)`` a batch.

    Args:
        config: The run.
        num_features: Size of the data set's inputs.
    """
    K, n = config.num_components, config.num_neurons

    def of_layer(d: int, C: int) -> int:
        if config.arm == "FC":
            return C * d
        if config.arm == "NEURONS":
            return n * (d + C)
        return d + K * (d * (C + 2) + 2 * C)

    return sum(of_layer(d, C) for d, C in _layers(config, num_features))


def _layers(config: RunConfig, num_features: int) -> Iterator[tuple[int, int]]:
    """Inputs and outputs of every layer."""
    return itertools.pairwise((num_features, *config.widths))
