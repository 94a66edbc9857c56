r"""Initializations of Gaussian mixture layers, named and shaped like `torch.nn.init`.

Every function takes one :class:`~gmlib.GaussianMixtureLayer` or any network that contains some,
and works in place on those layers alone, in full or not at all. Parametrize, prune, replicate or
shard afterwards: what is computed from other tensors or has copies elsewhere is refused.

- :func:`baseline_` (BL) is the default of the layer's authors: one scale for everything.
- :func:`fan_in_` gives the parameters the fan-in scale of He et al. (2015).
- :func:`calibrate_` measures the output of each layer on data and rescales its readout.
- :func:`kumar_` (KUMAR) is the last two in turn.
- :func:`analytic_` computes that scale instead of measuring it, from :func:`output_std`.
- :func:`lsuv_` starts from orthogonal directions and gives every layer's outputs unit variance.
- :func:`scale_report` only measures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gmlib._networks import check_initializable, check_readouts, check_writable, gm_layers
from gmlib._scale import LayerScale, ScaleReport, calibrate, measure
from gmlib._undisturbed import restored_on_error
from gmlib._validation import check_positive
from gmlib.layer import FoldedGaussianMixtureLayer, MixtureLayer

__all__ = [
    "LayerScale",
    "ScaleReport",
    "analytic_",
    "baseline_",
    "calibrate_",
    "fan_in_",
    "fan_in_scale",
    "kumar_",
    "lsuv_",
    "output_std",
    "scale_report",
]


# Mean square of the mean of a rectified N(z, 1), for z standard normal.
_MEAN_SQUARE = 1.0 / 3.0 + math.sqrt(3.0) / (2.0 * math.pi)


def baseline_(
    module: nn.Module, gamma: float = 0.5, *, generator: torch.Generator | None = None
) -> None:
    r"""Default initialization of Chewi, Rigollet and Yan (BL), arXiv:2508.04883.

    Draws :math:`\mu, U, v \sim \mathcal N(0, \gamma^2)` and sets :math:`\sigma = \gamma` in every
    GM layer of `module`.

    Args:
        module: A GM layer, or a network that contains some.
        gamma: The scale, positive.
        generator: Source of randomness; the global one by default.

    Raises:
        ValueError: If `gamma` is not positive and finite, `module` holds no GM layer or one with a
            computed parameter, is replicated, sharded, averaged or without memory, or a folded
            layer's readout is shared. `module` is then as it was.

    Examples:
        >>> from gmlib import GaussianMixtureLayer
        >>> layer = GaussianMixtureLayer(784, 10, 10)
        >>> baseline_(layer, gamma=0.1)
        >>> layer.sigma[0, 0].item()
        0.10000000149011612
    """
    check_positive("gamma", gamma)
    with _initializing(module, generator):
        _draw(module, lambda layer: gamma, generator)


def fan_in_scale(in_features: int) -> float:
    """The scale ``sqrt(2 / d)`` of He et al. (2015), which keeps a ReLU's mean square.

    Args:
        in_features: Size `d` of a layer's inputs.

    Examples:
        >>> fan_in_scale(8)
        0.5
    """
    return math.sqrt(2.0 / in_features)


def fan_in_(module: nn.Module, *, generator: torch.Generator | None = None) -> None:
    r"""Fan-in initialization: as :func:`baseline_` with :math:`\gamma = \sqrt{2/d}` by layer.

    This is the ReLU gain of He et al., "Delving deep into rectifiers", ICCV 2015, with the
    layer's number of input features `d` as the fan-in.

    Args:
        module: A GM layer, or a network that contains some.
        generator: Source of randomness; the global one by default.

    Raises:
        ValueError: If `module` holds no GM layer or one with a computed parameter, is replicated,
            sharded, averaged or without memory, or a folded layer's readout is shared. `module` is
            then as it was.

    Examples:
        >>> from gmlib import GaussianMixtureLayer
        >>> layer = GaussianMixtureLayer(800, 10, 10)
        >>> fan_in_(layer)
        >>> round(layer.sigma[0, 0].item(), 4)  # the square root of 2 / 800
        0.05
    """
    with _initializing(module, generator):
        _draw(module, _fan_in_scale_of, generator)


def calibrate_(
    module: nn.Module,
    data: Tensor | Iterable[Any],
    target_std: float = 0.5,
    *,
    forward: Callable[[nn.Module, Any], object] | None = None,
) -> ScaleReport:
    r"""Rescale the readout of every GM layer so that its outputs have a given std on `data`.

    Layer by layer, in the order in which data reach them, the standard deviation of the outputs is
    measured over all inputs and output units, and the readout, whichever its coordinates,
    multiplied by ``target_std / std``. The layer is linear in its readout, so that one scale is
    exact. A layer that is reached more than once is measured the first time.

    Labels never enter. Modules run in evaluation mode, but for those that gather statistics, such
    as BatchNorm, which keep their mode: in training mode a BatchNorm takes the statistics of each
    batch, as it will in training. Modes, buffers, and the global random states of PyTorch, Python
    and NumPy are put back.

    Batches go through one by one, as many times as there are layers and once more. What is in
    memory at once is `data` without labels, a copy of the GM layers' parameters, and what the
    network needs for one batch in evaluation mode. To divide the data into batches changes results
    by rounding alone, unless a BatchNorm sees them.

    Args:
        module: A GM layer, or a network that contains some. It is initialized before it is
            replicated, sharded, averaged, offloaded or traced, in every process from the same seed
            and data; it may be compiled.
        data: One batch of inputs, or an iterable of batches such as a `DataLoader`. A batch is a
            tensor, or a tuple or list of which only the first item, the inputs, is read. A list of
            several items may itself be one batch, and is refused: `data` is then ``[batch]``, or
            ``iter(batches)``. A few thousand inputs are enough.
        target_std: Standard deviation that the outputs shall have, positive.
        forward: Runs the network on a batch, as ``forward(module, batch)``, where that is not
            ``module(inputs)``; what it returns is not used. A batch may then be anything, and is
            the function's as a whole, any labels in it included; a dictionary is one batch. Tensors
            in tuples, lists and dictionaries come as copies, on the network's device.

    Returns:
        The standard deviation before, the scale and the standard deviation after, by layer.

    Raises:
        ValueError: If `target_std` is not positive and finite; `data` is empty, or a list or tuple
            of several items; `module` holds no GM layer; one is not reached; the readout of one is
            computed, sharded, on the meta device or shared with another module; the outputs of one
            have a standard deviation that is zero up to rounding, not finite or out of reach of
            `target_std`; or `module` is a network that processes share, or has a BatchNorm in
            evaluation mode that has seen no data. `module` is then as it was.
        TypeError: If `data` is neither a tensor nor an iterable of batches, a batch has no tensor
            of inputs and there is no `forward`, or that is no function.

    Examples:
        >>> from gmlib import GaussianMixtureLayer
        >>> layer, inputs = GaussianMixtureLayer(20, 8, 4), torch.randn(512, 20)
        >>> report = calibrate_(layer, inputs, target_std=1.0)
        >>> round(layer(inputs).std().item(), 2)
        1.0
    """
    check_positive("target_std", target_std)
    with _initializing(module):
        return calibrate(module, data, target_std, forward)


def kumar_(
    module: nn.Module,
    data: Tensor | Iterable[Any],
    target_std: float = 0.5,
    *,
    forward: Callable[[nn.Module, Any], object] | None = None,
    generator: torch.Generator | None = None,
) -> ScaleReport:
    """Kaiming Unlabeled Mixture Activation Rescaling: :func:`fan_in_`, then :func:`calibrate_`.

    Args:
        module: A GM layer, or a network that contains some.
        data: Real inputs of the network; see :func:`calibrate_`.
        target_std: Standard deviation that the outputs of every GM layer shall have.
        forward: Runs the network on a batch; see :func:`calibrate_`.
        generator: Source of randomness; the global one by default.

    Returns:
        The report of :func:`calibrate_`.

    Raises:
        ValueError: As :func:`calibrate_`; `module` is then as it was.
        TypeError: As :func:`calibrate_`.

    Examples:
        >>> from gmlib import GaussianMixtureLayer
        >>> network = nn.Sequential(GaussianMixtureLayer(20, 8, 4), GaussianMixtureLayer(8, 3, 4))
        >>> report = kumar_(network, torch.randn(512, 20))
        >>> [round(layer.std_after, 4) for layer in report]
        [0.5, 0.5]
    """
    check_positive("target_std", target_std)
    with _initializing(module, generator):
        _draw(module, _fan_in_scale_of, generator)
        return calibrate(module, data, target_std, forward)


def lsuv_(
    module: nn.Module,
    data: Tensor | Iterable[Any],
    *,
    forward: Callable[[nn.Module, Any], object] | None = None,
    generator: torch.Generator | None = None,
) -> ScaleReport:
    r"""Layer-sequential unit variance of Mishkin and Matas, ICLR 2016 (arXiv:1511.06422).

    As :func:`kumar_`, with two differences: the component means and the rows of each readout
    matrix are orthogonal among themselves, of the norm :math:`\sqrt2` that they have on average
    under :func:`fan_in_`, and every layer's outputs get a standard deviation of 1. Where there are
    more rows than features, the columns are orthogonal instead.

    The original finds the scale of a layer's weights in a loop. Here it goes into the readout, in
    which the layer is linear, so that no loop is needed.

    Args:
        module: A GM layer, or a network that contains some.
        data: Real inputs of the network; see :func:`calibrate_`.
        forward: Runs the network on a batch; see :func:`calibrate_`.
        generator: Source of randomness; the global one by default.

    Returns:
        The report of :func:`calibrate_`.

    Raises:
        ValueError: As :func:`calibrate_`; `module` is then as it was.
        TypeError: As :func:`calibrate_`.

    Examples:
        >>> from gmlib import GaussianMixtureLayer
        >>> layer = GaussianMixtureLayer(20, 8, 4)
        >>> report = lsuv_(layer, torch.randn(512, 20))
        >>> round(report[0].std_after, 4)
        1.0
        >>> bool(torch.allclose(layer.mu @ layer.mu.T, 2.0 * torch.eye(4), atol=1e-5))
        True
    """
    with _initializing(module, generator):
        _draw(module, _fan_in_scale_of, generator, orthogonal=True)
        return calibrate(module, data, 1.0, forward)


def output_std(gamma: float, in_features: int, num_components: int, squared_norm: float) -> float:
    r"""Standard deviation of a layer's outputs over initializations, in closed form.

    For :math:`\mu, U, v \sim \mathcal N(0, \gamma^2)`, :math:`\sigma = \gamma` and an input
    :math:`x` of squared norm `q`, every output has mean zero and variance

    .. math::
        \frac{q\gamma^4}{K}\Big[\kappa\,\big(1 + (d+2)\gamma^2\big) + \gamma^2\Big],
        \qquad \kappa = \frac13 + \frac{\sqrt3}{2\pi}.

    Args:
        gamma: Scale of the parameters, positive.
        in_features: Size `d` of the input.
        num_components: Number `K` of Gaussian components.
        squared_norm: Squared Euclidean norm `q` of the input, or its mean over inputs; positive.

    Raises:
        ValueError: If a value is not positive and finite.
        TypeError: If one is not a number.

    Notes:
        Given :math:`\mu_k`, the output is Gaussian in the readout, with variance
        :math:`\gamma^2(\|\mu_k F + \gamma^2 x G\|^2 + F^2)` from each component. Here
        :math:`z = m/t` is standard normal and :math:`F = \gamma\sqrt q\,f(z)`, with
        :math:`f(z) = z\Phi(z) + \varphi(z)` the mean of a rectified :math:`\mathcal N(z, 1)`. So
        :math:`\mathbb E f^2 = \kappa` is an arc-cosine kernel at 60 degrees (Cho and Saul, 2009),
        :math:`\mathbb E\,\Phi^2 = 1/3`, and by Stein's lemma :math:`\mathbb E[z f\Phi] =
        1/3 + \sqrt3/(4\pi)` and :math:`\mathbb E[z^2f^2] = 1 + \sqrt3/\pi`.

    Examples:
        >>> round(output_std(0.5, 784, 10, 784), 1)  # BL, on standardized images of 784 pixels
        24.3
        >>> round(output_std(math.sqrt(2 / 784), 784, 10, 784), 4)  # fan-in
        0.0306
    """
    values = {
        "gamma": gamma,
        "in_features": in_features,
        "num_components": num_components,
        "squared_norm": squared_norm,
    }
    for name, value in values.items():
        check_positive(name, value)
    variance = gamma**2
    bracket = _MEAN_SQUARE * (1.0 + (in_features + 2) * variance) + variance
    return variance * math.sqrt(squared_norm / num_components * bracket)


def analytic_(
    module: nn.Module,
    squared_norm: float,
    target_std: float = 0.5,
    *,
    generator: torch.Generator | None = None,
) -> ScaleReport:
    """KUMAR without data: :func:`fan_in_`, then the readouts scaled by :func:`output_std`.

    The scale gives the outputs the standard deviation `target_std` on average over
    initializations, not for the one that was drawn, and knows of the inputs only how long they
    are. The GM layers of `module` shall follow one another directly, in the order in which they
    are registered: the inputs of all but the first are then outputs of squared norm
    ``in_features * target_std ** 2``.

    Args:
        module: A GM layer, or a network that contains some.
        squared_norm: Mean squared Euclidean norm of the network's inputs: their number of
            features, if each input is standardized.
        target_std: Standard deviation that the outputs of every GM layer shall have, positive.
        generator: Source of randomness; the global one by default.

    Returns:
        A report whose standard deviations are predicted, not measured.

    Raises:
        ValueError: If a value is not positive and finite, or `module` holds no GM layer or one with
            a computed parameter or a shared readout, or is replicated, sharded, averaged or without
            memory. `module` is then as it was.
        TypeError: If a value is not a number.

    Examples:
        >>> from gmlib import GaussianMixtureLayer
        >>> network = nn.Sequential(GaussianMixtureLayer(20, 8, 4), GaussianMixtureLayer(8, 3, 4))
        >>> report = analytic_(network, squared_norm=20.0)
        >>> [layer.std_after for layer in report]
        [0.5, 0.5]
    """
    check_positive("squared_norm", squared_norm)
    check_positive("target_std", target_std)
    report: list[LayerScale] = []
    with _initializing(module, generator):
        check_readouts(module)
        _draw(module, _fan_in_scale_of, generator)
        for name, layer in gm_layers(module).items():
            if report:
                squared_norm = layer.in_features * target_std**2
            gamma = fan_in_scale(layer.fan_in)
            squares = squared_norm + layer.bias  # that of the 1 that meets the bias is one
            predicted = output_std(gamma, layer.fan_in, layer.num_components, squares)
            scale = target_std / predicted
            for tensor in layer.readout:
                tensor.mul_(scale)
            report.append(LayerScale(name, predicted, scale, target_std))
        return ScaleReport(report)


def scale_report(
    module: nn.Module,
    data: Tensor | Iterable[Any],
    layer_type: type[nn.Module] = MixtureLayer,
    *,
    forward: Callable[[nn.Module, Any], object] | None = None,
) -> ScaleReport:
    """Measure the output scale of every GM layer on `data`, and change nothing.

    Args:
        module: A GM layer, or a network that contains some.
        data: As for :func:`calibrate_`.
        layer_type: Measure layers of this type instead.
        forward: Runs the network on a batch; see :func:`calibrate_`.

    Returns:
        A report whose scales are 1.

    Raises:
        ValueError: As :func:`calibrate_`, but any standard deviation is reported, and networks that
            are sharded or averaged are measured; of one that processes share pass its `module`.
        TypeError: As :func:`calibrate_`, or if a layer does not return a tensor.

    Examples:
        >>> network = nn.Sequential(nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> report = scale_report(network, torch.randn(512, 20), nn.Linear)
        >>> [layer.name for layer in report]
        ['0', '2']
    """
    return measure(module, data, layer_type, forward)


@contextmanager
def _initializing(module: nn.Module, generator: torch.Generator | None = None) -> Iterator[None]:
    """Write to the GM layers of a network, in full or not at all."""
    check_initializable(module)
    with restored_on_error(module, generator), torch.no_grad():
        yield


def _fan_in_scale_of(layer: MixtureLayer) -> float:
    return fan_in_scale(layer.fan_in)


def _draw(
    module: nn.Module,
    scale: Callable[[MixtureLayer], float],
    generator: torch.Generator | None,
    *,
    orthogonal: bool = False,
) -> None:
    """Reset every layer, at a scale of its own; or with `orthogonal` directions for LSUV."""
    check_writable(module)
    layers = gm_layers(module).values()
    if any(isinstance(layer, FoldedGaussianMixtureLayer) for layer in layers):
        check_readouts(module)  # a readout of two layers would be folded by both
    for layer in layers:
        layer._draw(scale(layer), generator)
    if orthogonal:
        for layer in layers:
            for rows in (layer.mu, *layer.readout[0]):
                # Of low precision there is no orthogonalization.
                wide = rows.to(torch.promote_types(rows.dtype, torch.float32))
                rows.copy_(nn.init.orthogonal_(wide, gain=math.sqrt(2.0), generator=generator))
    # Only now: layers may share a mu or sigma, which the last of them to be drawn has set.
    for layer in layers:
        layer._adopt()
