"""The arms: what each shares with the others of its seed, and what it has of its own."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

from gmlib import GaussianMixtureLayer
from gmlib.init import ScaleReport, analytic_, fan_in_, kumar_, output_std
from gmlib.study import datasets
from gmlib.study.plan import arms
from gmlib.study.plan.arms import ARMS
from gmlib.study.plan.config import RunConfig
from gmlib.study.plan.families import MIXTURE
from gmlib.study.runs import training
from gmlib.study.runs.training import build_network, train

Configure = Callable[..., RunConfig]

WIDTHS = (25, 9, 7, 4)
COMPONENTS = 3
OF_FAN_IN = ("FAN-IN", "KUMAR", "NOISE", "ANALYTIC", "ZERO", "ZERO-LAST")  # with its draws
CALIBRATED = ("KUMAR", "BL+CAL", "NOISE", "LSUV")


def generator(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def inputs() -> Tensor:
    """Inputs that are no noise and not of one norm."""
    rng = generator(1)
    low = torch.randn(200, 3, generator=rng) @ torch.randn(3, WIDTHS[0], generator=rng)
    return low + 0.2 * torch.rand(200, WIDTHS[0], generator=rng) + 0.5


def stack(*widths: int) -> nn.Sequential:
    return nn.Sequential(
        *(GaussianMixtureLayer(d, C, COMPONENTS) for d, C in itertools.pairwise(widths or WIDTHS))
    )


def initialized(
    arm: str, inputs: Tensor, seed: int = 0, *widths: int, **settings: Any
) -> nn.Sequential:
    network = stack(*widths)
    ARMS[arm].initialize(network, inputs, RunConfig(arm, seed, **settings), generator(seed))
    return network


def content(network: nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in network.state_dict().items()}


def output_stds(network: nn.Sequential, inputs: Tensor) -> list[float]:
    stds = []
    with torch.no_grad():
        for layer in network:
            inputs = layer(inputs)
            stds.append(inputs.double().std(correction=0).item())
    return stds


def readout(layer: nn.Module) -> Tensor:
    """U and v as one vector."""
    return torch.cat([layer.U.detach().flatten(), layer.v.detach().flatten()])


def assert_proportional(layer: nn.Module, reference: nn.Module) -> float:
    """Check that the readouts differ by one positive factor, and return it."""
    one, other = readout(layer), readout(reference)
    factor = ((one @ other) / (other @ other)).item()
    assert factor > 0
    torch.testing.assert_close(one, factor * other)
    return factor


def assert_same_components(network: nn.Sequential, reference: nn.Sequential) -> None:
    for layer, other in zip(network, reference, strict=True):
        assert torch.equal(layer.mu, other.mu)
        assert torch.equal(layer.sigma, other.sigma)


# --- What all have in common ---------------------------------------------------------------------


STACKS = [name for name, arm in ARMS.items() if arm.family is MIXTURE]


def test_the_arms_of_other_families() -> None:
    assert set(ARMS) - set(STACKS) == {"FC", "NEURONS"}


@pytest.mark.parametrize("arm", STACKS)
def test_the_generator_decides_and_nothing_else_is_drawn_from(arm: str, inputs: Tensor) -> None:
    network, images, before = stack(), inputs.clone(), torch.get_rng_state()
    ARMS[arm].initialize(network, inputs, RunConfig(arm, 7), generator(7))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(inputs, images)
    one, other = content(network), content(initialized(arm, inputs, 8))
    assert one == content(initialized(arm, inputs, 7))
    assert all(one[f"{layer}.mu"] != other[f"{layer}.mu"] for layer in range(3))


@pytest.mark.parametrize("arm", STACKS)
def test_an_arm_reads_the_settings_that_it_is_named_after(arm: str, inputs: Tensor) -> None:
    plain = content(initialized(arm, inputs))
    others = {"gamma": 0.2, "target_std": 0.7, "num_neurons": 70, "lr": 1.0, "lr_sigma": 0.3}
    for name, value in others.items():
        changed = content(initialized(arm, inputs, **{name: value})) != plain
        assert changed == (name in ARMS[arm].settings and not name.startswith("lr")), name


@pytest.mark.parametrize(
    ("arm", "scales"),
    [
        *(("BL", [gamma] * 3) for gamma in (0.5, 0.2)),
        *(("BL+CAL", [gamma] * 3) for gamma in (0.5, 0.2)),
        *((arm, [math.sqrt(2 / d) for d in WIDTHS[:3]]) for arm in (*OF_FAN_IN, "LSUV")),
    ],
)
def test_clouds_are_round_and_of_the_scale_of_the_arm(
    arm: str, scales: list[float], inputs: Tensor
) -> None:
    settings = {"gamma": scales[0]} if arm.startswith("BL") else {}
    for layer, scale in zip(initialized(arm, inputs, **settings), scales, strict=True):
        torch.testing.assert_close(layer.sigma, torch.full_like(layer.sigma, scale))


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("arm", OF_FAN_IN)
def test_arms_of_one_seed_have_the_components_of_fan_in(
    arm: str, seed: int, inputs: Tensor
) -> None:
    reference = stack()
    fan_in_(reference, generator=generator(seed))
    assert_same_components(initialized(arm, inputs, seed), reference)


@pytest.mark.parametrize("arm", ["KUMAR", "NOISE", "ANALYTIC"])
def test_arms_that_calibrate_fan_in_differ_from_it_by_a_factor_a_layer(
    arm: str, inputs: Tensor
) -> None:
    network, reference = initialized(arm, inputs), initialized("FAN-IN", inputs)
    factors = [assert_proportional(*pair) for pair in zip(network, reference, strict=True)]
    assert all(abs(one - other) > 1e-3 for one, other in itertools.combinations([1, *factors], 2))


def test_the_baseline_is_fan_in_on_another_scale(inputs: Tensor) -> None:
    # They draw the same numbers, so that even these are paired.
    pairs = zip(initialized("BL", inputs), initialized("FAN-IN", inputs), strict=True)
    for layer, reference in pairs:
        ratio = 0.5 / math.sqrt(2 / layer.in_features)
        for name in ("mu", "sigma", "U", "v"):
            torch.testing.assert_close(getattr(layer, name), ratio * getattr(reference, name))


@pytest.mark.parametrize("arm", CALIBRATED)
@pytest.mark.parametrize("target", [0.5, 0.8])
def test_calibrated_outputs_have_the_standard_deviation_that_was_asked_for(
    arm: str, target: float, inputs: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = spy_on_calibration(monkeypatch)
    network = initialized(arm, inputs, target_std=target)
    shown = seen[0] if arm == "NOISE" else inputs
    expected = 1.0 if arm == "LSUV" else target
    assert output_stds(network, shown) == pytest.approx([expected] * 3, rel=1e-5)


def spy_on_calibration(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Where the inputs that `calibrate_` is given in an arm will be."""
    seen: list[Tensor] = []
    calibrate_ = arms.calibrate_

    def spy(network: nn.Module, inputs: Tensor, *rest: Any) -> ScaleReport:
        seen.append(inputs.clone())
        return calibrate_(network, inputs, *rest)

    monkeypatch.setattr(arms, "calibrate_", spy)
    return seen


