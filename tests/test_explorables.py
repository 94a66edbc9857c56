"""What the book's pages let readers play with: its formulas are gmlib's, and it can be handled."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gmlib.functional import gm_layer, relu_moments
from gmlib.init import output_std
from gmlib.study.analysis.propagation import Ellipses
from gmlib.study.figures import Player

SCRIPT = Path(__file__).parents[1] / "book/_static/explorables.js"


@pytest.fixture
def open_page(browser):
    """Open a page with a body and the script; nothing may be complained of."""
    contexts, complaints = [], []

    def open_(body="", **options):
        context = browser.new_context(offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        page.set_content(f"<style>{STYLE}</style>{body}")
        if options.get("java_script_enabled", True):
            page.add_script_tag(path=str(SCRIPT))
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not complaints


STYLE = (SCRIPT.parent / "book.css").read_text(encoding="utf-8")
CLOUD, LOGITS = (
    f'<div class="explorable" data-explorable="{name}"></div>' for name in ("cloud", "logits")
)


# --- The same numbers ----------------------------------------------------------------------------


def test_moments_are_those_of_gmlib(open_page):
    z = [-37.0, -10.0, -5.5, *np.linspace(-4, 4, 33).tolist(), 9.0, 30.0]
    grid = [[m * t, t] for m, t in itertools.product(z, [1e-6, 0.3, 1.0, 50.0])]
    grid += [[-1.0, 0.0], [0.0, 0.0], [2.0, 0.0]]
    found = open_page().evaluate(
        "grid => grid.map(([m, t]) => explorables.reluMoments(m, t))", grid
    )
    expected = torch.stack(relu_moments(*torch.tensor(grid, dtype=torch.float64).T), dim=1)
    # The square of z is rounded there, which costs up to z^2 units in the last place.
    torch.testing.assert_close(
        torch.tensor(found, dtype=torch.float64), expected, rtol=1e-12, atol=1e-300
    )


def test_the_layer_is_gmlibs(open_page):
    generator = torch.Generator().manual_seed(0)
    x, mu, sigma, U, v = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in [(6, 4), (3, 4), (3, 4), (3, 2, 4), (3, 2)]
    )
    arguments = [tensor.tolist() for tensor in (x, mu, sigma, U, v)]
    found = open_page().evaluate(
        "([x, mu, sigma, U, v]) => x.map(one => explorables.gmLayer(one, mu, sigma, U, v))",
        arguments,
    )
    expected = gm_layer(x, mu, sigma, U, v)
    torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), expected)


def test_the_predicted_scale_is_gmlibs(open_page):
    grid = list(itertools.product([0.01, 0.5, 2.0], [49, 784], [1, 10, 100], [49.0, 784.0]))
    found = open_page().evaluate("grid => grid.map(args => explorables.outputStd(...args))", grid)
    assert found == pytest.approx([output_std(*arguments) for arguments in grid], rel=1e-12)


@pytest.mark.parametrize(("d", "K", "gamma"), [(49, 1, 0.5), (49, 5, 0.02), (196, 10, 2.0)])
def test_the_histogram_is_of_a_real_layer(open_page, d, K, gamma):
    found, arguments, std = open_page().evaluate(
        """([d, K, gamma]) => {
          const start = new explorables.Start(d, K), out = start.logits(gamma);
          return [Array.from(out), start.parameters(gamma), explorables.deviation(out)];
        }""",
        [d, K, gamma],
    )
    tensors = {name: torch.tensor(value, dtype=torch.float64) for name, value in arguments.items()}
    assert tensors["x"].mean(1).abs().max() < 1e-12  # standardized, one by one
    torch.testing.assert_close(tensors["x"].square().mean(1), torch.ones(64, dtype=torch.float64))
    assert tensors["mu"].shape == (K, d)
    expected = gm_layer(**tensors)
    torch.testing.assert_close(
        torch.tensor(found, dtype=torch.float64).view(64, 10), expected, rtol=1e-9, atol=1e-12
    )
    assert std == pytest.approx(expected.std(correction=0).item())


def test_its_parameters_are_normal_and_independent(open_page):
    drawn = open_page().evaluate(
        """() => {
          const { mu, U, v } = new explorables.Start(784, 20).parameters(1);
          return [mu, U, v].map(own => own.flat(2));
        }"""
    )
    for values in drawn:
        values = np.array(values)
        assert abs(values.mean()) < 4 / np.sqrt(len(values))
        assert values.var() == pytest.approx(1, abs=6 / np.sqrt(len(values)))
        assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 4 / np.sqrt(len(values))
    mu, U = np.array(drawn[0]).reshape(20, 784), np.array(drawn[1]).reshape(200, 784)
    across = np.corrcoef(np.vstack([mu, U]))[~np.eye(220, dtype=bool)]
    assert np.abs(across).max() < 6 / np.sqrt(784)


# --- Handled -------------------------------------------------------------------------------------


def turn(page, label, value):
    page.get_by_label(label, exact=True).evaluate(
        "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }", value
    )


def values(page):
    return " ".join(page.locator(".values").all_inner_texts())


def test_the_cloud_shows_what_the_layer_computes(open_page):
    page = open_page(CLOUD)
    for label, value in {"σ₁": 0.7, "σ₂": 1.2, "u₁": -0.5, "u₂": 1.5, "v": 0.3}.items():
        turn(page, label, value)
    mean, x = (np.array([1.2, 0.9]), np.array([1.0, -1.2]))
    sigma, u = np.array([0.7, 1.2]), np.array([-0.5, 1.5])
    arguments = (x[None], mean[None], sigma[None], u[None, None], np.array([[0.3]]))
    expected = gm_layer(*(torch.tensor(value) for value in arguments)).item()
    F, G = relu_moments(*torch.tensor([mean @ x, np.linalg.norm(sigma * x)]))
    shown = values(page)
    assert f"h = {expected:.3f}".replace("-", "\N{MINUS SIGN}") in shown
    assert f"F = {F.item():.3f}" in shown
    assert f"G = {100 * G.item():.0f} %" in shown
    turn(page, "σ₁", 0)
    turn(page, "σ₂", 0)
    assert f"F = {max(mean @ x, 0):.3f}" in values(page)  # a ReLU again


def test_neurons_are_drawn_as_what_they_do(open_page):
    page = open_page(CLOUD)
    up = page.locator(".neuron.up").count()
    assert 0 < up < 80
    turn(page, "v", 2)
    assert up < page.locator(".neuron.up").count()
    for name in ("u₁", "u₂"):
        turn(page, name, 0)
    turn(page, "v", -1)
    assert page.locator(".neuron.down").count() == 80
    share = int(values(page).partition("G = ")[2].split()[0])
    assert page.locator(".neuron.on").count() / 80 == pytest.approx(share / 100, abs=0.15)


def test_nothing_fires_without_an_input(open_page):
    page = open_page(CLOUD)
    page.locator(".handle").nth(0).focus()
    for _ in range(10):
        page.keyboard.press("ArrowLeft")
    for _ in range(12):
        page.keyboard.press("ArrowUp")
    assert page.locator(".handle").nth(0).get_attribute("aria-valuetext") == "0.00, 0.00"
    assert "F = 0.000" in values(page)
    assert page.locator(".active").get_attribute("d") == ""
    assert page.locator(".neuron.on").count() == 0


def test_a_finger_moves_the_cloud_and_not_the_page(open_page):
    page = open_page(
        f"{CLOUD}<div style='height: 3000px'></div>",
        has_touch=True,
        is_mobile=True,
        viewport={"width": 390, "height": 700},
    )
    handle = page.locator(".handle").nth(1)
    box = handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch = page.context.new_cdp_session(page)
    touch.send(
        "Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]}
    )
    for step in range(1, 11):
        points = [{"x": x - 4 * step, "y": y + 6 * step}]
        touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": points})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    moved = handle.bounding_box()
    assert moved["x"] - box["x"] == pytest.approx(-40, abs=2)
    assert moved["y"] - box["y"] == pytest.approx(60, abs=2)
    assert page.evaluate("scrollY") == 0


def test_the_cloud_moves_by_keys_and_by_pointer(open_page):
    page = open_page(CLOUD)
    handle = page.locator(".handle").nth(1)
    assert handle.get_attribute("aria-valuetext") == "1.20, 0.90"
    handle.focus()
    for key in ("ArrowRight", "ArrowUp", "ArrowUp", "Shift+ArrowLeft"):
        page.keyboard.press(key)
    assert handle.get_attribute("aria-valuetext") == "0.80, 1.10"
    before = values(page)
    box = handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 40, y + 25, steps=4)
    page.mouse.up()
    assert values(page) != before
    for _ in range(40):
        page.keyboard.press("Shift+ArrowRight")  # it does not leave the picture
    assert float(handle.get_attribute("aria-valuenow")) < 4


def test_the_scale_of_the_logits_is_shown_beside_its_prediction(open_page):
    page = open_page(LOGITS)
    bl, fan_in = (page.get_by_role("button", name=name) for name in ("BL", "fan-in"))
    for button, gamma in ((bl, 0.5), (fan_in, (2 / 784) ** 0.5)):
        button.click()
        assert f"predicted: {output_std(gamma, 784, 10, 784):.2g}" in values(page)
    turn(page, "d", 0)  # fan-in follows d
    assert f"predicted: {output_std((2 / 49) ** 0.5, 49, 10, 49):.2g}" in values(page)
    assert [own.get_attribute("aria-pressed") for own in (bl, fan_in)] == ["false", "true"]
    turn(page, "γ", 0)  # and a scale of the reader's own is neither
    assert f"predicted: {output_std(1, 49, 10, 49):.2g}" in values(page)
    assert [own.get_attribute("aria-pressed") for own in (bl, fan_in)] == ["false", "false"]


def test_other_draws_have_another_scale_and_the_same_prediction(open_page):
    page = open_page(LOGITS)
    turn(page, "d", 0)
    shown = {values(page)}
    for _ in range(5):
        page.get_by_role("button", name="draw again").click()
        shown.add(values(page))
    assert len(shown) > 3
    assert len({text[text.index("predicted: ") :].split()[1] for text in shown}) == 1


@pytest.fixture
def clip():
    """Two arms, three epochs, two components."""
    centers = np.arange(12.0).reshape(3, 2, 2)
    axes, angles = np.full((3, 2, 2), [2.0, 1.0]), np.full((3, 2), 30.0)
    return Player(
        {"BL": Ellipses(centers, axes, angles), "KUMAR": Ellipses(centers / 10, axes, angles)},
        ["#c8322b", "#2f6db5"],
    )


def test_the_player_shows_an_epoch_at_a_time(open_page, clip):
    page = open_page(clip._repr_html_())
    first = page.locator("ellipse").first
    assert page.locator("svg").count() == 2
    assert page.locator("ellipse").count() == 4
    reach = (11 + 2 * 2) * 1.04  # the farthest center and two of its half axes
    for epoch, (x, y) in enumerate([(0, 1), (4, 5), (8, 9)]):
        turn(page, "epoch", epoch)
        assert float(first.get_attribute("cx")) == pytest.approx(180 * (1 + x / reach))
        assert float(first.get_attribute("cy")) == pytest.approx(180 * (1 - y / reach))
        assert float(first.get_attribute("rx")) == pytest.approx(180 * 4 / reach)
    kumar = page.locator("svg").nth(1).locator("ellipse").first
    small = float(kumar.get_attribute("rx"))
    page.get_by_label("each at its own scale").check()
    assert float(kumar.get_attribute("rx")) > 1.5 * small


def test_the_player_plays_to_the_end(open_page, clip):
    page = open_page(clip._repr_html_())
    button = page.get_by_role("button", name="play")
    button.click()
    page.wait_for_function("document.querySelector('output').textContent === '2'")
    page.wait_for_function("document.querySelector('button').textContent === 'play'")


def test_the_players_data_are_the_ellipses(clip):
    data = clip._repr_html_().partition(">")[2].partition(">")[2].partition("<")[0]
    panels = json.loads(data)["panels"]
    assert list(panels) == ["BL", "KUMAR"]
    np.testing.assert_array_equal(np.array(panels["BL"])[..., :2], clip.panels["BL"].centers)
    assert panels["BL"][0][0] == [0, 1, 2, 1, 30]
    assert repr(clip) == "Player(BL, KUMAR)"


@pytest.mark.parametrize("body", [CLOUD, LOGITS])
def test_without_scripts_it_takes_no_room(open_page, body):
    page = open_page(body, java_script_enabled=False)
    assert not page.locator(".explorable").is_visible()


@pytest.mark.parametrize("body", [CLOUD, LOGITS])
def test_it_fits_a_phone(open_page, body):
    page = open_page(body, viewport={"width": 390, "height": 800})
    assert page.locator(".explorable").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
