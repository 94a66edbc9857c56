r"""Initializations of Gaussian mixture layers, named and shaped like `torch.nn.init`.

Every function takes one :class:`~gmlib.GaussianMixtureLayer` or any network that contains some,
and works in place on those layers alone. Parametrize or prune afterwards: a parameter that is
computed from other tensors cannot be written to, and is refused.

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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, overload

import torch
from torch import Tensor, nn

from gmlib.functional import gm_layer
from gmlib.layer import GaussianMixtureLayer, _check_generator

__all__ = [
    "LayerScale",
    "ScaleReport",
    "analytic_",
    "baseline_",
    "calibrate_",
    "fan_in_",
    "kumar_",
    "lsuv_",
    "output_std",
    "scale_report",
]


Layer = TypeVar("Layer", bound=nn.Module)

# Mean square of the mean of a rectified N(z, 1), for z standard normal.
_MEAN_SQUARE = 1.0 / 3.0 + math.sqrt(3.0) / (2.0 * math.pi)


@dataclass(frozen=True)
class LayerScale:
    """Output scale of one layer, over all inputs and all output units.

    Attributes:
        name: Name of the layer within the network, as in `named_modules`.
        std_before: Standard deviation of the outputs before the rescaling.
        scale: Factor that `U` and `v` were multiplied by; 1 where nothing was rescaled.
        std_after: Standard deviation of the outputs after it, measured.

    Examples:
        >>> LayerScale("hidden", std_before=0.1, scale=5.0, std_after=0.5).scale
        5.0
    """

    name: str
    std_before: float
    scale: float
    std_after: float


class ScaleReport(Sequence[LayerScale]):
    """One :class:`LayerScale` a layer, in the order in which data reaches them.

    Prints a table.

    Examples:
        >>> ScaleReport([LayerScale("0", 0.0306, 16.34, 0.5), LayerScale("1", 0.0452, 11.06, 0.5)])
        layer  std before       scale   std after
        0          0.0306       16.34         0.5
        1          0.0452       11.06         0.5
    """

    def __init__(self, layers: Iterable[LayerScale]) -> None:
        self._layers = tuple(layers)

    def __len__(self) -> int:
        return len(self._layers)

    @overload
    def __getitem__(self, index: int) -> LayerScale: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[LayerScale, ...]: ...
    def __getitem__(self, index: int | slice) -> LayerScale | tuple[LayerScale, ...]:
        return self._layers[index]

    def __repr__(self) -> str:
        width = max([len("layer"), *(len(layer.name) for layer in self)])
        rows = [f"{'layer':<{width}}  {'std before':>10}  {'scale':>10}  {'std after':>10}"]
        rows += [
            f"{layer.name:<{width}}  {layer.std_before:>10.4g}  {layer.scale:>10.4g}  "
            f"{layer.std_after:>10.4g}"
            for layer in self
        ]
        return "\n".join(rows)


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
        ValueError: If `gamma` is not positive and finite, or `module` holds no GM layer or one
            with a computed parameter. `module` is then as it was.

    Examples:
        >>> from gmlib import GaussianMixtureLayer
        >>> layer = GaussianMixtureLayer(784, 10, 10)
        >>> baseline_(layer, gamma=0.1)
        >>> layer.sigma[0, 0].item()
        0.10000000149011612
    """
    _check_positive("gamma", gamma)
    _check_writable(module)
    for layer in _gm_layers(module).values():
        layer.reset_parameters(gamma, generator=generator)


def fan_in_(module: nn.Module, *, generator: torch.Generator | None = None) -> None:
    r"""Fan-in initialization: as :func:`baseline_` with :math:`\gamma = \sqrt{2/d}` by layer.

    This is the ReLU gain of He et al., "Delving deep into rectifiers", ICCV 2015, with the
    layer's number of input features `d` as the fan-in.

    Args:
        module: A GM layer, or a network that contains some.
        generator: Source of randomness; the global one by default.

    Raises:
        ValueError: If `module` holds no GM layer or one with a computed parameter. `module` is
            then as it was.

    Examples:
        >>> from gmlib import GaussianMixtureLayer
        >>> layer = GaussianMixtureLayer(800, 10, 10)
        >>> fan_in_(layer)
        >>> round(layer.sigma[0, 0].item(), 4)  # the square root of 2 / 800
        0.05
    """
    _check_writable(module)
    for layer in _gm_layers(module).values():
        layer.reset_parameters(_fan_in_scale(layer), generator=generator)


