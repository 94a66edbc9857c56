"""Parameters and inputs that are spread over processes, here over one of its own."""

import copy

import pytest
import torch
from draws import draw
from module_checks import outcome
from networks import stack
from torch import distributed
from torch.testing import assert_close

pytestmark = pytest.mark.skipif(
    not (distributed.is_available() and distributed.is_gloo_available()),
    reason="needs torch.distributed with gloo",
)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    store = distributed.FileStore(str(tmp_path_factory.mktemp("store") / "file"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield distributed.device_mesh.init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


@pytest.mark.parametrize("batch", [3, 9])
def test_replicated_parameters_and_a_batch_in_shards(kind, mesh, batch):
    from torch.distributed.tensor import DTensor, Shard, distribute_module, distribute_tensor

    network, x = stack(kind, 6, 5, 4, dtype=torch.float64), draw(batch, 6)
    expected = outcome(network, x)
    shards = distribute_tensor(x, mesh, [Shard(0)]).requires_grad_()
    spread = distribute_module(copy.deepcopy(network), mesh)
    out = spread(shards)
    weight = torch.linspace(-1.0, 2.0, out.numel(), dtype=x.dtype).view(out.shape)
    grads = torch.autograd.grad(
        out, [shards, *spread.parameters()], distribute_tensor(weight, mesh, [Shard(0)])
    )
    assert all(isinstance(tensor, DTensor) for tensor in (out, *grads))
    for found, exact in zip((out, *grads), expected, strict=True):
        assert_close(found.full_tensor(), exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("low", "accuracy"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)], ids=str
)
@pytest.mark.parametrize("returned", [None, torch.float32], ids=str)
def test_fsdp_in_mixed_precision(kind, mesh, low, accuracy, returned):
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    network, x = stack(kind, 6, 5, 4), draw(9, 6, dtype=torch.float32)
    expected = network(x)
    expected.square().mean().backward()
    sharded = copy.deepcopy(network)
    sharded.zero_grad()
    policy = MixedPrecisionPolicy(low, reduce_dtype=torch.float32, output_dtype=returned)
    for layer in sharded:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(sharded, mesh=mesh, mp_policy=policy)
    out = sharded(x)
    assert out.dtype == (returned or low)
    out.float().square().mean().backward()
    assert (out - expected).abs().max() < accuracy * expected.abs().max()
    for found, exact in zip(sharded.parameters(), network.parameters(), strict=True):
        assert found.grad.dtype == torch.float32
        error = (found.grad.full_tensor() - exact.grad).abs().max()
        assert error < accuracy * exact.grad.abs().max()
