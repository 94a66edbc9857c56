"""Functions to differentiate, directions, and checks of derivatives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
import torch
from draws import seeded
from kinds import Kind
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from gmlib.functional import relu_moments

# The code multiplies in another order where the batch is smaller than the layer is wide.
BATCHES = {"B < C": (2, 3), "B >= C": (3, 2)}
both_batches = pytest.mark.parametrize(("B", "C"), BATCHES.values(), ids=BATCHES)


def energy(kind: Kind) -> Callable[..., Tensor]:
    """A number that depends on every output of a layer, as a function of its arguments."""
    return lambda *inputs: kind.function(*inputs).square().sum()


def moment_energy(m: Tensor, t: Tensor) -> Tensor:
    """A number that depends on both moments."""
    F, G = relu_moments(m, t)
    return (F.square() + F * G + G.square()).sum()


def tangents_like(tensors: Sequence[Tensor], seed: int = 1) -> tuple[Tensor, ...]:
    generator = seeded(seed)
    return tuple(torch.randn(t.shape, generator=generator, dtype=t.dtype) for t in tensors)


def check_derivatives(function: Callable[..., Any], inputs: Iterable[Tensor]) -> None:
    """Check first and second derivatives in all modes."""
    inputs = tuple(tensor.detach().requires_grad_() for tensor in inputs)
    assert gradcheck(
        function,
        inputs,
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
    )
    assert gradgradcheck(function, inputs, check_fwd_over_rev=True, check_batched_grad=True)
