"""The note's statements: their file, the verdicts, and what they come to on records made by hand
and on those of the project."""

import inspect
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from gmlib.study.claims import verdicts as claims
from gmlib.study.claims.metrics import METRICS, Ratio
from gmlib.study.claims.verdicts import Claim
from gmlib.study.plan.studies import STUDIES
from gmlib.study.runs.ledger import Ledger

ROOT = Path(__file__).parents[3]
EPOCH = 938


@pytest.fixture
def record(make_record):
    def make(arm, seed, errors, **settings):
        """Errors in percent: at the start, at the first epochs' ends, and then the last."""
        errors = [*errors, *[errors[-1]] * (20 - len(errors))]
        fractions = [0.9, *(error / 100 for error in errors)]
        steps = [EPOCH * epoch for epoch in range(21)]
        return make_record(arm, seed, fractions, steps=steps, epochs=20, **settings)

    return make


@pytest.fixture
def agreeing(record):
    """Two seeds an arm that do just what the note says."""
    fall = [55, 30, 20, 15, 12, 11, 10.5, 9.8]
    return [
        *(record("FC", seed, [4, 3.4, 2.0]) for seed in (0, 1)),
        record("BL", 0, [50, *fall[1:], 5.85, 5.85]),
        record("BL", 1, [60, *fall[1:], 5.80, 5.80]),
        record("KUMAR", 0, [9.4, 5, 5.2, 5.2, 5.2, 5.2, 4.9, 4.2, 4.3]),
        record("KUMAR", 1, [9.6, 5, 5.2, 5.2, 5.2, 5.2, 4.9, 4.2, 4.3]),
    ]


def verdicts(table):
    return dict(table.verdict.str.replace("\N{NO-BREAK SPACE}", " "))


def test_dynamics_agree(agreeing):
    found = verdicts(claims.table("dynamics", agreeing))
    worst = found.pop("BL after the first epoch, worst seed")
    assert worst == "does not hold: 15.0 points below"
    assert set(found.values()) == {"holds"}


def test_dynamics_disagree(record):
    runs = [
        record("FC", 0, [4, 3, 8]),
        record("FC", 1, [4, 3, 8]),
        record("BL", 0, [20, 10, 7]),
        record("BL", 1, [90.2], losses=[50, *[math.nan] * 20]),
        record("KUMAR", 0, [12, 7, 6]),
        record("KUMAR", 1, [15, 7, 6]),
    ]
    found = verdicts(claims.table("dynamics", runs))
    # Without the one that diverged.
    assert found["BL after the first epoch"] == "does not hold: 30.0 points below"
    assert found["seeds of BL that diverge"] == "does not hold: 1 above"
    assert found["epochs at whose end FC is below both"] == "does not hold"  # at 2 of 20 it is
    assert found["KUMAR after the first epoch"] == "does not hold: 3.5 points above"
    spread = "spread over seeds after the first epoch: KUMAR's against BL's"
    assert found[spread] == "cannot be judged"


def test_thresholds(agreeing):
    table = claims.table("thresholds", agreeing)
    off = {name: verdict for name, verdict in verdicts(table).items() if verdict != "holds"}
    # 938 steps are the first epoch, and 1876 the second.
    assert off == {
        "KUMAR to 10 %, at epochs' ends": "does not hold: 62 steps below",
        "KUMAR to 10 %, at all evaluations": "does not hold: 62 steps below",
        "KUMAR to 5 %": "does not hold: 4,124 steps below",
    }
    assert table.ours["BL to 10 %"].replace("\N{NO-BREAK SPACE}", " ").startswith("7,504 steps")


def test_thresholds_disagree(record):
    runs = [record("FC", 0, [4]), record("BL", 0, [9, 4.9]), record("KUMAR", 0, [9, 6])]
    found = verdicts(claims.table("thresholds", runs))
    for arm in ("KUMAR", "BL"):  # all seeds, and none
        assert found[f"seeds of {arm} that reach 5 %"] == "does not hold"
    assert found["seeds of FC that reach 3.5 %"] == "does not hold"
    assert found["KUMAR to 5 %"] == "cannot be judged"


