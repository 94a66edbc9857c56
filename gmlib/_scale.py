"""Measuring the scale of outputs as data pass through a network, and rescaling readouts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar, overload

import torch
from torch import Tensor, nn

from gmlib._validation import LOW_PRECISION, check_generator
from gmlib.layer import MixtureLayer

__all__ = [
    "Layer",
    "LayerScale",
    "ScaleReport",
    "check_readouts",
    "check_writable",
    "gm_layers",
    "measure_scale",
    "restored_on_error",
]

Layer = TypeVar("Layer", bound=nn.Module)


@dataclass(frozen=True)
class LayerScale:
    """Output scale of one layer, over all inputs and all output units.

    Attributes:
        name: Name of the layer within the network, as in `named_modules`.
        std_before: Standard deviation of the outputs before the rescaling.
        scale: Factor that the readout was multiplied by; 1 where nothing was rescaled.
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


def measure_scale(
    module: nn.Module,
    data: Tensor | Iterable[Any],
    target_std: float | None,
    layer_type: type[nn.Module] = MixtureLayer,
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
        check_readouts(module)
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
            assert isinstance(layer, MixtureLayer)
            if not (math.isfinite(before) and before > _resolution(layer, output)):
                raise ValueError(
                    f"the outputs of GM layer {name!r} have standard deviation {before:g} over "
                    f"{len(inputs)} inputs; a positive, finite one above rounding error is needed"
                )
            scale = target_std / before
            for tensor in layer.readout:
                tensor.mul_(scale)
            output = layer.forward(*args, **kwargs)
            after = _std(output)
            if not math.isclose(after, target_std, rel_tol=1e-2):
                raise ValueError(
                    f"the outputs of GM layer {name!r} have standard deviation {after:g} after the "
                    f"rescaling by {scale:g}, not {target_std:g}: out of range for {output.dtype}, "
                    "or the layer's outputs are not linear in "
                    f"{' and '.join(layer.readout_names)}"
                )
        report[name] = LayerScale(name, before, scale, after)
        return output

    handles = [
        layer.register_forward_hook(hook, with_kwargs=True, prepend=True)
        for layer in layers.values()
    ]
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
        wanted = "GM layer" if layer_type is MixtureLayer else layer_type.__name__
        raise ValueError(f"{type(module).__name__} holds no {wanted}")
    return layers


def gm_layers(module: nn.Module) -> dict[str, MixtureLayer]:
    """The GM layers of a network, in either coordinates, by name.

    Raises:
        ValueError: If there is none.
        TypeError: If it is no network.
    """
    return _layers(module, MixtureLayer)


def check_writable(module: nn.Module, *, readouts_alone: bool = False) -> None:
    """Raise if a parameter is computed: what is written to it would be lost at the next look."""
    for name, layer in gm_layers(module).items():
        for parameter in (*(() if readouts_alone else ("mu", "sigma")), *layer.readout_names):
            if parameter not in layer._parameters and parameter not in layer._buffers:
                raise ValueError(
                    f"{parameter} of GM layer {name!r} is computed from other tensors and cannot "
                    "be written to: initialize first, parametrize or prune afterwards"
                )


def check_readouts(module: nn.Module) -> None:
    """Raise unless every GM layer has a readout of its own, which can be rescaled or folded."""
    check_writable(module, readouts_alone=True)
    readouts = {tensor for layer in gm_layers(module).values() for tensor in layer.readout}
    holders: dict[Tensor, str] = {}
    for prefix, child in module.named_modules():  # each once, under however many names
        options = {"prefix": prefix, "recurse": False, "remove_duplicate": False}
        for name, tensor in chain(
            child.named_parameters(**options), child.named_buffers(**options)
        ):
            first = holders.setdefault(tensor, name)
            if first != name and tensor in readouts:
                raise ValueError(
                    f"{first!r} and {name!r} are one tensor: a readout has to be its layer's own"
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


def _std(output: Tensor) -> float:
    return output.double().std(correction=0).item()


def _resolution(layer: MixtureLayer, output: Tensor) -> float:
    """What outputs that should be equal, or zero, may differ by."""
    # Low precision is rounded to once: it is computed in float32.
    digits = 2.0 if output.dtype in LOW_PRECISION else 64.0
    rounding = digits * torch.finfo(output.dtype).eps * output.abs().max()
    if not layer.bias:  # with one, outputs at zero are what they shall be
        at_zero = layer.forward(torch.zeros_like(layer.mu[0]))  # but for the floor on the variance
        rounding += 64.0 * at_zero.abs().max()
    return float(rounding)


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
def restored_on_error(
    module: nn.Module, generator: torch.Generator | None = None
) -> Iterator[None]:
    """Put the GM layers' parameters and the random state back if the body raises."""
    check_generator(generator)
    source = torch.default_generator if generator is None else generator
    state = source.get_state()
    saved = [
        (parameter, parameter.detach().clone())
        for layer in gm_layers(module).values()
        for parameter in chain(layer.parameters(), layer.buffers())
    ]
    try:
        yield
    except BaseException:
        source.set_state(state)
        with torch.no_grad():
            for parameter, value in saved:
                parameter.copy_(value)
        raise