# --- BL+CAL --------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.5, 0.2])
def test_the_calibrated_baseline_is_the_baseline_rescaled(gamma: float, inputs: Tensor) -> None:
    plain = initialized("BL", inputs, gamma=gamma)
    network = initialized("BL+CAL", inputs, gamma=gamma, target_std=0.3)
    assert_same_components(network, plain)
    x = inputs
    for layer, reference in zip(network, plain, strict=True):
        factor = assert_proportional(layer, reference)
        with torch.no_grad():
            assert factor == pytest.approx(0.3 / reference(x).std(correction=0).item(), rel=1e-4)
            x = layer(x)


def test_the_calibration_of_the_baseline_is_reported(tiny: Configure) -> None:
    config = tiny("BL+CAL", epochs=0)
    report = train(config).init_report
    for layer in report:
        assert layer.std_after == pytest.approx(0.5, rel=1e-5)
        assert layer.std_before * layer.scale == pytest.approx(0.5)
    before = train(tiny("BL", epochs=0)).init_report[0]
    assert report[0].std_before == pytest.approx(before.std_after, rel=0.1)  # on 64 images of 96


# --- NOISE ---------------------------------------------------------------------------------------


def noise_for(inputs: Tensor, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """What a network is calibrated on in place of `inputs`."""
    with monkeypatch.context() as patch:
        seen = spy_on_calibration(patch)
        initialized("NOISE", inputs)
    (noise,) = seen
    return noise


def test_noise_is_as_long_as_the_images(inputs: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = noise_for(inputs, monkeypatch)
    assert noise.shape == inputs.shape
    torch.testing.assert_close(noise.norm(dim=1), inputs.norm(dim=1))
    assert inputs.norm(dim=1).std() > 1  # which is no matter of course


def test_noise_has_nothing_else_of_the_images(
    inputs: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Other images of the same norms, to the last bit, give the same noise, and the same network.
    signs = torch.randint(0, 2, inputs.shape, generator=generator(5)) * 2.0 - 1.0
    one = noise_for(inputs, monkeypatch)
    other = noise_for(inputs * signs, monkeypatch)
    assert torch.equal(one, other)
    assert content(initialized("NOISE", inputs)) == content(initialized("NOISE", inputs * signs))
    longer = noise_for(2.0 * inputs, monkeypatch)
    assert torch.equal(longer, 2.0 * one)


def test_noise_has_no_direction(inputs: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = inputs.repeat(40, 1)
    noise = noise_for(shown, monkeypatch)
    rows = noise / noise.norm(dim=1, keepdim=True)
    assert len(rows) == 8000
    d = WIDTHS[0]
    covariance = d * rows.T @ rows / len(rows)
    assert (math.sqrt(d) * rows.mean(0)).abs().max() < 5 / math.sqrt(8000)
    torch.testing.assert_close(covariance, torch.eye(d), rtol=0, atol=5 * math.sqrt(2 / 8000))
    images = inputs / inputs.norm(dim=1, keepdim=True)
    assert (d * images.T @ images / len(images) - torch.eye(d)).abs().max() > 0.5  # unlike these
    # One image's noise is not another's, not even that of an equal image.
    cosines = rows[:200] @ rows[:400].T
    cosines.fill_diagonal_(0.0)
    assert cosines.abs().max() < 0.95


def test_noise_is_drawn_after_the_parameters(
    inputs: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = generator()
    fan_in_(stack(), generator=rng)
    expected = torch.randn(inputs.shape, generator=rng)
    noise = noise_for(inputs, monkeypatch)
    torch.testing.assert_close(
        noise / noise.norm(dim=1, keepdim=True), expected / expected.norm(dim=1, keepdim=True)
    )


def test_a_network_calibrated_on_noise_is_measured_on_images(
    tiny: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = datasets.load("own_runs:blobs")
    seen = spy_on_calibration(monkeypatch)
    network, report = build_network(tiny("NOISE"), dataset)
    assert len(seen[0]) == 64
    assert output_stds(network, seen[0]) == pytest.approx([0.5] * 2, rel=1e-5)
    order = torch.randperm(96, generator=training.generator_of(0, "calibration"))
    expected = output_stds(network, dataset.x_train[order[:64]])
    assert [layer.std_after for layer in report] == pytest.approx(expected, rel=1e-5)
    assert [layer.scale for layer in report] == [1.0, 1.0]
    assert all(abs(std - 0.5) > 1e-3 for std in expected)


# --- ANALYTIC ------------------------------------------------------------------------------------


def test_the_analytic_arm_needs_no_data(inputs: Tensor) -> None:
    expected = content(initialized("ANALYTIC", inputs))
    for others in (inputs[:1], 100.0 * inputs, torch.zeros(3, WIDTHS[0]), inputs * math.nan):
        assert content(initialized("ANALYTIC", others)) == expected


def test_the_analytic_arm_takes_inputs_for_standardized(inputs: Tensor) -> None:
    network, expected = initialized("ANALYTIC", inputs, target_std=0.3), stack()
    report = analytic_(expected, 25.0, 0.3, generator=generator())
    assert content(network) == content(expected)
    assert report[0].std_before == output_std(math.sqrt(2 / 25), 25, COMPONENTS, 25.0)


def test_the_analytic_arm_is_measured(tiny: Configure) -> None:
    (one, two) = train(tiny("ANALYTIC", epochs=0)).init_report
    for layer in (one, two):
        assert layer.scale == 1.0
        assert layer.std_before == layer.std_after != 0.5  # not what was predicted
        assert 0.1 < layer.std_after < 2.5


# --- LSUV ----------------------------------------------------------------------------------------


def test_lsuv_has_orthogonal_directions(inputs: Tensor) -> None:
    for layer in initialized("LSUV", inputs):
        torch.testing.assert_close(layer.mu @ layer.mu.T, 2.0 * torch.eye(COMPONENTS))


def test_lsuv_is_shown_the_calibration_inputs(tiny: Configure) -> None:
    report = train(tiny("LSUV", epochs=0)).init_report
    assert [layer.std_after for layer in report] == pytest.approx([1.0, 1.0], rel=1e-5)
    assert all(layer.scale != 1.0 for layer in report)
    other = train(tiny("LSUV", epochs=0, calibration_size=32)).init_report
    assert other != report


# --- ZERO and ZERO-LAST --------------------------------------------------------------------------


def test_readouts_of_zero(inputs: Tensor) -> None:
    plain = initialized("FAN-IN", inputs)
    for layer in initialized("ZERO", inputs):
        assert not readout(layer).any()
    *first, last = initialized("ZERO-LAST", inputs)
    assert not readout(last).any()
    for layer, reference in zip(first, plain, strict=False):
        assert torch.equal(readout(layer), readout(reference))
        assert readout(layer).all()


@pytest.mark.parametrize("arm", ["ZERO", "ZERO-LAST"])
def test_a_network_of_zero_readout_prefers_no_class(arm: str, inputs: Tensor) -> None:
    assert not initialized(arm, inputs)(inputs).any()


def gradients(network: nn.Module, inputs: Tensor) -> dict[str, float]:
    """Largest entry of the gradient, by parameter."""
    labels = torch.arange(len(inputs)) % 3
    cross_entropy(network(inputs), labels).backward()
    return {name: p.grad.abs().max().item() for name, p in network.named_parameters()}


def test_readouts_of_zero_are_a_stationary_point(inputs: Tensor) -> None:
    # Exactly but for the floor on the variance, of which a layer makes outputs of 1e-20 from zero.
    sizes = gradients(initialized("ZERO", inputs), inputs)
    assert len(sizes) == 12
    for name, size in sizes.items():
        assert size == 0.0 or (name in ("2.U", "2.v") and size < 1e-18), name


def test_a_last_readout_of_zero_is_none(inputs: Tensor) -> None:
    sizes = gradients(initialized("ZERO-LAST", inputs), inputs)
    for name, size in sizes.items():
        assert (size > 1e-5) == (name in ("2.U", "2.v")), name
        assert size == 0.0 or size > 1e-5, name


def test_a_single_layer_can_leave_zero(inputs: Tensor) -> None:
    one, other = (initialized(arm, inputs, 0, 25, 4) for arm in ("ZERO", "ZERO-LAST"))
    assert content(one) == content(other)
    sizes = gradients(one, inputs)
    assert sizes["0.mu"] == sizes["0.sigma"] == 0.0
    assert min(sizes["0.U"], sizes["0.v"]) > 1e-3


def test_only_a_last_readout_of_zero_is_trained_away(tiny: Configure) -> None:
    zero, last = (train(tiny(arm, epochs=3, snapshots=True)) for arm in ("ZERO", "ZERO-LAST"))
    assert zero.curves["test_loss"] == pytest.approx([math.log(3)] * 8, rel=1e-6)
    assert len(set(zero.curves["test_error"])) == 1
    for name, found in zero.snapshots.items():
        assert abs(found[-1] - found[0]).max() < 1e-18, name
    assert last.curves["test_loss"][0] == pytest.approx(math.log(3), rel=1e-6)
    assert last.curves["test_loss"][-1] < 0.8 * math.log(3)


@pytest.mark.parametrize(("arm", "stds"), [("ZERO", [False, False]), ("ZERO-LAST", [True, False])])
def test_outputs_of_zero_are_reported(arm: str, stds: list[bool], tiny: Configure) -> None:
    report = train(tiny(arm, epochs=0)).init_report
    assert [layer.std_after > 1e-3 for layer in report] == stds
    assert [layer.scale for layer in report] == [1.0, 1.0]
    assert all(layer.std_after >= 0.0 for layer in report)


# --- The note's arms -----------------------------------------------------------------------------


def test_kumar_is_that_of_the_package(inputs: Tensor) -> None:
    network, expected = initialized("KUMAR", inputs, target_std=0.3), stack()
    kumar_(expected, inputs, 0.3, generator=generator())
    assert content(network) == content(expected)
