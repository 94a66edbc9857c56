"""A training step by path: forward, backward and SGD, as ratios to its two bare products.

The stack 784 -> 100 -> 10 with K = 10 and batches of 64, in float32 on one thread. What cannot be
avoided is the readout's product and that of its gradient in the first layer.
"""

from __future__ import annotations

import math
import shutil
from typing import Any

import torch
from harness import interleaved, keep_freed_memory, ratios, summary
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from gmlib import GaussianMixtureLayer, fold
from gmlib.functional import gm_layer
from gmlib.init import kumar_

BARE, OURS, FOLDED, PLAIN = "bare products", "gmlib", "gmlib, folded", "plain autograd"
COMPILED, REORDERED = "torch.compile of plain", "torch.compile of plain, reordered"
COMPILED_OURS, COMPILED_FOLDED = "torch.compile of gmlib", "torch.compile of gmlib, folded"
DENSE, AS_LARGE = "dense network", "dense network, as many products"
# What a step is held to, as ratios of two paths: at most so much of bare products, else at least.
HELD_TO = {
    (OURS, BARE): (3.0, 2.5),
    (PLAIN, OURS): (3.3, 4.0),
    (COMPILED, OURS): (1.6, 2.0),
    (FOLDED, BARE): (2.0, 1.7),
    (PLAIN, FOLDED): (3.0, 4.0),
    (COMPILED, FOLDED): (1.8, None),
}
LARGE = 50_000  # entries; the batch has 50,176


def plain(x: Tensor, mu: Tensor, sigma: Tensor, U: Tensor, v: Tensor) -> Tensor:
    """The closed form as the book writes it, left to autograd."""
    return _plain(x, mu, sigma, U, v, torch.einsum("kcd,bkd->bkc", U, sigma**2 * x.unsqueeze(1)))


def plain_reordered(x: Tensor, mu: Tensor, sigma: Tensor, U: Tensor, v: Tensor) -> Tensor:
    """The same, but for sigma^2 being multiplied into U first, which compiles better."""
    return _plain(x, mu, sigma, U, v, torch.einsum("kcd,bd->bkc", U * (sigma**2).unsqueeze(1), x))


def _plain(x: Tensor, mu: Tensor, sigma: Tensor, U: Tensor, v: Tensor, linear: Tensor) -> Tensor:
    m, t = x @ mu.T, (x**2 @ (sigma**2).T).sqrt()
    z = m / t
    G = 0.5 * torch.erfc(-z / math.sqrt(2.0))
    F = m * G + t * torch.exp(-0.5 * z**2) / math.sqrt(2.0 * math.pi)
    constant = torch.einsum("kcd,kd->kc", U, mu) + v
    return (constant * F.unsqueeze(-1) + linear * G.unsqueeze(-1)).mean(1)


def measure() -> dict[str, Any]:
    """Times and ratios by path, printed; and where the time of our step goes."""
    torch.set_num_threads(1)  # for the profile; the timers do so themselves
    torch.manual_seed(0)
    x, y = torch.randn(64, 784), torch.randint(10, (64,))
    stack = nn.Sequential(GaussianMixtureLayer(784, 100, 10), GaussianMixtureLayer(100, 10, 10))
    kumar_(stack, x)
    folded = fold(stack)
    dense = nn.Sequential(nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))
    as_large = nn.Sequential(nn.Linear(784, 1000), nn.ReLU(), nn.Linear(1000, 10))
    weights, inputs, gradient = torch.randn(784, 1000), x.T.contiguous(), torch.randn(64, 1000)

    def stacked(layer_function):
        def forward(hidden: Tensor) -> Tensor:
            for layer in stack:
                hidden = layer_function(hidden, layer.mu, layer.sigma, layer.U, layer.v)
            return hidden

        return forward

    def step(forward, network=stack):
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-6)

        def run() -> None:
            optimizer.zero_grad()
            nn.functional.cross_entropy(forward(x), y).backward()
            optimizer.step()

        return run

    def products() -> None:
        x @ weights
        inputs @ gradient

    paths = {
        BARE: products,
        OURS: step(stacked(gm_layer)),
        FOLDED: step(folded, folded),
        PLAIN: step(stacked(plain)),
        DENSE: step(dense, dense),
        AS_LARGE: step(as_large, as_large),
    }
    if any(map(shutil.which, ("c++", "g++", "clang++"))):
        paths[COMPILED] = step(torch.compile(stacked(plain)))
        paths[REORDERED] = step(torch.compile(stacked(plain_reordered)))
        paths[COMPILED_OURS] = step(torch.compile(stacked(gm_layer)))
        paths[COMPILED_FOLDED] = step(torch.compile(folded), folded)
    else:
        print("torch.compile needs a C++ compiler, and none is installed: not measured")
    for path in paths.values():
        path()  # compiles
    keep_freed_memory()
    times = interleaved(paths)

    print(f"{'step of 64 images':<34}{'median':>9}{'quartiles':>20}{'bare products':>15}")
    found = {}
    for name, values in times.items():
        ms = summary([1e3 * value for value in values])
        ratio = ratios(values, times[BARE])
        found[name] = {"ms": ms, "bare_products": ratio}
        spread = f"{ms['low']:.2f} to {ms['high']:.2f}"
        print(f"{name:<34}{ms['median']:>6.2f} ms{spread:>20}{ratio['median']:>15.2f}")
    print()
    held = {}
    for (up, down), (required, target) in HELD_TO.items():
        if not {up, down} <= times.keys():
            continue
        ratio = ratios(times[up], times[down])
        held[f"{up} / {down}"] = {**ratio, "required": required, "target": target}
        wish = "" if target is None else f", target {target}"
        print(
            f"{up} / {down}: {ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f}), "
            f"required {required}{wish}"
        )
    profiles = {name: where_time_goes(paths[name]) for name in (OURS, FOLDED)}
    return {"paths": found, "ratios": held, "profiles": profiles}


def where_time_goes(step, count: int = 100) -> dict[str, float]:
    """Share of the step's time by kind of operation, from PyTorch's profiler."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        for _ in range(count):
            step()
    shares = {"the two products": 0.0, "passes over large arrays": 0.0, "all else": 0.0}
    for event in profiler.key_averages(group_by_input_shape=True):
        sizes = sorted(math.prod(shape) for shape in event.input_shapes if shape)
        if event.key in ("aten::mm", "aten::bmm") and sizes[-2] >= LARGE:
            kind = "the two products"
        elif event.key.startswith("aten::") and sizes and sizes[-1] >= LARGE:
            kind = "passes over large arrays"
        else:
            kind = "all else"
        shares[kind] += event.self_cpu_time_total
    total = sum(shares.values())
    return {kind: round(share / total, 3) for kind, share in shares.items()}
