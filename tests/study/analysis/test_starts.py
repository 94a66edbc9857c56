"""Networks at their start: what they give out, and their first step."""

import math

import numpy as np
import pandas as pd
import pytest

from gmlib.study import analysis, datasets
from gmlib.study.runs.training import build_network


def test_calibration_multiplies_the_function_by_a_constant(tiny):
    config = tiny()
    settings = {
        name: getattr(config, name)
        for name in ("dataset", "widths", "num_components", "calibration_size")
    }
    numbers = analysis.invariance_table(analysis.calibration_invariance([0, 1], **settings)).numbers
    assert numbers.seed.tolist() == [0, 1]
    assert numbers.agreement.tolist() == [1.0, 1.0]
    assert (numbers.deviation < 1e-4).all()
    assert (numbers.ratio > 0.1).all()


def test_invariance_as_it_is_read():
    rows = [(3, 178.9, 9e-5, 1.0), (4, 0.25, 0.02, 0.98765)]
    invariance = pd.DataFrame(rows, columns=["seed", "ratio", "deviation", "agreement"])
    assert list(analysis.invariance_table(invariance).text.itertuples(name=None)) == [
        (3, "179", "below 1e-4", "100.0%"),
        (4, "0.25", "2e-02", "98.8%"),
    ]


def test_first_steps_are_medians_over_seeds_with_an_arm_a_column():
    steps = pd.DataFrame(
        [
            *(("mu", 1, "BL", seed, step) for seed, step in enumerate([0.5, 0.125, 0.25])),
            *(("mu", 1, "FC", 0, 0.011), ("U", 2, "BL", 0, 1.0), ("U", 2, "FC", 0, 7e-5)),
        ],
        columns=["parameter", "layer", "arm", "seed", "step"],
    )
    table = analysis.first_step_table(steps)
    assert list(table.numbers) == ["parameter", "layer", "arm", "step"]
    assert table.numbers.step.tolist() == [0.25, 0.011, 1.0, 7e-5]
    assert table.text.columns.name == "parameter"
    assert table.text.to_dict("index") == {
        "mu, layer 1": {"BL": "25 %", "FC": "1.1 %"},
        "U, layer 2": {"BL": "1e+02 %", "FC": "0.007 %"},
    }


def test_first_steps_of_networks(tiny):
    table = analysis.first_step_table(
        analysis.first_steps([tiny("BL", 0), tiny("BL", 1), tiny("KUMAR", 0)])
    )
    assert (table.numbers.step > 0).all()
    assert list(table.text.columns) == ["BL", "KUMAR"]
    assert table.text.index[0] == "mu, layer 1"
    assert len(table.text) == 8


def test_small_data_sets_calibrate_on_all_they_have(tiny):
    config = tiny("KUMAR", calibration_size=5000)
    _, report = build_network(config, datasets.load(config.dataset, config.standardize))
    assert report[-1].std_after == pytest.approx(0.5, rel=1e-5)
    assert math.isfinite(report[0].std_before)


def test_first_outputs_are_those_of_the_first_layer(tiny):
    configs = [tiny(arm, widths=(3,), epochs=0) for arm in ("BL", "KUMAR")]
    outputs = analysis.first_outputs(configs)
    assert list(outputs) == ["BL", "KUMAR"]
    dataset = datasets.load(configs[0].dataset)
    for config in configs:
        network, _ = build_network(config, dataset)
        expected = network(dataset.x_test[:256]).detach().numpy()
        np.testing.assert_array_equal(outputs[config.arm], expected)