def test_endpoints(agreeing, record):
    found = verdicts(claims.table("endpoints", agreeing))
    assert found["BL, best"] == "holds in part: 0.03 points below"  # of 5.85 and 5.80
    assert found["KUMAR, final"] == "does not hold: 0.4 points below"
    assert found["pairs in which KUMAR's best is below BL's"] == "holds"
    assert found["seeds of FC whose final is below all of KUMAR's"] == "holds"
    worse = [record("KUMAR", 0, [9, 8]), record("BL", 0, [9, 7])]
    found = verdicts(claims.table("endpoints", worse))
    assert found["pairs in which KUMAR's final is below BL's"] == "does not hold"


@pytest.fixture
def layer(make_record):
    def make(arm, error, step, **settings):
        rng = np.random.default_rng(0)
        mu = rng.normal(size=(1, 5, 8)) + step * np.arange(2)[:, None, None] * rng.normal(size=8)
        return make_record(
            arm,
            0,
            [0.9, error],
            steps=[0, 20 * EPOCH],
            snapshots={"0.mu": mu.astype("f4"), "0.sigma": np.ones((2, 5, 8), dtype="f4")},
            **{"epochs": 20, "widths": (10,), "num_components": 5, **settings},
        )

    return make


def test_propagation(layer):
    found = verdicts(
        claims.table("propagation", [layer("BL", 0.0668, 0.1), layer("KUMAR", 0.07, 1.0)])
    )
    assert found["BL, final error"] == "holds"
    assert found["KUMAR, final error"] == "holds in part: 0.51 points above"  # by less than a tenth
    assert found["BL's final error less KUMAR's"] == "does not hold: 0.51 points below"
    moves = "in the plane drawn, distance from start to end: KUMAR's against BL's"
    assert found[moves] == "holds"
    swapped = claims.table("propagation", [layer("BL", 0.0668, 1.0), layer("KUMAR", 0.07, 0.1)])
    assert verdicts(swapped)[moves] == "does not hold"


@pytest.fixture
def screened(make_record):
    def make(arm, seed, errors, dataset="mnist", **settings):
        """Errors in percent at the first epochs' ends, and then the last for the rest of thirty."""
        errors = [90, *errors, *[errors[-1]] * (30 - len(errors))]
        settings = {"epochs": 30, "num_components": 20, "widths": (10,), **settings}
        fractions = [error / 100 for error in errors]
        return make_record(arm, seed, fractions, dataset=dataset, **settings)

    return make


def test_screen(screened):
    records = [
        screened(arm, seed, [start, 20, 4 + seed / 10 - (arm == "KUMAR")], dataset)
        for dataset in ("mnist", "fashion-mnist")
        for arm, start in {"BL": 60, "KUMAR": 30}.items()
        for seed in range(5, 15)
    ]
    table = claims.table("init_screen", records)
    assert len(table) == 8
    assert set(table.verdict) == {"holds"}
    wins = table[table.note == "10 of 10"]
    assert wins.ours.tolist() == ["10 of 10 pairs"] * 6
    assert table.ours["MNIST: seeds of BL that diverge"] == "0"


def test_screen_disagrees(screened):
    runs = [
        # KUMAR's best is lower, its last epochs and its mean are not; one pair lost.
        screened("KUMAR", 5, [3, 5]),
        screened("BL", 5, [4, 4]),
        screened("KUMAR", 6, [3, 3]),
        screened("BL", 6, [4, 4]),
        screened("KUMAR", 7, [9]),
        screened("BL", 7, [1], losses=[1, *[math.nan] * 30]),
        screened("KUMAR", 5, [9], "fashion-mnist"),
    ]
    found = verdicts(claims.table("init_screen", runs))
    assert found["MNIST, best: KUMAR lower"] == "holds"
    for name in ("smoothed final", "AUC"):
        assert found[f"MNIST, {name}: KUMAR lower"] == "does not hold"  # 1 of 2
    assert found["MNIST: seeds of BL that diverge"] == "does not hold: 1 above"
    others = [verdict for name, verdict in found.items() if name.startswith("Fashion")]
    assert others == ["not measured"] * 4


