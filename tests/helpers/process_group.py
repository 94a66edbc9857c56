"""One of several processes that initialize a network; prints what came of it, as JSON.

``python process_group.py RANK WORLD_SIZE FILE``, the file being where the processes meet.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from draws import seeded
from init_checks import INITS, sample
from torch import Tensor, nn
from torch.distributed._composable.replicate import replicate
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor, init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from gmlib import FoldedGaussianMixtureLayer, GaussianMixtureLayer
from gmlib.init import kumar_, scale_report


def make() -> nn.Sequential:
    """The same network in every process, but for its GM layers."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(6, 8),
        nn.LayerNorm(8),
        GaussianMixtureLayer(8, 6, 4),
        FoldedGaussianMixtureLayer(6, 4, 2),
    )
    torch.manual_seed(1 + dist.get_rank())
    return network


def data() -> Tensor:
    """Inputs of this process alone."""
    return sample(seed=dist.get_rank()) * (1.0 + dist.get_rank())


def fsdp(network: nn.Module, use_orig_params: bool) -> FullyShardedDataParallel:
    return FullyShardedDataParallel(
        network, use_orig_params=use_orig_params, device_id=torch.device("cpu")
    )


def by_layer(network: nn.Sequential) -> nn.Module:
    for layer in network[2:]:
        fully_shard(layer)
    return fully_shard(network)


def alone(network: nn.Module) -> nn.Module:
    """Sharded, each process by itself."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(), 1), mesh_dim_names=("all", "one"))
    return fully_shard(network, mesh=mesh["one"])


def distributed(placement: Any) -> Callable[[nn.Sequential], nn.Module]:
    def wrap(network: nn.Sequential) -> nn.Module:
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        mu = network[2].mu.detach()
        network[2].mu = nn.Parameter(distribute_tensor(mu, mesh, [placement]))
        return network

    return wrap


WRAPPERS: dict[str, Callable[[nn.Sequential], nn.Module]] = {
    "DistributedDataParallel": DistributedDataParallel,
    "DistributedDataParallel inside": lambda network: nn.Sequential(
        DistributedDataParallel(network)
    ),
    "replicate": replicate,
    "FSDP of original parameters": lambda network: fsdp(network, True),
    "FSDP of flat parameters": lambda network: fsdp(network, False),
    "what FSDP of original parameters holds": lambda network: fsdp(network, True).module,
    "fully_shard": fully_shard,
    "fully_shard by layer": by_layer,
    "fully_shard of another layer": lambda network: (fully_shard(network[0]), network)[1],
    "fully_shard in one process": alone,
    "a sharded parameter": distributed(Shard(0)),
    "a replicated parameter": distributed(Replicate()),
}


def state(network: nn.Module) -> list[Tensor]:
    """What this process holds of a network."""
    return [
        getattr(tensor, "_local_tensor", tensor).detach().clone()
        for tensor in (*network.parameters(), *network.buffers())
    ]


def refusals(wrap: Callable[[nn.Sequential], nn.Module]) -> dict[str, str]:
    """By initialization, what it says; or that it says nothing, or leaves a trace."""
    network, found = wrap(make()), {}
    for name, init_ in INITS.items():
        before, random = state(network), torch.get_rng_state()
        try:
            init_(network, data())
            found[name] = "was not refused"
        except ValueError as error:
            found[name] = str(error)
        same = all(map(torch.equal, state(network), before))
        if not (same and torch.equal(torch.get_rng_state(), random)):
            found[name] = "left a trace"
    return found


def differences(network: nn.Module, x: Tensor) -> list[float]:
    """Between the processes, in what they compute of the same inputs."""
    with torch.no_grad():
        out = network(x)
    outs = [torch.empty_like(out) for _ in range(dist.get_world_size())]
    dist.all_gather(outs, out)
    return [(other - outs[0]).abs().max().item() for other in outs]


def initialized_first(
    wrap: Callable[[nn.Sequential], nn.Module], inputs: Tensor, **generator: torch.Generator
) -> dict[str, Any]:
    """How far the processes are apart before and after it is wrapped, and this one from itself."""
    network = make()
    kumar_(network, inputs, **generator)
    apart, out = differences(network, sample()), network(sample()).detach()
    wrapped = wrap(network)
    changed = (wrapped(sample()) - out).abs().max().item()
    return {"apart": apart, "together": differences(wrapped, sample()), "changed": changed}


def synchronized() -> dict[str, Any]:
    """What is said of a SyncBatchNorm, and of one that is converted afterwards."""
    network = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), *make())
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(*network))
    try:
        kumar_(converted, data())
        message = "was not refused"
    except ValueError as error:
        message = str(error)
    report = kumar_(network, data())
    return {"message": message, "stds": [layer.std_after for layer in report]}


def measured(wrap: Callable[[nn.Sequential], nn.Module]) -> list[float] | str:
    """What `scale_report` says of it."""
    try:
        return [layer.std_after for layer in scale_report(wrap(make()), data())]
    except ValueError as error:
        return str(error)


def main() -> None:
    """Try it all."""
    rank, size, file = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=size)
    network = make()
    report = kumar_(network, data(), generator=seeded())  # a group changes nothing in itself
    results = {
        "refused": {name: refusals(wrap) for name, wrap in WRAPPERS.items()},
        "plain": [layer.std_after for layer in report],
        "own": initialized_first(DistributedDataParallel, data()),
        "alike": {
            "FSDP": initialized_first(
                lambda network: fsdp(network, True), sample(), generator=seeded()
            ),
            "fully_shard": initialized_first(fully_shard, sample(), generator=seeded()),
        },
        "synchronized": synchronized(),
        "measured": {
            name: measured(WRAPPERS[name])
            for name in ("DistributedDataParallel", "fully_shard", "FSDP of flat parameters")
        }
        | {"plain": measured(lambda network: network)},
    }
    dist.destroy_process_group()
    print(json.dumps(results))


if __name__ == "__main__":
    main()
