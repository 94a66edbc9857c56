"""Time of a training step by path, as ratios measured side by side in one run.

The stack 784 -> 100 -> 10 with K = 10 and batches of 64, on one thread in float32: forward,
backward and SGD. Run as ``make bench``.
"""

from __future__ import annotations

import math
import statistics

import torch
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from gmlib import GaussianMixtureLayer
from gmlib.functional import gm_layer
from gmlib.init import kumar_

ROUNDS = 15
STEPS = 20  # a round


def plain(x: Tensor, mu: Tensor, sigma: Tensor, U: Tensor, v: Tensor) -> Tensor:
    """The closed form as it is written, left to autograd."""
    m, t = x @ mu.T, (x.square() @ sigma.square().T).sqrt()
    z = m / t
    gate = 0.5 * torch.erfc(-z / math.sqrt(2.0))
    relu = m * gate + t * torch.exp(-0.5 * z.square()) / math.sqrt(2.0 * math.pi)
    constant = torch.einsum("kcd,kd->kc", U, mu) + v
    linear = torch.einsum("bd,kd,kcd->bkc", x, sigma.square(), U)
    return (relu @ constant + torch.einsum("bk,bkc->bc", gate, linear)) / len(mu)


def main() -> None:
    """Print the median time of each path, its spread, and its ratio to the bare products."""
    torch.manual_seed(0)
    x, y = torch.randn(64, 784), torch.randint(10, (64,))
    stack = nn.Sequential(GaussianMixtureLayer(784, 100, 10), GaussianMixtureLayer(100, 10, 10))
    kumar_(stack, x)
    optimizer = torch.optim.SGD(stack.parameters(), lr=1e-6)
    weights, inputs, gradient = torch.randn(784, 1000), x.T.contiguous(), torch.randn(64, 1000)

    def step(layer_function) -> None:
        optimizer.zero_grad()
        hidden = x
        for layer in stack:
            hidden = layer_function(hidden, layer.mu, layer.sigma, layer.U, layer.v)
        nn.functional.cross_entropy(hidden, y).backward()
        optimizer.step()

    def products() -> None:
        x @ weights
        inputs @ gradient

    paths = {
        "bare products": products,
        "gmlib": lambda: step(gm_layer),
        "plain autograd": lambda: step(plain),
    }
    timers = {
        name: Timer("path()", globals={"path": path}, num_threads=1) for name, path in paths.items()
    }
    times: dict[str, list[float]] = {name: [] for name in paths}
    for timer in timers.values():
        timer.timeit(STEPS)
    for _ in range(ROUNDS):  # in turn, so that drift of the machine meets all alike
        for name, timer in timers.items():
            times[name].append(timer.timeit(STEPS).mean * 1e3)

    reference = times["bare products"]
    print(f"{'path':<16}{'median':>10}{'range':>20}{'ratio':>8}")
    for name, values in times.items():
        ratio = statistics.median(a / b for a, b in zip(values, reference, strict=True))
        spread = f"{min(values):.2f} to {max(values):.2f}"
        print(f"{name:<16}{statistics.median(values):>7.2f} ms{spread:>20}{ratio:>8.2f}")


if __name__ == "__main__":
    main()
