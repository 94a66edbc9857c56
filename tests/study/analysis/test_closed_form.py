"""The closed form beside draws of neurons, and beside point masses."""

import re

import numpy as np
import pytest
import torch

from gmlib.functional import gm_layer
from gmlib.study import analysis, datasets
from gmlib.study.analysis import closed_form
from gmlib.study.plan.neurons import NeuronLayer, draw_neurons
from gmlib.study.runs.training import generator_of, train


@pytest.fixture
def layer(tiny):
    return tiny("KUMAR", widths=(3,), epochs=0)


def test_monte_carlo_errors_fall_with_the_root_of_the_samples(layer):
    samples = [20, 200, 2000]
    errors = analysis.monte_carlo_errors(layer, samples, 8)
    assert errors.shape == (3, 8)
    assert len(np.unique(errors)) == 24  # every repetition draws anew
    assert analysis.fitted_slope(samples, errors) == pytest.approx(-0.5, abs=0.1)


def test_point_masses_are_the_limit(layer):
    errors = analysis.point_mass_errors(layer, [0.1, 0.01, 0.0], 3)
    assert (errors[0] > 5 * errors[1]).all()
    assert errors[2] == pytest.approx(0.0, abs=1e-12)


def test_fitted_slope_of_a_power_law():
    x = np.array([1.0, 2.0, 5.0])
    assert analysis.fitted_slope(x, 3.0 * x[:, None] ** -1.7) == pytest.approx(-1.7)


def test_the_dense_reference_has_no_gm_layer(tiny):
    with pytest.raises(ValueError, match="arm 'FC' has no GM layer"):
        analysis.monte_carlo_errors(tiny("FC"), [1], 1)


# --- Neurons drawn from a trained mixture --------------------------------------------------------

K, C, D = 2, 3, 25


def snapshots(epochs=2, prefix="0"):
    """Mixtures that have nothing in common from one epoch to the next."""
    rng = np.random.default_rng(5)
    shapes = {"mu": (K, D), "sigma": (K, D), "U": (K, C, D), "v": (K, C)}
    return {
        f"{prefix}.{name}": rng.normal(size=(epochs + 1, *shape)).astype(np.float32)
        for name, shape in shapes.items()
    }


@pytest.fixture
def mixture(make_record):
    """A record of one layer on the blobs, with snapshots at the start and after two epochs."""

    def make(values=None, seed=3, **settings):
        values = snapshots() if values is None else values
        return make_record(
            "KUMAR", seed, snapshots=values, dataset="own_runs:blobs", widths=(C,), **settings
        )

    return make


def test_sampling_errors_fall_with_the_root_of_the_neurons(mixture):
    neurons = [20, 200, 2000]
    errors = analysis.sampling_errors(mixture(), -1, neurons, 8)
    assert errors.shape == (3, 8)
    assert len(np.unique(errors)) == 24  # every repetition draws anew
    assert analysis.fitted_slope(neurons, errors) == pytest.approx(-0.5, abs=0.1)


