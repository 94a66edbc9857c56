"""What a network costs: parameters, and multiplications for one input; see `study.families`."""

from __future__ import annotations

import itertools

from gmlib.study.config import RunConfig

__all__ = ["multiplications", "num_parameters"]


def num_parameters(config: RunConfig, num_features: int) -> int:
    """Trained parameters of the network that `config` describes.

    Args:
        config: The run.
        num_features: Size of the data set's inputs.
    """
    pairs = itertools.pairwise((num_features, *config.widths))
    return sum(config.family.num_parameters(config, d, C) for d, C in pairs)


def multiplications(config: RunConfig, num_features: int) -> int:
    """Multiplications by which the trained network answers one input.

    Args:
        config: The run.
        num_features: Size of the data set's inputs.
    """
    pairs = itertools.pairwise((num_features, *config.widths))
    return sum(config.family.multiplications(config, d, C) for d, C in pairs)
