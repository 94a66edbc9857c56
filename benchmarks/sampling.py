"""The closed form against Monte Carlo at equal accuracy, on the images of the first batch.

Sampling is given its cheapest form: the neurons of a cloud are averaged before the readout, which
is linear, so that a sample costs two multiplications a coordinate and image.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from harness import interleaved, ratios, summary
from torch import Tensor

from gmlib import GaussianMixtureLayer
from gmlib.functional import gm_layer
from gmlib.init import kumar_
from gmlib.study import datasets

ACCURACY = 0.01
PROBES = (256, 1024, 4096)
REPEATS = 8


@torch.no_grad()
def sampled(x: Tensor, mu: Tensor, sigma: Tensor, U: Tensor, v: Tensor, samples: int) -> Tensor:
    """The layer's output from `samples` neurons a component, (B, C)."""
    out = x.new_zeros(len(x), U.shape[1])
    for mean, deviation, readout, offset in zip(mu, sigma, U, v, strict=True):
        neurons = torch.randn(samples, len(mean)).mul_(deviation).add_(mean)
        activation = torch.relu(x @ neurons.T)  # (B, samples)
        out += (activation @ neurons) @ readout.T + activation.sum(1, keepdim=True) * offset
    return out / (samples * len(mu))


def measure() -> dict[str, Any]:
    """Samples that 1 % takes, by the law of large numbers, and the time of both."""
    torch.manual_seed(0)
    images = datasets.load("mnist", "image").x_train
    x = images[:64]
    layer = GaussianMixtureLayer(784, 100, 10)
    kumar_(layer, images[:2048])
    parameters = [parameter.detach() for parameter in layer.parameters()]
    exact = gm_layer(x, *parameters)

    def error(samples: int) -> float:
        squares = [
            (sampled(x, *parameters, samples) - exact).square().mean() for _ in range(REPEATS)
        ]
        return math.sqrt(torch.stack(squares).mean() / exact.square().mean())

    errors = {samples: error(samples) for samples in PROBES}
    # The error falls with the root of the number of samples: from the largest probe to 1 %.
    needed = math.ceil(PROBES[-1] * (errors[PROBES[-1]] / ACCURACY) ** 2)
    times = interleaved(
        {
            "closed form": torch.no_grad()(lambda: gm_layer(x, *parameters)),
            "sampled": lambda: sampled(x, *parameters, PROBES[-1]),
        },
        rounds=9,
    )
    cost = ratios(times["sampled"], times["closed form"])
    result = {
        "accuracy": ACCURACY,
        "errors": {str(samples): float(f"{value:.4g}") for samples, value in errors.items()},
        "samples": needed,
        "closed_form_ms": summary([1e3 * value for value in times["closed form"]]),
        "slower": {name: float(f"{v * needed / PROBES[-1]:.4g}") for name, v in cost.items()},
    }
    print(
        f"Monte Carlo within {ACCURACY:.0%} of the closed form: {needed:,} neurons a component, "
        f"{result['slower']['median']:,.0f} times the time"
    )
    return result
