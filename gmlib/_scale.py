"""Measuring the scale of outputs as data pass through a network, and rescaling readouts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, overload

import torch
from torch import Tensor, nn

from gmlib._batches import Batches, Forward, batches_of, run
from gmlib._networks import check_measurable, check_readouts, gm_layers, layers_of
from gmlib._undisturbed import random_states_kept, undisturbed
from gmlib._validation import LOW_PRECISION
from gmlib.layer import MixtureLayer

__all__ = ["LayerScale", "ScaleReport", "calibrate", "measure"]


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


def measure(
    module: nn.Module, data: Batches, layer_type: type[nn.Module], forward: Forward | None
) -> ScaleReport:
    """Measure the outputs of every layer of a type, and change nothing."""
    layers = layers_of(module, layer_type)
    check_measurable(module)
    with random_states_kept():  # data may draw from them too: a DataLoader does
        outputs = _outputs(module, layers, batches_of(data, forward), forward)
    return ScaleReport(
        LayerScale(name, found.std, 1.0, found.std) for name, found in outputs.items()
    )


def calibrate(
    module: nn.Module, data: Batches, target_std: float, forward: Forward | None
) -> ScaleReport:
    """Rescale the readout of every GM layer, in the order in which data reach them.

    A pass over all data for each layer, which the layers before it have been rescaled for, and
    one for the last.
    """
    check_readouts(module)
    check_measurable(module)
    layers = gm_layers(module)
    before: dict[str, float] = {}
    scales: dict[str, float] = {}
    with random_states_kept(), torch.no_grad():
        batches = batches_of(data, forward)
        while True:
            outputs = _outputs(module, layers, batches, forward)
            for name, scale in scales.items():
                _check_rescaled(name, layers[name], outputs[name], scale, target_std)
            waiting = [name for name in outputs if name not in scales]
            if not waiting:
                break
            name = waiting[0]
            before[name] = _usable_std(name, layers[name], outputs[name])
            scales[name] = target_std / before[name]
            for tensor in layers[name].readout:
                tensor.mul_(scales[name])
    return ScaleReport(
        LayerScale(name, before[name], scale, outputs[name].std) for name, scale in scales.items()
    )


@dataclass
class _Outputs:
    """What is known of a layer's outputs after some batches.

    Attributes:
        dtype: Their type.
        counts: How many there are in each batch.
        means: Their mean in each.
        stds: Their standard deviation in each.
        largest: The largest, in absolute value.
    """

    dtype: torch.dtype
    counts: list[int] = field(default_factory=list)
    means: list[complex] = field(default_factory=list)
    stds: list[float] = field(default_factory=list)
    largest: float = 0.0

    def add(self, output: Tensor) -> None:
        """Take in those of one batch."""
        # In double precision; outputs may be complex, too.
        values = output.to(torch.promote_types(output.dtype, torch.float64))
        self.counts.append(values.numel())
        self.means.append(values.mean().item())
        self.stds.append(values.std(correction=0).item())
        self.largest = max(self.largest, values.abs().max().item())

    @property
    def std(self) -> float:
        """The standard deviation of all together; of a single batch, its own."""
        shares = [count / sum(self.counts) for count in self.counts]
        mean = sum(share * mean for share, mean in zip(shares, self.means, strict=True))
        parts = [
            math.sqrt(share) * deviation
            for share, std, found in zip(shares, self.stds, self.means, strict=True)
            for deviation in (std, abs(found - mean))
        ]
        return math.hypot(*parts)


def _outputs(
    module: nn.Module,
    layers: Mapping[str, nn.Module],
    batches: Iterable[Any],
    forward: Forward | None,
) -> dict[str, _Outputs]:
    """Pass data through a network, and see what layers return the first time that each is called.

    Returns:
        Their outputs, in the order in which data reach them.
    """
    names = {layer: name for name, layer in layers.items()}
    outputs: dict[str, _Outputs] = {}
    seen: set[str] = set()  # of this batch

    @torch.no_grad()  # whatever the network does
    def look(layer: nn.Module, args: object, output: object) -> None:
        name = names[layer]
        if name in seen:
            return
        seen.add(name)
        if not isinstance(output, Tensor):
            raise TypeError(
                f"layer {name!r}, a {type(layer).__name__}, returns a {type(output).__name__}; "
                "only tensors can be measured"
            )
        if output.is_meta:
            raise ValueError(
                f"the outputs of layer {name!r} are on the meta device, where there are no numbers"
            )
        if output.numel() == 0:
            return
        try:
            outputs.setdefault(name, _Outputs(output.dtype)).add(output)
        except RuntimeError as error:
            error.add_note(
                f"The outputs of layer {name!r} cannot be measured where the network calls it, "
                "such as in vmap; with `forward` it can be run in another way."
            )
            raise

    # Each pass draws the same, where networks draw at all. What a network differentiates it does
    # differentiate, and in inference mode it could not.
    with ExitStack() as stack:
        stack.enter_context(random_states_kept())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(undisturbed(module))
        for layer in names:
            stack.callback(layer.register_forward_hook(look, prepend=True).remove)
        for batch in batches:
            seen.clear()
            run(module, batch, forward)
    missed = [name for name in layers if name not in outputs]
    if missed:
        raise ValueError(f"the data never reached the layers {', '.join(map(repr, missed))}")
    return outputs


def _usable_std(name: str, layer: MixtureLayer, outputs: _Outputs) -> float:
    if not (math.isfinite(outputs.std) and outputs.std > _resolution(layer, outputs)):
        raise ValueError(
            f"the outputs of GM layer {name!r} have standard deviation {outputs.std:g} over "
            f"{sum(outputs.counts)} values; a positive, finite one above rounding error is needed"
        )
    return outputs.std


def _resolution(layer: MixtureLayer, outputs: _Outputs) -> float:
    """What outputs that should be equal, or zero, may differ by."""
    # Low precision is rounded to once: it is computed in float32.
    digits = 2.0 if outputs.dtype in LOW_PRECISION else 64.0
    rounding = digits * torch.finfo(outputs.dtype).eps * outputs.largest
    if not layer.bias:  # with one, outputs at zero are what they shall be
        at_zero = layer.forward(torch.zeros_like(layer.mu[0]))  # but for the floor on the variance
        rounding += 64.0 * float(at_zero.abs().max())
    return rounding


def _check_rescaled(
    name: str, layer: MixtureLayer, outputs: _Outputs, scale: float, target_std: float
) -> None:
    if not math.isclose(outputs.std, target_std, rel_tol=1e-2):
        raise ValueError(
            f"the outputs of GM layer {name!r} have standard deviation {outputs.std:g} after the "
            f"rescaling by {scale:g}, not {target_std:g}: out of range for {outputs.dtype}, or "
            f"the layer's outputs are not linear in {' and '.join(layer.readout_names)}, or the "
            "network does not do the same at each pass"
        )