def calibrate_(
    module: nn.Module, data: Tensor | Iterable[Any], target_std: float = 0.5
) -> ScaleReport:
    r"""Rescale the readout of every GM layer so that its outputs have a given std on `data`.

    One forward pass of `data` through `module` meets the layers in the order in which data
    reaches them. Each has its outputs' standard deviation measured, over all inputs and output
    units, and `U` and `v` multiplied by ``target_std / std``; what flows on is the output after
    that. The readout is linear in ``(U, v)``, so that one scale is exact. A layer that is reached
    more than once is calibrated the first time.

    Labels never enter. Modules run in evaluation mode for the pass and are put back after it;
    the global random state is put back too.

    Args:
        module: A GM layer, or a network that contains some, whose ``forward`` takes a batch.
        data: One batch of inputs, or an iterable of batches such as a `DataLoader` (which are
            joined; of a tuple or list only the first item, the inputs, is read). A few thousand
            inputs are enough.
        target_std: Standard deviation that the outputs shall have, positive.

    Returns:
        The standard deviation before, the scale and the standard deviation after, by layer.

    Raises:
        ValueError: If `target_std` is not positive and finite, `data` is empty, `module` holds no
            GM layer, one is not reached, the readout of one is computed or shared with another
            module, or the outputs of one have a standard deviation that is zero up to rounding,
            not finite or out of reach of `target_std`. `module` is then as it was.
        TypeError: If `data` is neither a tensor nor an iterable of batches.

    Examples:
        >>> from gmlib import GaussianMixtureLayer
        >>> layer, inputs = GaussianMixtureLayer(20, 8, 4), torch.randn(512, 20)
        >>> report = calibrate_(layer, inputs, target_std=1.0)
        >>> round(layer(inputs).std().item(), 2)
        1.0
    """
    _check_positive("target_std", target_std)
    with _restored_on_error(module):
        return _measure(module, data, target_std)


def kumar_(
    module: nn.Module,
    data: Tensor | Iterable[Any],
    target_std: float = 0.5,
    *,
    generator: torch.Generator | None = None,
) -> ScaleReport:
    """Kaiming Unlabeled Mixture Activation Rescaling: :func:`fan_in_`, then :func:`calibrate_`.

    Args:
        module: A GM layer, or a network that contains some.
        data: Real inputs of the network, without labels; see :func:`calibrate_`.
        target_std: Standard deviation that the outputs of every GM layer shall have.
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
    _check_positive("target_std", target_std)
    with _restored_on_error(module, generator):
        fan_in_(module, generator=generator)
        return _measure(module, data, target_std)


def lsuv_(
    module: nn.Module,
    data: Tensor | Iterable[Any],
    *,
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
        data: Real inputs of the network, without labels; see :func:`calibrate_`.
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
    with _restored_on_error(module, generator):
        fan_in_(module, generator=generator)
        for layer in _gm_layers(module).values():
            for rows in (layer.mu, *layer.U.detach()):
                nn.init.orthogonal_(rows, gain=math.sqrt(2.0), generator=generator)
        return _measure(module, data, 1.0)


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
        _check_positive(name, value)
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
        ValueError: If a value is not positive and finite, or `module` holds no GM layer, or one
            with a computed parameter or a shared readout; `module` is then as it was.
        TypeError: If a value is not a number.

    Examples:
        >>> from gmlib import GaussianMixtureLayer
        >>> network = nn.Sequential(GaussianMixtureLayer(20, 8, 4), GaussianMixtureLayer(8, 3, 4))
        >>> report = analytic_(network, squared_norm=20.0)
        >>> [layer.std_after for layer in report]
        [0.5, 0.5]
    """
    _check_positive("squared_norm", squared_norm)
    _check_positive("target_std", target_std)
    _check_readouts(module)
    fan_in_(module, generator=generator)
    report: list[LayerScale] = []
    for name, layer in _gm_layers(module).items():
        if report:
            squared_norm = layer.in_features * target_std**2
        gamma = _fan_in_scale(layer)
        predicted = output_std(gamma, layer.in_features, layer.num_components, squared_norm)
        scale = target_std / predicted
        with torch.no_grad():
            layer.U.mul_(scale)
            layer.v.mul_(scale)
        report.append(LayerScale(name, predicted, scale, target_std))
    return ScaleReport(report)