@pytest.mark.parametrize("settings", [{"dataset": "own:images"}, {"epochs": 29}, {"widths": (9,)}])
def test_other_screens_are_not_held_against_the_note(settings, screened):
    records = [screened("KUMAR", 5, [4]), screened("BL", 5, [4], **settings)]
    assert claims.table("init_screen", records) == "The note has no figures for these settings."


PAGES = ["dynamics", "thresholds", "endpoints", "index"]


@pytest.mark.parametrize("page", PAGES)
def test_what_was_not_run_is_not_measured(page, record):
    found = claims.table(page, [record("FC", 0, [4.0])]).verdict
    assert (found == "not measured").sum() >= len(found) - 1
    assert (claims.table(page, []).verdict == "not measured").all()


@pytest.mark.parametrize(
    "settings",
    [
        *({"dataset": "fashion-mnist"}, {"num_components": 3}, {"widths": (50, 10)}),
        *({"gamma": 0.1}, {"standardize": "dataset"}, {"batch_size": 32}),
    ],
)
@pytest.mark.parametrize("page", PAGES)
def test_other_settings_are_not_held_against_the_note(page, settings, make_record):
    record = make_record("BL", epochs=20, **settings)
    assert claims.table(page, [record]) == "The note has no figures for these settings."


def test_settings_that_an_arm_does_not_use_do_not_count(record):
    assert not isinstance(claims.table("dynamics", [record("FC", 0, [4], gamma=0.1)]), str)


def test_the_index_shows_some_of_what_the_chapters_show(agreeing):
    chosen = claims.table("index", agreeing)
    chapters = [claims.table(page, agreeing) for page in PAGES[:3]]
    assert len(chosen) == 10
    for quantity, row in chosen.iterrows():
        (found,) = [table.loc[quantity] for table in chapters if quantity in table.index]
        assert found.equals(row)


# --- The file ------------------------------------------------------------------------------------


@pytest.fixture(params=claims.load(), ids=lambda claim: claim.id)
def claim(request):
    return request.param


def test_metrics_take_what_the_file_gives_them(claim):
    if claim.metric:
        signature = inspect.signature(METRICS[claim.metric].function)
        signature.bind(*claim.arms, **claim.parameters)
        assert bool(claim.study) == bool(claim.arms)
        arms = {config.arm for config in STUDIES.get(claim.study, [])}
        assert set(claim.arms) <= arms


def test_claims_lead_to_chapters_that_are_in_the_book(claim):
    contents = (ROOT / "_toc.yml").read_text()
    assert f"file: notebooks/{claim.chapter}\n" in contents
    for page in claim.tables:
        path = ROOT / ("book/index.md" if page == "index" else f"notebooks/{page}.ipynb")
        source = path.read_text().replace('\\"', '"')
        assert f'claims.table("{page}", records)' in source


def test_no_measurement_is_typed(claim):
    assert not re.search(r"\d[.,]\d|\d points|\d ?%(?<!5 %)", claim.comment + claim.why)


def test_the_page_shows_every_section():
    cells = json.loads((ROOT / "notebooks/claims.ipynb").read_text())["cells"]
    shown = "\n".join("".join(cell["source"]) for cell in cells)
    sections = list(dict.fromkeys(claim.section for claim in claims.load()))
    found = re.findall(r'claims.statements\(reviewed, "([^"]+)"\)', shown.replace("\n    ", " "))
    assert found == sections


def test_every_metric_is_used():
    assert {claim.metric for claim in claims.load() if claim.metric} == set(METRICS)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, "needs a metric, or else a reason"),
        ({"metric": "error", "why": "so"}, "needs a metric, or else a reason"),
        ({"metric": "luck"}, "'one': there is no metric 'luck'"),
        ({"metric": "error", "study": "stars"}, "'one': there is no study 'stars'"),
        ({"why": "so", "colour": "red"}, "'one': .*colour"),
    ],
)
def test_entries_that_say_too_little_or_too_much(entry, message):
    entry = {"id": "one", "section": "s", "where": "1", "quote": "q", "quantity": "n", **entry}
    with pytest.raises(ValueError, match=message):
        claims._claim(entry)


