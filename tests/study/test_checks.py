"""What needs a network but no training."""

import math

import numpy as np
import pytest

from gmlib.study import checks, data
from gmlib.study.training import build_network


@pytest.fixture
def layer(tiny):
    return tiny("KUMAR", widths=(3,), epochs=0)


def test_monte_carlo_errors_fall_with_the_root_of_the_samples(layer):
    samples = [20, 200, 2000]
    errors = checks.monte_carlo_errors(layer, samples, 8)
    assert errors.shape == (3, 8)
    assert len(np.unique(errors)) == 24  # every repetition draws anew
    assert checks.fitted_slope(samples, errors) == pytest.approx(-0.5, abs=0.1)


def test_point_masses_are_the_limit(layer):
    errors = checks.point_mass_errors(layer, [0.1, 0.01, 0.0], 3)
    assert (errors[0] > 5 * errors[1]).all()
    assert errors[2] == pytest.approx(0.0, abs=1e-12)


def test_fitted_slope_of_a_power_law():
    x = np.array([1.0, 2.0, 5.0])
    assert checks.fitted_slope(x, 3.0 * x[:, None] ** -1.7) == pytest.approx(-1.7)


def test_calibration_multiplies_the_function_by_a_constant(tiny):
    config = tiny()
    settings = {
        name: getattr(config, name)
        for name in ("dataset", "widths", "num_components", "calibration_size")
    }
    table = checks.calibration_invariance([0, 1], **settings)
    assert list(table.index) == [0, 1]
    assert set(table["same prediction"]) == {"100.0%"}
    assert set(table["largest deviation"]) == {"below 1e-4"}
    assert all(float(ratio) > 0.1 for ratio in table["logits multiplied by"])


def test_first_step_table_has_an_arm_a_column(tiny):
    table = checks.first_step_table([tiny("BL", 0), tiny("BL", 1), tiny("KUMAR", 0)])
    assert list(table.columns) == ["BL", "KUMAR"]
    assert table.index[0] == "mu, layer 1"
    assert len(table) == 8


def test_the_dense_reference_has_no_gm_layer(tiny):
    with pytest.raises(ValueError, match="arm 'FC' has no GM layer"):
        checks.monte_carlo_errors(tiny("FC"), [1], 1)


def test_small_data_sets_calibrate_on_all_they_have(tiny):
    config = tiny("KUMAR", calibration_size=5000)
    _, report = build_network(config, data.load(config.dataset, config.standardize))
    assert report[-1].std_after == pytest.approx(0.5, rel=1e-5)
    assert math.isfinite(report[0].std_before)