def scale_report(
    module: nn.Module,
    data: Tensor | Iterable[Any],
    layer_type: type[nn.Module] = GaussianMixtureLayer,
) -> ScaleReport:
    """Measure the output scale of every GM layer on `data`, and change nothing.

    Args:
        module: A GM layer, or a network that contains some.
        data: As for :func:`calibrate_`.
        layer_type: Measure layers of this type instead.

    Returns:
        A report whose scales are 1.

    Raises:
        ValueError: As :func:`calibrate_`, but any standard deviation is reported.
        TypeError: As :func:`calibrate_`.

    Examples:
        >>> network = nn.Sequential(nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> report = scale_report(network, torch.randn(512, 20), nn.Linear)
        >>> [layer.name for layer in report]
        ['0', '2']
    """
    return _measure(module, data, None, layer_type)


def _measure(
    module: nn.Module,
    data: Tensor | Iterable[Any],
    target_std: float | None,
    layer_type: type[nn.Module] = GaussianMixtureLayer,
) -> ScaleReport:
    """Pass `data` through `module` once and measure, and with a target rescale, as it goes."""
    # Data may draw from the global generator too: a DataLoader does.
    with torch.no_grad(), torch.random.fork_rng():
        return _measure_joined(module, _joined(data), target_std, layer_type)


def _measure_joined(
    module: nn.Module, inputs: Tensor, target_std: float | None, layer_type: type[nn.Module]
) -> ScaleReport:
    layers = _layers(module, layer_type)
    if target_std is not None:
        _check_readouts(module)
    names = {layer: name for name, layer in layers.items()}
    report: dict[str, LayerScale] = {}

    def hook(
        layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
    ) -> Tensor | None:
        name = names[layer]
        if name in report:
            return None
        if output.is_meta:
            raise ValueError(
                f"the outputs of layer {name!r} are on the meta device, where there are no numbers"
            )
        before = after = _std(output)
        scale = 1.0
        if target_std is not None:
            assert isinstance(layer, GaussianMixtureLayer)
            if not (math.isfinite(before) and before > _resolution(layer, output)):
                raise ValueError(
                    f"the outputs of GM layer {name!r} have standard deviation {before:g} over "
                    f"{len(inputs)} inputs; a positive, finite one above rounding error is needed"
                )
            scale = target_std / before
            layer.U.mul_(scale)
            layer.v.mul_(scale)
            output = layer.forward(*args, **kwargs)
            after = _std(output)
            if not math.isclose(after, target_std, rel_tol=1e-2):
                raise ValueError(
                    f"the outputs of GM layer {name!r} have standard deviation {after:g} after the "
                    f"rescaling by {scale:g}, not {target_std:g}: out of range for {output.dtype}, "
                    "or the layer's outputs are not linear in U and v"
                )
        report[name] = LayerScale(name, before, scale, after)
        return output

    handles = [layer.register_forward_hook(hook, with_kwargs=True) for layer in layers.values()]
    try:
        with _evaluation_mode(module):
            module(inputs)
    finally:
        for handle in handles:
            handle.remove()
    missed = [name for name in layers if name not in report]
    if missed:
        raise ValueError(f"the data never reached the layers {', '.join(map(repr, missed))}")
    return ScaleReport(report.values())


def _layers(module: nn.Module, layer_type: type[Layer]) -> dict[str, Layer]:
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    if not isinstance(layer_type, type):
        raise TypeError(f"layer_type must be a class of modules, got {layer_type!r}")
    layers = {
        name: layer for name, layer in module.named_modules() if isinstance(layer, layer_type)
    }
    if not layers:
        raise ValueError(f"{type(module).__name__} holds no {layer_type.__name__}")
    return layers


