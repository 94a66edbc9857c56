"""The GM layers of a network, and what keeps them from being initialized or measured."""

from __future__ import annotations

from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy
from torch.nn.utils.spectral_norm import SpectralNorm

from gmlib.layer import MixtureLayer

__all__ = [
    "check_initializable",
    "check_measurable",
    "check_readouts",
    "check_writable",
    "gathers_statistics",
    "gm_layers",
    "layers_of",
]

Layer = TypeVar("Layer", bound=nn.Module)

# Where the classes come from that replicate, shard or average parameters. By name: most of these
# modules take seconds to import, and whoever made such an object has done so already.
_HOLDERS = (
    "torch.nn.parallel.distributed",
    "torch.distributed.fsdp",
    "torch.distributed._composable",
    "torch.distributed.tensor",
    "torch.optim.swa_utils",
)


def layers_of(module: nn.Module, layer_type: type[Layer]) -> dict[str, Layer]:
    """The layers of a type, by name.

    Raises:
        ValueError: If there is none.
        TypeError: If `module` is no network or `layer_type` no class.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    if not isinstance(layer_type, type):
        raise TypeError(f"layer_type must be a class of modules, got {layer_type!r}")
    layers = {
        name: layer for name, layer in module.named_modules() if isinstance(layer, layer_type)
    }
    if not layers:
        wanted = "GM layer" if layer_type is MixtureLayer else layer_type.__name__
        hint = ": initialize the network first, trace, script or export it afterwards"
        recorded = torch.jit.ScriptModule, torch.fx.GraphModule
        if not any(isinstance(child, recorded) for child in module.modules()):
            hint = ""
        raise ValueError(f"{type(module).__name__} holds no {wanted}{hint}")
    return layers


def gm_layers(module: nn.Module) -> dict[str, MixtureLayer]:
    """The GM layers of a network, in either coordinates, by name.

    Raises:
        ValueError: If there is none.
        TypeError: If it is no network.
    """
    return layers_of(module, MixtureLayer)


def check_initializable(module: nn.Module) -> None:
    """Raise unless the GM layers' parameters are here, whole, and the only ones of the network."""
    layers = gm_layers(module)
    for child in module.modules():
        _check_holder("the network", child)
    for name, layer in layers.items():
        for parameter, tensor in chain(layer.named_parameters(), layer.named_buffers()):
            its = f"{parameter} of GM layer {name!r}"
            _check_holder(its, tensor)
            if tensor.is_meta:
                raise ValueError(
                    f"{its} is on the meta device, where there are no numbers: initialize the "
                    "network where it has memory, and offload it afterwards"
                )
            if tensor.ndim == 1:  # of FSDP and of DeepSpeed, with the wrapper left off
                raise ValueError(
                    f"{its} has shape {tuple(tensor.shape)}, as a shard has: initialize the "
                    "network first, in every process from the same seed and data, and shard it "
                    "afterwards"
                )


def _check_holder(its: str, held: object) -> None:
    for base in type(held).__mro__:
        if base.__module__.startswith(_HOLDERS):
            raise ValueError(
                f"{its} is held by {base.__name__}, and copies in other places would differ: "
                "initialize the network first, in every process from the same seed and data; "
                "replicate, shard or average it afterwards"
            )


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


def check_measurable(module: nn.Module) -> None:
    """Raise unless a forward pass shows the network as it is and will be in training."""
    for name, child in module.named_modules():
        its = f"{name!r}, a {type(child).__name__}," if name else type(child).__name__
        if isinstance(child, DistributedDataParallel) or (
            isinstance(child, DataParallel) and len(child.device_ids) > 1
        ):
            raise ValueError(f"{its} runs several copies of its network: pass its `module`")
        if isinstance(child, nn.SyncBatchNorm) and child.training and _num_processes(child) > 1:
            raise ValueError(
                f"{its} would wait for other processes: convert the network's BatchNorm afterwards"
            )
        if not getattr(child, "training", True) and _is_unset(child):
            raise ValueError(
                f"{its} is in evaluation mode and has seen no data, so that its statistics are "
                "none: put it in training mode, in which it takes those of each batch"
            )
        for tensor in chain(child.parameters(recurse=False), child.buffers(recurse=False)):
            if is_lazy(tensor):
                raise ValueError(
                    f"{its} has parameters without a shape: pass a batch through the network first"
                )


def gathers_statistics(module: nn.Module) -> bool:
    """Whether a module normalizes by what it gathers in training.

    That is a BatchNorm or the like, of whatever package, scripted or not, or the older spectral
    norm, which begins with vectors drawn at random.
    """
    hooks = module._forward_pre_hooks.values()
    return _running_mean(module) is not None or any(isinstance(h, SpectralNorm) for h in hooks)


def _running_mean(module: nn.Module) -> Tensor | None:
    return dict(module.named_buffers(recurse=False)).get("running_mean")


def _is_unset(module: nn.Module) -> bool:
    # Not by num_batches_tracked: it is zero in statistics from old checkpoints, too.
    mean, variance = _running_mean(module), getattr(module, "running_var", None)
    untouched = mean is not None and not mean.any()
    return untouched and (variance is None or bool((variance == 1).all()))


def _num_processes(norm: nn.SyncBatchNorm) -> int:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 1
    return torch.distributed.get_world_size(norm.process_group)