# --- Verdicts ------------------------------------------------------------------------------------


def claim_of(note, digits=1, unit="%", metric="error"):
    return Claim("id", "s", "1", "quote", "q", note, metric, unit=unit, digits=digits)


@pytest.mark.parametrize(
    ("note", "ours", "digits", "verdict"),
    [
        # The mean decides, to the digit that is shown.
        ((9, 10), [9.5], 1, "holds"),
        ((9, 10), [8.0, 11.0], 1, "holds"),
        ((9, 10), [10.04], 1, "holds"),
        ((9, 10), [8.96], 1, "holds"),
        ((9, 10), [10.4], 0, "holds"),
        ((4.2, 4.2), [4.2], 1, "holds"),
        ((4.2, 4.2), [4.24], 1, "holds"),
        ((9, math.inf), [1e6], 1, "holds"),
        ((-math.inf, 0), [-3.0, -1.0], 1, "holds"),
        # Else it says how far off, and whether some seed comes near.
        ((9, 10), [9.9, 10.9], 1, "holds in part: 0.4 points above"),
        ((9, 10), [10.0, 20.0], 1, "holds in part: 5.0 points above"),
        ((9, 10), [1.0, 9.0], 1, "holds in part: 4.0 points below"),
        # To either side, none inside.
        ((9, 10), [1.0, 11.0], 1, "holds in part: 3.0 points below"),
        # Or only how far off.
        ((9, 10), [10.1, 20.1], 1, "does not hold: 5.1 points above"),
        ((9, 10), [1.0, 8.0], 1, "does not hold: 4.5 points below"),
        # A single value has no range, so a tenth of the note's figure stands in for it.
        ((9, 10), [10.06], 1, "holds in part: 0.1 points above"),
        ((9, 10), [8.94], 1, "holds in part: 0.1 points below"),
        ((4.25, 4.25), [4.26], 2, "holds in part: 0.01 points above"),
        ((9, 10), [11.0], 1, "holds in part: 1.0 points above"),
        ((9, 10), [11.1], 1, "does not hold: 1.1 points above"),
        ((9, 10), [8.0], 1, "does not hold: 1.0 points below"),
        ((1000, 1000), [3000.0], 0, "does not hold: 2,000 points above"),
        # What is not finite does not count.
        ((9, 10), [math.nan, 9.5, math.inf], 1, "holds"),
        ((9, 10), [math.nan], 1, "cannot be judged"),
        ((9, 10), [], 1, "cannot be judged"),
        ((0, 0), [0.0, 0.0], 0, "holds"),
    ],
)
def test_verdicts_on_figures(note, ours, digits, verdict):
    found = claims.judge(claim_of(note, digits), np.array(ours))
    assert ": ".join(filter(None, [found.verdict, found.off])) == verdict


@pytest.mark.parametrize(
    ("note", "ours", "expected"),
    [
        (True, [True, True], ("all", "2 of 2 seeds", "holds")),
        (True, [True, True, False], ("all", "2 of 3 seeds", "holds in part")),
        (True, [True, False], ("all", "1 of 2 seeds", "does not hold")),
        (True, [False, False], ("all", "0 of 2 seeds", "does not hold")),
        (False, [False, False], ("none", "0 of 2 seeds", "holds")),
        (False, [False, True, False], ("none", "1 of 3 seeds", "holds in part")),
        (False, [True], ("none", "1 of 1 seeds", "does not hold")),
        (True, [], ("all", "not measured", "cannot be judged")),
    ],
)
def test_verdicts_on_statements_about_each(note, ours, expected):
    claim = claim_of(note, metric="reaches")
    found = claims.judge(claim, np.array(ours, dtype=bool))
    assert (claim.stated_text, found.measured, found.verdict) == expected


