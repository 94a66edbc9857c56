"""Whatever is refused: by an error that names what came and what is allowed, and without a trace.

The tables are in bad_inputs.toml. Bad parameters of notebooks are tried in test_papermill.py.
"""

import copy
import re
import tomllib
from pathlib import Path

import pytest
import torch
from kinds import AFFINE, KINDS
from torch import nn

import gmlib
from gmlib import functional, init
from gmlib.study import analysis, cli, datasets
from gmlib.study.plan.config import RunConfig, run_configs
from gmlib.study.runs import Ledger, reproduce, sweep, training

TABLE = tomllib.loads(Path(__file__).with_name("bad_inputs.toml").read_text(encoding="utf-8"))
ROWS = TABLE["refused"]
OF_A_LAYER = re.compile(r"\b(Layer|layer_function|network|unreached|dead|on_meta)\b")
CASES = [
    (kind, *row)
    for row in ROWS
    for kind in (KINDS.values() if OF_A_LAYER.search(row[0]) else [AFFINE])
]
COMMANDS = {"gmlib": cli.main, "reproduce": reproduce.main}


class Unreached(nn.Module):
    """A network with a layer that no data reach."""

    def __init__(self, layer):
        super().__init__()
        self.used, self.forgotten = layer(6, 4, 3), layer(6, 4, 3)

    def forward(self, x):
        return self.used(x)


def name(call):
    """A name for a test that any tool can take."""
    return re.sub(r"[^\w]+", "-", call, flags=re.ASCII)


def stack(layer):
    return nn.Sequential(layer(6, 4, 3), nn.ReLU(), layer(4, 2, 3))


@pytest.fixture
def names(kind, tmp_path):
    """What the names in the table stand for."""
    layer = kind.layer
    dead = stack(layer)
    for parameter in dead.parameters():
        nn.init.zeros_(parameter)
    return {
        **vars(functional),
        **{
            module.__name__.rpartition(".")[2]: module
            for module in (gmlib, init, analysis, datasets)
        },
        "Layer": layer,
        "Ledger": Ledger,
        "RunConfig": RunConfig,
        "a_file": __file__,
        "dead": dead,
        "ledger": Ledger(tmp_path / "ledger"),
        "nan": float("nan"),
        "inf": float("inf"),
        "layer_function": kind.function,
        "network": stack(layer),
        "nn": nn,
        "on_meta": stack(layer).to("meta"),
        "ones": torch.ones,
        "run_configs": run_configs,
        "sweep": sweep,
        "torch": torch,
        "train": training.train,
        "train_together": training.train_together,
        "unreached": Unreached(layer),
        "x": torch.randn(32, 6),
    }


def test_the_table_is_long():
    assert len({call for call, _, _ in ROWS}) == len(ROWS) > 100


@pytest.mark.parametrize(
    ("kind", "call", "error", "message"),
    CASES,
    ids=[f"{name(call)}-{kind.layer.__name__}" for kind, call, _, _ in CASES],
)
def test_it_is_refused_and_nothing_changes(kind, call, error, message, names, measured):
    message = message.format(Layer=kind.layer.__name__, **kind.names)
    modules = {key: value for key, value in names.items() if isinstance(value, nn.Module)}
    before = {key: copy.deepcopy(module.state_dict()) for key, module in modules.items()}
    modes = {key: [child.training for child in module.modules()] for key, module in modules.items()}
    inputs = names["x"].clone()
    random, threads = torch.get_rng_state(), torch.get_num_threads()
    draws = "torch.randn" in call or "Layer(" in call or "nn." in call  # the call itself draws

    with pytest.raises((ValueError, TypeError, RuntimeError), match=re.escape(message)) as raised:
        eval(call, names)
    assert type(raised.value).__name__ == error

    for key, module in modules.items():
        if key == "on_meta":
            continue
        for name, value in module.state_dict().items():
            assert torch.equal(value, before[key][name])
        assert [child.training for child in module.modules()] == modes[key]
        assert not [child for child in module.modules() if child._forward_hooks]
    assert torch.equal(names["x"], inputs)
    assert torch.get_num_threads() == threads
    assert draws or torch.equal(torch.get_rng_state(), random)
    assert not names["ledger"].folder.exists()
    measured.add("refused", "bad inputs to the package")


@pytest.mark.parametrize(
    ("line", "message"),
    TABLE["command_line"],
    ids=[name(line) for line, _ in TABLE["command_line"]],
)
def test_a_bad_command_line_is_refused(line, message, tmp_path, monkeypatch, capsys, measured):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").touch()
    line = line.replace("COMMITTED", str(Ledger().folder))
    program, *arguments = line.split()
    try:
        code = COMMANDS[program](arguments)
    except SystemExit as stop:
        code = stop.code
    # A text as its code is what Python writes, and exits with 1.
    error = capsys.readouterr().err if isinstance(code, int) else code
    assert code not in (0, None)
    assert message in error
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]
    measured.add("refused", "bad command lines")