def _gm_layers(module: nn.Module) -> dict[str, GaussianMixtureLayer]:
    return _layers(module, GaussianMixtureLayer)


def _check_writable(
    module: nn.Module, parameters: Iterable[str] = ("mu", "sigma", "U", "v")
) -> None:
    """Raise if one is computed: what is written to it would be lost at the next look."""
    for name, layer in _gm_layers(module).items():
        for parameter in parameters:
            if parameter not in layer._parameters and parameter not in layer._buffers:
                raise ValueError(
                    f"{parameter} of GM layer {name!r} is computed from other tensors and cannot "
                    "be written to: initialize first, parametrize or prune afterwards"
                )


def _check_readouts(module: nn.Module) -> None:
    """Raise unless every GM layer has a readout of its own, which can be rescaled."""
    _check_writable(module, ("U", "v"))
    readouts = {tensor for layer in _gm_layers(module).values() for tensor in (layer.U, layer.v)}
    holders: dict[Tensor, str] = {}
    for prefix, child in module.named_modules():  # each once, under however many names
        for name, tensor in child.named_parameters(prefix, recurse=False, remove_duplicate=False):
            first = holders.setdefault(tensor, name)
            if first != name and tensor in readouts:
                raise ValueError(
                    f"{first!r} and {name!r} are one tensor: no scale of it is right for both"
                )


def _joined(data: Tensor | Iterable[Any]) -> Tensor:
    """The inputs of `data` as one batch."""
    if isinstance(data, Tensor):
        batches = [data]
    elif isinstance(data, Iterable) and not isinstance(data, (str, bytes, dict)):
        batches = [batch[0] if isinstance(batch, (tuple, list)) else batch for batch in data]
    else:
        raise TypeError(
            f"data must be a tensor or an iterable of batches, got {type(data).__name__}"
        )
    for batch in batches:
        if not isinstance(batch, Tensor):
            raise TypeError(f"each batch of data must be a tensor, got {type(batch).__name__}")
        if batch.ndim == 0:
            raise ValueError("each batch of data needs a batch dimension, got a scalar")
        if batch.shape[1:] != batches[0].shape[1:]:
            raise ValueError(
                "batches of data must agree in all but the first dimension, got shapes "
                f"{tuple(batches[0].shape)} and {tuple(batch.shape)}; one batch of inputs and "
                "labels goes in as [(inputs, labels)]"
            )
    joined = torch.cat(batches) if batches else torch.empty(0)
    if joined.numel() == 0:
        raise ValueError(f"data is empty: {len(batches)} batches with no inputs in them")
    return joined


def _fan_in_scale(layer: GaussianMixtureLayer) -> float:
    return math.sqrt(2.0 / layer.in_features)


def _std(output: Tensor) -> float:
    return output.double().std(correction=0).item()


def _resolution(layer: GaussianMixtureLayer, output: Tensor) -> float:
    """What outputs that should be equal, or zero, may differ by."""
    # Zero but for the floor on the variance.
    at_zero = gm_layer(torch.zeros_like(layer.mu[0]), layer.mu, layer.sigma, layer.U, layer.v)
    rounding = torch.finfo(output.dtype).eps * output.abs().max()
    return 64.0 * (rounding + at_zero.abs().max()).item()


def _check_positive(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not (math.isfinite(value) and value > 0.0):
        raise ValueError(f"{name} must be positive and finite, got {value!r}")


@contextmanager
def _evaluation_mode(module: nn.Module) -> Iterator[None]:
    training = {child: child.training for child in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for child, mode in training.items():
            child.training = mode


@contextmanager
def _restored_on_error(
    module: nn.Module, generator: torch.Generator | None = None
) -> Iterator[None]:
    """Put the GM layers' parameters and the random state back if the body raises."""
    _check_generator(generator)
    source = torch.default_generator if generator is None else generator
    state = source.get_state()
    saved = [
        (parameter, parameter.detach().clone())
        for layer in _gm_layers(module).values()
        for parameter in layer.parameters()
    ]
    try:
        yield
    except BaseException:
        source.set_state(state)
        with torch.no_grad():
            for parameter, value in saved:
                parameter.copy_(value)
        raise