@pytest.mark.parametrize(
    ("note", "ours", "expected"),
    [
        (True, True, ("yes", "yes", "holds")),
        (True, False, ("yes", "no", "does not hold")),
        (True, np.True_, ("yes", "yes", "holds")),
        (True, np.False_, ("yes", "no", "does not hold")),
        (False, False, ("no", "no", "holds")),
        (False, True, ("no", "yes", "does not hold")),
        (True, None, ("yes", "not measured", "cannot be judged")),
    ],
)
def test_verdicts_on_statements(note, ours, expected):
    claim = claim_of(note, metric="on_the_front")
    found = claims.judge(claim, ours)
    assert (claim.stated_text, found.measured, found.verdict) == expected


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [
        (Ratio(1.0, 4.0, 0.1, 0.9), "holds"),
        (Ratio(1.0, 4.0), "holds"),  # there is no interval
        (Ratio(1.0, 4.0, 0.1, 1.1), "holds in part"),
        (Ratio(5.0, 4.0, 0.9, 1.9), "does not hold"),
        (Ratio(5.0, 4.0), "does not hold"),
        (Ratio(math.nan, 4.0), "cannot be judged"),
    ],
)
def test_verdicts_on_comparisons(ratio, verdict):
    assert claims.judge(claim_of((0, 1), metric="spread"), ratio).verdict == verdict


def test_a_comparison_shows_both_numbers():
    found = claims.judge(claim_of((0, 1), 2, " points", "spread"), Ratio(1.0, 4.0, 0.0512, 0.91))
    assert found.measured == "1.00 against 4.00 points: ratio 0.25"
    assert found.interval == "0.051 to 0.91"


@pytest.mark.parametrize(
    ("claim", "ours", "note", "text", "interval"),
    [
        # Student's t with one degree of freedom: 12.706 standard errors.
        (claim_of((9, 10)), [9.4, 9.5], "9.0 to 10.0%", "9.4% (9.4 to 9.5)", "8.8 to 10.1"),
        (claim_of((5.85, 5.85), 2), [6.0], "5.85%", "6.00%", ""),
        (claim_of((5.85, 5.85), 2), [6.0, 6.0], "5.85%", "6.00%", ""),
        (claim_of((1000, 2000), 0, ""), [1234.5], "1,000 to 2,000", "1,234", ""),
        (claim_of((9, 10)), [math.nan], "9.0 to 10.0%", "not measured", ""),
        # Components are no sample.
        (claim_of((9, 10), 0, "", "growth"), [9.0, 10.0], "9 to 10", "10 (9 to 10)", ""),
    ],
)
def test_figures_are_written_with_their_unit_and_digits(claim, ours, note, text, interval):
    found = claims.judge(claim, np.array(ours))
    assert (claim.stated_text, found.measured, found.interval) == (note, text, interval)


def test_intervals():
    five = claims.judge(claim_of(True, metric="reaches"), np.ones(5, dtype=bool))
    assert five.interval == "48 to 100 %"  # 0.025 ** (1 / 5)
    values = np.array([1.0, 2.0, 4.0])
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    found = claims.judge(claim_of((2, 2), 3), values)
    assert found.interval == f"{low:.3f} to {high:.3f}".replace("-", "−")


# --- Metrics -------------------------------------------------------------------------------------


def measure(name, *runs, **parameters):
    return METRICS[name].function(*runs, **parameters)


def test_spread_is_the_f_interval(record):
    narrow = [record("KUMAR", seed, [error]) for seed, error in enumerate([4.0, 5.0, 6.0])]
    wide = [record("BL", seed, [error]) for seed, error in enumerate([2.0, 6.0])]
    found = measure("spread", narrow, wide, measure="final")
    assert (found.first, found.second) == (pytest.approx(1.0), pytest.approx(math.sqrt(8)))
    # By the other tail of the reciprocal.
    other = measure("spread", wide, narrow, measure="final")
    assert found.low == pytest.approx(1 / other.high)
    assert found.low**2 == pytest.approx(1 / 8 / stats.f.ppf(0.975, 2, 1))