@pytest.mark.parametrize("standardize", ["image", "dataset"])
@pytest.mark.parametrize(
    ("most", "counts", "parts"),
    [
        (10_000, [2, 10], [[2], [10]]),
        (10, [8, 10, 12], [[8], [10], [10, 2]]),
        (5, [10, 4, 8], [[4, 4, 2], [4], [4, 4]]),  # 5 is no multiple of the components
        (1, [6], [[2, 2, 2]]),  # never fewer than one of each
    ],
)
def test_parts_count_by_their_neurons(most, counts, parts, standardize, mixture, monkeypatch):
    record = mixture(standardize=standardize)
    monkeypatch.setattr(closed_form, "_MAX_NEURONS", most)
    sizes = []

    def spy(layer, size, **kwargs):
        sizes.append(size)
        return draw_neurons(layer, size, **kwargs)

    monkeypatch.setattr(closed_form, "draw_neurons", spy)
    errors = analysis.sampling_errors(record, 1, counts, 2)
    assert sizes == [size for own in parts for _ in range(2) for size in own]

    # The same neurons in one network, of which the output is their mean.
    config = record.config
    x = datasets.load(config.dataset, standardize).x_test
    mu, sigma, U, v = (
        torch.from_numpy(record.snapshots[f"0.{name}"][1]) for name in ("mu", "sigma", "U", "v")
    )
    exact = gm_layer(x, mu, sigma, U, v)
    generator = generator_of(3, "neurons")
    for row, own in zip(errors, parts, strict=True):
        for error in row:
            beta, omega = [], []
            for size in own:
                noise = torch.empty(K, size // K, D).normal_(generator=generator)
                directions = mu[:, None] + sigma[:, None] * noise
                readouts = torch.einsum("kcd,kjd->kjc", U, directions) + v[:, None]
                beta += [directions.flatten(0, 1)]
                omega += [readouts.flatten(0, 1)]
            network = NeuronLayer(torch.cat(beta), torch.cat(omega))
            with torch.no_grad():
                expected = (network(x) - exact).norm() / exact.norm()
            assert error == pytest.approx(expected.item(), rel=1e-4)


def test_parts_are_as_good_as_the_whole(mixture, monkeypatch):
    whole = analysis.sampling_errors(mixture(), 0, [4000], 8)
    monkeypatch.setattr(closed_form, "_MAX_NEURONS", 300)
    parts = analysis.sampling_errors(mixture(), 0, [4000], 8)
    assert np.median(parts) == pytest.approx(np.median(whole), rel=0.3)


@pytest.mark.parametrize(("epoch", "index"), [(0, 0), (1, 1), (2, 2), (-1, 2)])
def test_the_mixture_is_that_of_the_epoch(epoch, index, mixture):
    values = snapshots()
    found = analysis.sampling_errors(mixture(values), epoch, [6, 30], 2)
    alone = {name: value[index : index + 1] for name, value in values.items()}
    expected = analysis.sampling_errors(mixture(alone), 0, [6, 30], 2)
    np.testing.assert_array_equal(found, expected)
    for other in {0, 1, 2} - {index}:
        assert (analysis.sampling_errors(mixture(values), other, [6, 30], 2) != found).all()


def test_the_seed_of_the_run_decides_the_neurons(mixture):
    first = analysis.sampling_errors(mixture(), 0, [10], 3)
    with torch.random.fork_rng():
        torch.manual_seed(99)
        state = torch.get_rng_state()
        np.testing.assert_array_equal(analysis.sampling_errors(mixture(), 0, [10], 3), first)
        assert torch.equal(torch.get_rng_state(), state)
    assert (analysis.sampling_errors(mixture(seed=4), 0, [10], 3) != first).all()


def test_neurons_of_a_run_as_it_is_recorded(tiny):
    record = train(tiny("KUMAR", widths=(3,), snapshots=True))
    start, end = (analysis.sampling_errors(record, epoch, [50, 5000], 4) for epoch in (0, -1))
    for errors in (start, end):
        assert np.median(errors[1]) < 0.3 * np.median(errors[0])
    assert (start != end).all()


@pytest.mark.parametrize("kind", ["none", "two layers", "the second alone", "neurons", "dense"])
def test_records_without_snapshots_of_one_layer_are_refused(kind, mixture, make_record):
    two = snapshots() | snapshots(prefix="1")
    values = {
        "two layers": two,
        "the second alone": snapshots(prefix="1"),
        "neurons": {"0.beta": np.zeros((3, 8, D)), "0.omega": np.zeros((3, 8, C))},
        "dense": {"0.weight": np.zeros((3, C, D)), "0.bias": np.zeros((3, C))},
    }
    record = make_record("BL") if kind == "none" else mixture(values[kind])
    sentence = "has no snapshots of a single GM layer (mu, sigma, U, v)"
    with pytest.raises(
        ValueError, match=f"^the record of {record.config.run_id} {re.escape(sentence)}$"
    ):
        analysis.sampling_errors(record, 0, [10], 1)


@pytest.mark.parametrize("count", [0, -2, 1, 7, 10_001])
def test_numbers_of_neurons_are_multiples_of_the_components(count, mixture, monkeypatch):
    monkeypatch.setattr(closed_form, "draw_neurons", None)  # refused before anything is drawn
    sentence = f"^neurons must be positive multiples of the 2 components, got {count}$"
    with pytest.raises(ValueError, match=sentence):
        analysis.sampling_errors(mixture(), 0, [10, count], 1)


def test_samples_do_not_repeat_the_draws_of_the_parameters(tiny, monkeypatch):
    """From one seed, the first neurons would be the component means once more, scaled."""
    seeds = []

    def drawn(*arguments, generator, **keywords):
        seeds.append(generator.initial_seed())
        return draw(*arguments, generator=generator, **keywords)

    draw = closed_form.gm_layer_monte_carlo
    monkeypatch.setattr(closed_form, "gm_layer_monte_carlo", drawn)
    config = tiny("KUMAR", seed=7)
    analysis.monte_carlo_errors(config, [2], 1)
    draw = closed_form.draw_neurons
    monkeypatch.setattr(closed_form, "draw_neurons", drawn)
    analysis.sampling_errors(train(tiny("KUMAR", seed=7, widths=[3], snapshots=True)), 0, [4], 1)
    assert len(seeds) == 2
    assert 7 not in seeds
