"""What a GPU makes of it: the tests that want one, steps, seeds as one program, and memory.

Run by gpu.sh, on a machine that may have nothing but PyTorch: what needs more says so and is left
out. Writes benchmarks/gpu.json, from which the book draws.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from gmlib import FoldedGaussianMixtureLayer, GaussianMixtureLayer, __version__  # noqa: E402
from gmlib.init import kumar_  # noqa: E402

SEEDS, STEPS = 40, 100
KINDS = {"affine": GaussianMixtureLayer, "folded": FoldedGaussianMixtureLayer}
# What the tests import, those of the study and the browser's fixture among them.
TESTED = ("pytest", "xdist", "hypothesis", "mpmath", "playwright", "pandas", "psutil")
STUDIED = ("numpy", "pandas", "scipy", "filelock", "joblib", "platformdirs", "tqdm", "matplotlib")


def missing(modules: tuple[str, ...]) -> list[str]:
    """Which of the modules are not installed."""
    return [name for name in modules if importlib.util.find_spec(name) is None]


def seconds(call: Callable[[], object], turn: float = 1.0) -> float:
    """Of one call, the median of several rounds, with the device's work waited for."""

    def timed(count: int) -> float:
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(count):
            call()
        torch.cuda.synchronize()
        return (time.perf_counter() - start) / count

    timed(3)
    count = max(1, round(turn / 10 / timed(3)))
    return statistics.median(timed(count) for _ in range(10))


def step_of(network: nn.Module, x: Tensor, y: Tensor) -> Callable[[], None]:
    """Forward, backward and SGD."""
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-6)

    def run() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()

    return run


def steps(batch: int) -> dict[str, float]:
    """Milliseconds of a step of the note's stack in both coordinates, and of what is beside it."""
    torch.manual_seed(0)
    x = torch.randn(batch, 784, device="cuda")
    y = torch.randint(10, (batch,), device="cuda")
    weights, gradient = torch.randn(784, 1000).cuda(), torch.randn(batch, 1000).cuda()

    def products() -> None:
        x @ weights
        x.T @ gradient

    paths: dict[str, Callable[[], object]] = {"bare products": products}
    for name, kind in KINDS.items():
        stack = nn.Sequential(kind(784, 100, 10), kind(100, 10, 10)).cuda()
        kumar_(stack, x)
        paths[name] = step_of(stack, x, y)
    dense = nn.Sequential(nn.Linear(784, 1000), nn.ReLU(), nn.Linear(1000, 10)).cuda()
    paths["dense network"] = step_of(dense, x, y)
    found = {name: round(1e3 * seconds(path), 4) for name, path in paths.items()}
    print(f"step of {batch} images (ms):", found)
    return found


def largest(kind: type[nn.Module]) -> int:
    """The most components, a power of two, of a layer 784 -> 100 that takes a step of 64."""
    x, components, fits = torch.randn(64, 784, device="cuda"), 1024, 0
    while components <= 2**20:
        try:
            layer = kind(784, 100, components, device="cuda")
            optimizer = torch.optim.SGD(layer.parameters(), lr=1e-6)
            layer(x).square().mean().backward()
            optimizer.step()
        except (torch.OutOfMemoryError, RuntimeError):
            break
        finally:
            layer = optimizer = None  # gives the memory back
            torch.cuda.empty_cache()
        fits, components = components, 2 * components
    return fits


def together() -> dict[str, Any]:
    """Seeds as one program against one by one, and against the CPU, on random images."""
    from gmlib.study.datasets import Dataset
    from gmlib.study.plan import run_configs
    from gmlib.study.runs.training import train, train_together

    generator = torch.Generator().manual_seed(0)
    images = torch.randn(64 * STEPS + 1000, 784, generator=generator)
    labels = torch.randint(10, (len(images),), generator=generator)
    split = 64 * STEPS
    data = Dataset("random", images[:split], labels[:split], images[split:], labels[split:], {})
    result: dict[str, Any] = {"seeds": SEEDS, "steps": STEPS}
    for coordinates in KINDS:
        configs = run_configs(["KUMAR"], list(range(SEEDS)), epochs=1, coordinates=coordinates)
        train_together(configs[:1], "cuda", dataset=data)  # warms up
        taken = {}
        for name, group in {"alone": configs[:1], "together": configs}.items():
            start = time.perf_counter()
            records = train_together(group, "cuda", dataset=data)
            taken[name] = (time.perf_counter() - start) / len(group)
        here = train(configs[0], dataset=data)
        apart = max(
            abs(a - b)
            for a, b in zip(here.curves["test_loss"], records[0].curves["test_loss"], strict=True)
        )
        result[coordinates] = {
            "seconds_a_run": {name: round(value, 4) for name, value in taken.items()},
            "faster": round(taken["alone"] / taken["together"], 1),
            "loss_apart_from_the_cpu": float(f"{apart:.2g}"),
        }
        print(f"{SEEDS} seeds, {coordinates}:", result[coordinates])
    return result


def main() -> int:
    """Measure, print and keep; 1 if a test failed."""
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__.partition("+")[0],
        "gmlib": __version__,
    }
    status = 0
    if lacking := missing(TESTED):
        print(f"the tests that want a GPU: not run, without {', '.join(lacking)}")
    else:
        files = sorted(str(path) for path in (ROOT / "tests").rglob("test_*.py"))
        wanted = [file for file in files if "cuda.is_available" in Path(file).read_text()]
        command = [sys.executable, "-m", "pytest", "-q", "-k", "cuda or gpu", *wanted]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        found["tests"] = done.stdout.strip().splitlines()[-1].strip("= ")
        print(done.stdout[-2000:])
        status = int(done.returncode not in (0, 5))
    found["steps_ms"] = {str(batch): steps(batch) for batch in (64, 1024)}
    found["largest_K"] = {name: largest(kind) for name, kind in KINDS.items()}
    print("most components that fit:", found["largest_K"])
    if lacking := missing(STUDIED):
        print(f"seeds as one program: not measured, without {', '.join(lacking)}")
    else:
        found["together"] = together()
    text = json.dumps(found, indent=1)
    (ROOT / "benchmarks/gpu.json").write_text(text + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