def test_sooner_leaves_out_pairs_that_diverged_but_not_those_that_never_arrive(record):
    fast = [record("KUMAR", seed, [20, 9]) for seed in range(4)]
    slow = [
        record("BL", 0, [20, 15, 9]),
        record("BL", 1, [20]),  # never
        record("BL", 2, [8]),
        record("BL", 3, [9], losses=[1, *[math.nan] * 20]),
    ]
    assert measure("sooner", fast, slow, threshold=10).tolist() == [True, True, False]
    assert measure("speed_up", fast, slow[:3], threshold=10).tolist() == [1.5, 0.5]


def test_how_long_the_loss_is_above_guessing(record):
    slow = record("BL", 0, [50], losses=[50, 2, 50, *[1] * 18])  # falls back once
    fast = record("KUMAR", 0, [50], losses=[2.4, *[1] * 20])
    assert measure("longer_above_guessing", [slow], [fast]).tolist() == [True]
    assert measure("longer_above_guessing", [fast], [slow]).tolist() == [False]


def test_lower_by_all_measures(record):
    runs = [record("KUMAR", 0, [9, 3, 5]), record("KUMAR", 1, [9, 3])]
    others = [record("BL", 0, [9, 4]), record("BL", 1, [9, 4])]
    assert measure("lower", runs, others, measures=["best"]).tolist() == [True, True]
    assert measure("lower", runs, others, measures=["best", "final"]).tolist() == [False, True]
    assert measure("error_difference", runs, others, measure="final") == pytest.approx([-1, 1])


@pytest.fixture
def moving(make_record):
    """A run whose means lie on given paths of a plane, shape (T, K, 2), of unit variances."""

    def make(arm, paths, sigma=None):
        paths = np.asarray(paths, dtype="f4")
        sigma = np.ones_like(paths) if sigma is None else np.asarray(sigma, dtype="f4")
        epochs = len(paths) - 1
        return make_record(
            arm,
            0,
            [0.5] * (epochs + 1),
            snapshots={"0.mu": paths, "0.sigma": sigma},
            widths=(10,),
            num_components=paths.shape[1],
        )

    return make


def test_motion_by_hand(moving):
    # One component goes 3 right and then 1 up, the other 4 left and stays.
    run = moving("BL", [[[1, 0], [-1, 0]], [[4, 0], [-5, 0]], [[4, 1], [-5, 0]]])
    far = moving("KUMAR", [[[1, 0], [-1, 0]], [[11, 0], [-11, 0]], [[11, 0], [-11, 0]]])
    for space, factor in {"all": 1.0, "plane": 1.0, "relative": math.sqrt(2)}.items():
        found = measure("displacement_per_epoch", [far], [run], space=space)
        assert found.first == pytest.approx(5.0 / factor, rel=1e-6)
        assert found.second == pytest.approx((3.5 + 0.5) / 2 / factor, rel=1e-6)
        found = measure("first_displacement", [far], [run], space=space)
        assert found.value == pytest.approx(10 / 3.5)
        found = measure("first_against_later_displacement", [run], space=space)
        assert found.value == pytest.approx(7.0)
        moved = measure("displacement", [run], space=space)
        assert moved == pytest.approx([math.sqrt(10) / factor, 4 / factor])
    found = measure("net_displacement", [far], [run])
    assert found.value == pytest.approx(20 / (math.sqrt(10) + 4))
    assert measure("moves_out", [run], epoch=1).tolist() == [True, True]
    assert measure("moves_out", [run], epoch=9) is None
    assert measure("initial_radius", [far]) == pytest.approx([1 / 11, 1 / 11])
    # Their directions are 180 degrees less the angle of 1 in 3 apart.
    angle = 180 - math.degrees(math.atan2(1, 3))
    assert measure("apart", [run], degrees=angle - 0.01).tolist() == [True]
    assert measure("apart", [run], degrees=angle + 0.01).tolist() == [False]


