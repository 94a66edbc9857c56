r"""The closed form of a Gaussian mixture (GM) layer.

A GM layer averages, over ``K`` Gaussian clouds of neurons, the output of a ReLU neuron with an
affine readout. With :math:`\beta \sim \mathcal N(\mu_k, \mathrm{diag}\,\sigma_k^2)` and the
pre-activation :math:`s = \langle\beta, x\rangle \sim \mathcal N(m_k, t_k^2)`,

.. math::
    h(x) = \frac1K \sum_{k=1}^K \mathbb E\big[(U_k\beta + v_k)\,\mathrm{relu}(s)\big]
         = \frac1K \sum_{k=1}^K \Big[(U_k\mu_k + v_k)\,F_k + U_k(\sigma_k^2\odot x)\,G_k\Big],

where :math:`F = \mathbb E[\mathrm{relu}(s)] = m\Phi(m/t) + t\varphi(m/t)` and
:math:`G = \mathbb P(s > 0) = \Phi(m/t)`. The second term is Stein's lemma,
:math:`\mathbb E[(\beta-\mu)\,\mathrm{relu}(s)] = \mathrm{Cov}(\beta, s)\,\mathbb P(s>0)`.
The layer is due to Chewi, Rigollet and Yan, "Gaussian mixture layers for neural networks",
arXiv:2508.04883 (2025).

Its readout has two sets of coordinates. *Affine* ones are those above, :math:`(U, v)`. But `h`
depends on them only through

.. math::
    A_k = \tfrac1K\,U_k\,\mathrm{diag}(\sigma_k^2),\qquad w_k = \tfrac1K(U_k\mu_k + v_k),
    \qquad h(x) = \sum_{k=1}^K \big[w_k F_k + (A_k x)\,G_k\big],

the *folded* ones. With :math:`\omega = U\beta + v`, the readout of a neuron, :math:`Kw_k` is the
mean of :math:`\omega` in a cloud, and :math:`KA_k` the covariance of :math:`\omega` and
:math:`\beta`: the moments of their joint Gaussian, of which :math:`U_k` and :math:`v_k` are the
coefficients of regression. The functions are the same; what gradient descent does to them is not.
:func:`fold` and :func:`unfold` go from one to the other.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gmlib._affine import DualGMLayer, GMLayer, mean_readout
from gmlib._calls import of_tensors
from gmlib._folded import DualFoldedLayer, FoldedLayer
from gmlib._function import LayerFunction, is_transformed, needs_operations
from gmlib._moments import relu_moments
from gmlib._validation import check_bool, check_size

__all__ = [
    "fold",
    "gm_layer",
    "gm_layer_folded",
    "gm_layer_monte_carlo",
    "relu_moments",
    "unfold",
]

# Entries of the largest intermediate result, Y: a large batch goes through in blocks of so many.
_BLOCK = 2**20


@of_tensors
def gm_layer(
    x: Tensor, mu: Tensor, sigma: Tensor, U: Tensor, v: Tensor, *, bias: bool = False
) -> Tensor:
    r"""Closed-form forward pass of a Gaussian mixture layer.

    Args:
        x: Inputs, shape ``(..., d)``; the leading shape may be empty or hold zeros.
        mu: Component means, shape ``(K, d)``.
        sigma: Component standard deviations per coordinate, shape ``(K, d)``. Only
            :math:`\sigma^2` enters, so that the sign is immaterial.
        U: Readout weights, shape ``(K, C, d)``.
        v: Readout offsets, shape ``(K, C)``.
        bias: Whether every input has a 1 behind it, which the last column of `mu`, `sigma` and `U`
            meets. The inputs are then of shape ``(..., d - 1)``.

    Returns:
        Outputs, shape ``(..., C)``: the mean over the `K` components of
        :math:`\mathbb E[(U_k\beta + v_k)\,\mathrm{relu}(\langle\beta, x\rangle)]`.

    Raises:
        ValueError: If the shapes do not fit together.
        TypeError: If a tensor is sparse, nested or masked, or the dtypes differ or are none of
            float32, float64, bfloat16 and float16.

    Notes:
        One `torch.autograd.Function` with hand-derived gradients. For a batch of `B` inputs it
        takes, in multiplications up to terms of lower order,

        - ``B K C d`` forward, for :math:`U(\sigma^2\odot x)`;
        - ``B K C d`` backward, for the gradient in `U`, from which that in `sigma` follows;
        - ``B K C d`` more backward only if `x` needs a gradient.

        The rest are passes over memory. Forward reads `U` twice (for the product and for
        :math:`U\mu`); backward reads it twice (for the gradients in `mu` and `sigma`), writes its
        gradient once and passes over that three times. Kept for the backward are the inputs and
        ``K (B C + 5 B + C)`` numbers, of 4 bytes in float32. Beside its results forward holds
        ``K (d min(B, C) + B C)`` numbers for a while, backward ``K B C``, and ``K C d`` where `x`
        needs a gradient. A batch goes through in blocks of some :math:`10^6/(KC)` inputs, so that
        evaluation needs little memory however many there are.

        Differentiable any number of times, and in forward mode, which may go over the backward
        (as in `torch.func.hessian`) but not over itself: there PyTorch's custom functions give
        wrong results. Works under `torch.func`'s transforms, `torch.compile` (without a graph
        break), both together, `torch.export`, `torch.fx` and `torch.jit.trace`; not under
        `torch.jit.script`. Tools that count operations by module know nothing of it;
        `torch.utils.flop_counter` counts its products.

        In bfloat16 and float16 it computes in float32 and rounds what it returns, outputs and
        gradients, once: to :math:`2^{-8}` and :math:`2^{-11}` of themselves. The copies in float32
        of inputs and parameters are kept for the backward, which has their gradients in float32
        too, for a while: the less memory is for what lies between the calls. Under autocast it
        computes in float32, as its tails need, and so returns float32. A derivative of the backward
        computes the forward anew; take it outside autocast, which would reach its products.

        What is squared has to be in range. Outputs and gradients are accurate where all deviations
        :math:`t_k` are between :math:`10^{-18}` and :math:`10^{18}` (in float64 between
        :math:`10^{-153}` and :math:`10^{153}`), or zero. Above, outputs are not finite. Below,
        :math:`t_k` counts as :math:`10^{-19}` (:math:`10^{-154}`), the readouts' multiples of
        which are the error. As :math:`h(cx) = c\,h(x)`, exactly so for a power of two, such inputs
        can be scaled.

    Examples:
        >>> x, mu, sigma = torch.ones(5, 3), torch.ones(2, 3), torch.ones(2, 3)
        >>> gm_layer(x, mu, sigma, torch.ones(2, 4, 3), torch.zeros(2, 4)).shape
        torch.Size([5, 4])
    """
    parameters = {"mu": mu, "sigma": sigma, "U": U, "v": v}
    return _evaluated(GMLayer, DualGMLayer, x, parameters, bias)


@of_tensors
def gm_layer_folded(
    x: Tensor, mu: Tensor, sigma: Tensor, A: Tensor, w: Tensor, *, bias: bool = False
) -> Tensor:
    r"""Closed-form forward pass of a Gaussian mixture layer in folded coordinates.

    Args:
        x: Inputs, shape ``(..., d)``; the leading shape may be empty or hold zeros.
        mu: Component means, shape ``(K, d)``.
        sigma: Component standard deviations per coordinate, shape ``(K, d)``. Only
            :math:`\sigma^2` enters, so that the sign is immaterial.
        A: Covariances of readout and direction, over `K`, shape ``(K, C, d)``.
        w: Mean readouts, over `K`, shape ``(K, C)``.
        bias: Whether every input has a 1 behind it, which the last column of `mu`, `sigma` and `A`
            meets. The inputs are then of shape ``(..., d - 1)``.

    Returns:
        Outputs :math:`\sum_k [w_k F_k + (A_k x) G_k]`, shape ``(..., C)``: those of
        :func:`gm_layer` at the `U` and `v` of which :func:`fold` makes these `A` and `w`.

    Raises:
        ValueError: If the shapes do not fit together.
        TypeError: If a tensor is sparse, nested or masked, or the dtypes differ or are none of
            float32, float64, bfloat16 and float16.

    Notes:
        A batch of `B` inputs takes ``B K C d`` multiplications forward, for :math:`Ax`, as many
        backward, for the gradient in `A`, and as many more only if `x` needs a gradient; up to
        terms of lower order. `A` is read once in forward, and in backward only for the gradient in
        `x`; its gradient is written once. There is no other pass over ``K C d`` numbers. Kept for
        the backward are the inputs and ``K (B C + 5 B)`` numbers, of 4 bytes in float32. A batch
        goes through in blocks as in :func:`gm_layer`. What is said there of derivatives,
        transforms, compilation, low precision and range holds here, too.

        On the way to the gradients in `sigma` and `x` is :math:`Ax/t^2`, which overflows where a
        deviation `t` is not zero, but below some :math:`10^{-19}\sqrt{|Ax|}`
        (:math:`10^{-154}` in float64).

    Examples:
        >>> x, mu, sigma = torch.ones(5, 3), torch.ones(2, 3), torch.ones(2, 3)
        >>> gm_layer_folded(x, mu, sigma, torch.ones(2, 4, 3), torch.zeros(2, 4)).shape
        torch.Size([5, 4])
    """
    parameters = {"mu": mu, "sigma": sigma, "A": A, "w": w}
    return _evaluated(FoldedLayer, DualFoldedLayer, x, parameters, bias)


@of_tensors
def fold(mu: Tensor, sigma: Tensor, U: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    r"""Folded coordinates of a readout: :math:`A = U\sigma^2/K` and :math:`w = (U\mu + v)/K`.

    By Stein's lemma, :math:`\mathrm{Cov}(U\beta + v, \beta) = U\,\mathrm{diag}(\sigma^2)`.

    Args:
        mu: Component means, shape ``(K, d)``.
        sigma: Component standard deviations, shape ``(K, d)``.
        U: Readout weights, shape ``(K, C, d)``.
        v: Readout offsets, shape ``(K, C)``.

    Returns:
        ``(A, w)``, of the shapes of `U` and `v`; differentiable.

    Raises:
        ValueError: If the shapes do not fit together.
        TypeError: If a tensor is sparse, nested or masked, or the dtypes differ or are none of
            float32, float64, bfloat16 and float16.

    Examples:
        >>> mu, sigma = torch.ones(2, 3), torch.full((2, 3), 2.0)
        >>> A, w = fold(mu, sigma, torch.ones(2, 4, 3), torch.ones(2, 4))
        >>> A[0, 0, 0].item(), w[0, 0].item()  # 1 * 4 / 2 and (3 * 1 + 1) / 2
        (2.0, 2.0)
    """
    _check_readout({"mu": mu, "sigma": sigma, "U": U, "v": v})
    K = len(U)
    return U * (sigma.square() / K).unsqueeze(1), (mean_readout(U, mu) + v) / K


def unfold(mu: Tensor, sigma: Tensor, A: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    r"""Affine coordinates of a readout: :math:`U = KA/\sigma^2` and :math:`v = Kw - U\mu`.

    The inverse of :func:`fold`. Where a `sigma` is zero, the neurons do not vary in that
    coordinate; their readouts then cannot vary with it either, so `A` has to be zero there, and `U`
    is set to zero.

    Args:
        mu: Component means, shape ``(K, d)``.
        sigma: Component standard deviations, shape ``(K, d)``.
        A: Covariances of readout and direction, over `K`, shape ``(K, C, d)``.
        w: Mean readouts, over `K`, shape ``(K, C)``.

    Returns:
        ``(U, v)``, of the shapes of `A` and `w`; differentiable.

    Raises:
        ValueError: If the shapes do not fit together, `A` is not zero where `sigma` is, or a finite
            `A` has no finite `U`.
        TypeError: If a tensor is sparse, nested or masked, or the dtypes differ or are none of
            float32, float64, bfloat16 and float16.

    Warns:
        UserWarning: If rounding changes `w` by more than a thousandth of its largest entry.

    Notes:
        `U` has the relative accuracy of `A`. `v` is a difference of numbers that are large where a
        `sigma` is small beside its `A`, as training in folded coordinates may make it: its error is
        up to ``d`` roundings of the largest :math:`|U_{ci}\mu_i|`, and the layer's outputs have
        that error times `F`. A network in float64 has digits to spare. Neither the refusals nor the
        warning work where values are not known: on the meta device, under `torch.func`'s transforms
        and while compiling.

    Examples:
        >>> mu, sigma = torch.ones(2, 3), torch.full((2, 3), 2.0)
        >>> U, v = unfold(mu, sigma, *fold(mu, sigma, torch.ones(2, 4, 3), torch.ones(2, 4)))
        >>> U[0, 0, 0].item(), v[0, 0].item()
        (1.0, 1.0)
    """
    eps = torch.finfo(A.dtype).eps if isinstance(A, Tensor) and A.is_floating_point() else 0.0
    return _unfold(mu, sigma, A, w, eps)


@of_tensors
def gm_layer_monte_carlo(
    x: Tensor,
    mu: Tensor,
    sigma: Tensor,
    U: Tensor,
    v: Tensor,
    num_samples: int,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Unbiased Monte Carlo estimate of :func:`gm_layer`, for tests and illustrations only.

    Draws `num_samples` neurons :math:`\beta` from every component and averages
    :math:`(U_k\beta + v_k)\,\mathrm{relu}(\langle\beta, x\rangle)` over them: a finite two-layer
    ReLU network of ``K * num_samples`` neurons whose infinite-width limit is the GM layer.

    Args:
        x: Inputs, shape ``(..., d)``.
        mu: Component means, shape ``(K, d)``.
        sigma: Component standard deviations, shape ``(K, d)``.
        U: Readout weights, shape ``(K, C, d)``.
        v: Readout offsets, shape ``(K, C)``.
        num_samples: Neurons drawn per component, at least 1.
        generator: Source of randomness; the global one by default.

    Returns:
        Outputs, shape ``(..., C)``, with an error of order ``num_samples ** -0.5``.

    Raises:
        ValueError: If the shapes do not fit together, or `num_samples` is below 1.
        TypeError: As :func:`gm_layer`.

    Examples:
        >>> x, mu, sigma = torch.ones(1, 3), torch.ones(2, 3), torch.ones(2, 3)
        >>> parameters = (mu, sigma, torch.ones(2, 4, 3), torch.zeros(2, 4))
        >>> exact = gm_layer(x, *parameters)
        >>> sampled = gm_layer_monte_carlo(x, *parameters, 100_000)
        >>> bool((sampled / exact - 1.0).abs().max() < 0.05)
        True
    """
    _check_layer(x, {"mu": mu, "sigma": sigma, "U": U, "v": v})
    num_samples = check_size("num_samples", num_samples)
    noise = torch.randn(
        num_samples, *mu.shape, dtype=mu.dtype, device=mu.device, generator=generator
    )
    beta = mu + sigma * noise  # (S, K, d)
    activation = torch.relu(torch.einsum("skd,...d->...sk", beta, x))
    readout = torch.einsum("kcd,skd->skc", U, beta) + v
    return torch.einsum("...sk,skc->...c", activation, readout) / (num_samples * mu.shape[0])


