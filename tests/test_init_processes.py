"""Networks that several processes share: their replicas and shards do not part."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from init_checks import INITS

HELPERS = Path(__file__).with_name("helpers")
FIRST = "initialize the network first, in every process from the same seed and data"
HELD = {
    "DistributedDataParallel": "DistributedDataParallel",
    "DistributedDataParallel inside": "DistributedDataParallel",
    "replicate": "DDPSequential",
    "FSDP of original parameters": "FullyShardedDataParallel",
    "FSDP of flat parameters": "FullyShardedDataParallel",
    "fully_shard": "FSDPSequential",
    "fully_shard by layer": "FSDPSequential",
    "fully_shard of another layer": "FSDPLinear",
    "fully_shard in one process": "FSDPSequential",
}
MESSAGES = {
    **{name: f"the network is held by {by}" for name, by in HELD.items()},
    "a sharded parameter": "mu of GM layer '2' is held by DTensor",
    "a replicated parameter": "mu of GM layer '2' is held by DTensor",
    "what FSDP of original parameters holds": r"\w+ of GM layer '[23]' has shape \(\d+,\),",
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What two processes found, by gloo."""
    meeting = tmp_path_factory.mktemp("processes") / "meeting"
    path = os.pathsep.join([*sys.path, str(HELPERS)])
    processes = [
        subprocess.Popen(
            [sys.executable, HELPERS / "process_group.py", str(rank), "2", meeting],
            env=os.environ | {"PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0]
    return [json.loads(output.splitlines()[-1]) for output in outputs]


@pytest.mark.parametrize("init_", INITS)
@pytest.mark.parametrize("wrapper", MESSAGES)
def test_what_would_part_is_refused_in_every_process(results, wrapper, init_):
    for result in results:
        message = result["refused"][wrapper][init_]
        assert re.match(MESSAGES[wrapper], message)
        assert FIRST in message


def test_all_wrappers_were_tried(results):
    assert all(result["refused"].keys() == MESSAGES.keys() for result in results)


@pytest.mark.parametrize("wrapper", ["FSDP", "fully_shard"])
def test_what_is_initialized_alike_is_sharded_well(results, wrapper):
    for result in results:
        assert result["alike"][wrapper]["apart"] == [0.0, 0.0]
        assert result["alike"][wrapper]["together"] == [0.0, 0.0]
        assert result["alike"][wrapper]["changed"] < 1e-6


def test_replicas_get_what_the_first_process_has(results):
    for result, others in zip(results, (0.0, 1e-3), strict=True):
        # each has drawn numbers and seen data of its own
        assert result["own"]["apart"][1] > 1e-3
        assert result["own"]["together"] == [0.0, 0.0]
        assert others <= result["own"]["changed"] < (1e-6 if others == 0.0 else 10.0)


def test_a_process_group_alone_changes_nothing(results):
    for result in results:
        assert result["plain"] == pytest.approx([0.5, 0.5], rel=1e-5)


def test_a_synchronized_BatchNorm_is_converted_afterwards(results):
    for result in results:
        assert result["synchronized"]["message"] == (
            "'1', a SyncBatchNorm, would wait for other processes: convert the network's BatchNorm "
            "afterwards"
        )
        assert result["synchronized"]["stds"] == pytest.approx([0.5, 0.5], rel=1e-5)


def test_shards_are_measured_and_replicas_by_what_they_hold(results):
    for result in results:
        found = result["measured"]
        assert found["DistributedDataParallel"] == (
            "DistributedDataParallel runs several copies of its network: pass its `module`"
        )
        for wrapper in ("fully_shard", "FSDP of flat parameters"):
            assert len(found[wrapper]) == 2
    # each its own inputs
    assert results[0]["measured"]["plain"] != results[1]["measured"]["plain"]