def test_ellipses_by_hand(moving):
    paths = np.broadcast_to([[2.0, 0.0], [-2.0, 0.0]], (3, 2, 2))
    # Circles become ellipses along the first axis; then one of them turns to the second.
    sigma = [[[1, 1], [1, 1]], [[4, 1], [4, 1]], [[4, 1], [1, 9]]]
    run = moving("KUMAR", paths, sigma)
    assert measure("growth", [run]) == pytest.approx([2.0, 3.0])
    assert measure("rotates", [run], degrees=10).tolist() == [False, True]
    twice = moving("BL", paths, 2 * np.ones((3, 2, 2)))
    assert measure("initial_size", [twice], [run]).value == pytest.approx(2.0)


@pytest.mark.parametrize(("gm_error", "on_it"), [(0.10, True), (0.30, False)])
def test_the_front(gm_error, on_it, make_record):
    settings = {"num_components": 1, "epochs": 2}
    small = make_record("FC", 0, [0.9, 0.2, 0.2], widths=(10,), **settings)  # the cheapest
    large = make_record("FC", 0, [0.9, 0.15, 0.15], widths=(100, 10), **settings)
    layer = make_record("KUMAR", 0, [0.9, gm_error, gm_error], widths=(10,), **settings)
    assert measure("on_the_front", [small, large], [layer], num_features=784) is on_it


# --- The records of the project ------------------------------------------------------------------


@pytest.fixture(scope="module")
def reviewed():
    return claims.review()


def test_a_verdict_on_every_statement(reviewed):
    assert reviewed.index.tolist() == [claim.id for claim in claims.load()]
    assert set(reviewed.verdict) <= set(claims.VERDICTS)
    unjudged = reviewed.verdict == "cannot be judged"
    assert (reviewed.remark[unjudged] != "").all()
    text = claims.summary(reviewed)
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    assert numbers[0] == sum(numbers[1:]) == len(reviewed)
    assert claims.by_section(reviewed).to_numpy().sum() == len(reviewed)


def test_the_chapters_show_the_same_verdicts(reviewed):
    records = [Ledger().get(config) for config in STUDIES["main study"]]
    for page in PAGES:
        for quantity, row in claims.table(page, records).iterrows():
            name = quantity.replace(" %", "\N{NO-BREAK SPACE}%")
            same = reviewed[(reviewed.quantity == name) & (reviewed.note == row.note)]
            assert same.measured.tolist() == [row.ours]
            assert row.verdict.startswith(same.verdict.tolist()[0])


def test_every_section_is_a_table_with_links_that_lead_somewhere(reviewed):
    for section in reviewed.section.unique():
        header, rule, *rows = claims.statements(reviewed, section).splitlines()
        assert len(rows) == (reviewed.section == section).sum()
        assert {line.replace("\\|", "").count("|") for line in (header, rule, *rows)} == {5}
        for row in rows:
            (name,) = re.findall(r"\]\((\w+\.ipynb)\)", row)
            assert (ROOT / "notebooks" / name).exists()


def test_a_deleted_record_leaves_the_statements_that_need_it_unmeasured(reviewed, tmp_path):
    study = "main study"
    ledger = shutil.copytree(Ledger().folder, tmp_path / "ledger")
    lost = next(config for config in reversed(STUDIES[study]) if config in Ledger(ledger))
    Ledger(ledger).path(lost).unlink()
    found = claims.review(ledger)
    needed = {
        claim.id
        for claim in claims.load()
        if lost.arm in claim.arms and lost in STUDIES[claim.study]
    }
    assert needed
    assert (found.verdict[list(needed)] == "not measured").all()
    assert found.remark[list(needed)].str.contains("missing").all()
    others = [name for name in reviewed.index if name not in needed]
    assert found.loc[others].equals(reviewed.loc[others])
    assert not Ledger(ledger).path(lost).exists()  # nothing was trained


def test_an_empty_ledger_breaks_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("GMLIB_RESULTS", str(tmp_path / "none"))
    found = claims.review()
    needed = [claim.id for claim in claims.load() if claim.study]
    assert (found.verdict[needed] == "not measured").all()
    assert "are not measured" in claims.summary(found)
    for section in found.section.unique():
        assert "| the note says |" in claims.statements(found, section)
    assert claims.details(found, "does not hold") == "None."
    assert not (tmp_path / "none").exists()