@of_tensors
def _unfold(mu: Tensor, sigma: Tensor, A: Tensor, w: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """`unfold`, of numbers that have the relative accuracy `eps`."""
    _check_readout({"mu": mu, "sigma": sigma, "A": A, "w": w})
    K, variance = len(A), sigma.square().unsqueeze(1)
    still = variance == 0.0
    U = K * A / torch.where(still, 1.0, variance)
    mean = mean_readout(U, mu)
    if not (A.is_meta or is_transformed() or torch.compiler.is_compiling()):
        _check_unfolded(still & (A != 0.0), A, U, K * w, mean, eps)
    return U, K * w - mean


def _check_unfolded(
    impossible: Tensor, A: Tensor, U: Tensor, w: Tensor, mean: Tensor, eps: float
) -> None:
    """Raise where no U has this A, and warn where v loses what w is."""
    if impossible.any():
        k, _, i = impossible.nonzero()[0].tolist()
        raise ValueError(
            f"sigma[{k}, {i}] is zero (or its square is) and A[{k}, :, {i}] is not: no U has this A"
        )
    overflow = A.isfinite() & ~U.isfinite()
    if overflow.any():
        k, _, i = overflow.nonzero()[0].tolist()
        raise ValueError(f"sigma[{k}, {i}] is too small for A[{k}, :, {i}]: U overflows")
    lost = eps * mean.abs().max()
    if lost > 1e-3 * w.abs().max():
        warnings.warn(
            f"rounding changes the mean readouts, up to {w.abs().max():.2g}, by up to {lost:.2g}: "
            "some sigma is small beside its A; unfold in float64",
            stacklevel=6,  # that of who calls `unfold`
        )


def _evaluated(
    function: type[LayerFunction],
    dual: type[LayerFunction],
    x: Tensor,
    parameters: Mapping[str, Tensor],
    bias: bool,
) -> Tensor:
    """A layer's function on inputs of any leading shape.

    `dual` is the function with forward mode, which cannot be compiled.
    """
    check_bool("bias", bias)
    _check_layer(x, parameters, bias)
    if bias:
        x = nn.functional.pad(x, (0, 1), value=1.0)
    values = tuple(parameters.values())
    *_, weights, offsets = values
    if needs_operations():
        out = function.forward(x.reshape(-1, x.shape[-1]), *values)[0]
    elif torch.compiler.is_compiling():  # it would fix the number of blocks
        out = function.apply(x.reshape(-1, x.shape[-1]), *values)[0]
    elif x.ndim == 2 and len(x) * offsets.numel() <= _BLOCK:  # as below, at less expense
        return dual.apply(x, *values)[0]  # type: ignore[no-any-return]
    else:
        blocks = x.reshape(-1, x.shape[-1]).split(max(1, _BLOCK // offsets.numel()))
        out = torch.cat([dual.apply(block, *values)[0] for block in blocks])
    return out.view(*x.shape[:-1], weights.shape[1])  # type: ignore[no-any-return]


def _check_layer(x: Tensor, parameters: Mapping[str, Tensor], bias: bool = False) -> None:
    _check_readout(parameters)
    d = parameters["mu"].shape[1] - int(bias)
    if x.ndim == 0 or x.shape[-1] != d:
        raise ValueError(f"x must have shape (..., {d}), got {tuple(x.shape)}")


def _check_readout(parameters: Mapping[str, Tensor]) -> None:
    """Raise unless they fit together: mu, sigma, and the readout's weights and offsets by name."""
    _, _, (weights, W), (offsets, _) = parameters.items()
    if W.ndim != 3 or 0 in W.shape:
        raise ValueError(
            f"{weights} must have shape (K, C, d), none of them zero, got {tuple(W.shape)}"
        )
    K, C, d = W.shape
    for name, shape in {"mu": (K, d), "sigma": (K, d), offsets: (K, C)}.items():
        if parameters[name].shape != shape:
            raise ValueError(
                f"{name} must have shape {shape} to fit {weights} of shape {(K, C, d)}, "
                f"got {tuple(parameters[name].shape)}"
            )
