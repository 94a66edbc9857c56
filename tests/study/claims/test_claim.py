"""The note's statements in their file."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

from gmlib.study import claims
from gmlib.study.claims.claim import Claim, _claim
from gmlib.study.claims.metrics import METRICS
from gmlib.study.claims.results import COMPARISONS
from gmlib.study.plan.studies import STUDIES

ROOT = Path(__file__).parents[3]


@pytest.fixture(params=claims.load(), ids=lambda claim: claim.id)
def claim(request: pytest.FixtureRequest) -> Claim:
    return request.param


def test_metrics_take_what_the_file_gives_them(claim: Claim) -> None:
    if claim.metric:
        signature = inspect.signature(METRICS[claim.metric].function)
        if claim.compare:
            signature.bind(claim.arms[0], **claim.parameters)
            signature.bind(claim.arms[0], **{**claim.parameters, **claim.against})
            others = claim.arms[1:] or claim.arms
            inspect.signature(COMPARISONS[claim.compare]).bind(claim.arms[0], *others)
            assert claim.against or claim.arms[1:]
        else:
            signature.bind(*claim.arms, **claim.parameters)
            assert not claim.against
        assert bool(claim.study) == bool(claim.arms)
        arms = {config.arm for config in STUDIES.get(claim.study, [])}
        assert set(claim.arms) <= arms


def test_statements_on_the_start_or_without_gm_layers_are_the_same_in_all_coordinates() -> None:
    found = {claim.id: claim.depends_on_coordinates for claim in claims.load()}
    for name in ("bl-end", "fc-best-below", "kumar-grows"):
        assert found[name]
    for name in ("closed-form", "solves", "label-free", "bl-scale", "fc-reaches-3.5"):
        assert not found[name]


def test_claims_lead_to_chapters_that_are_in_the_book(claim: Claim) -> None:
    contents = (ROOT / "_toc.yml").read_text()
    assert f"file: notebooks/{claim.chapter}\n" in contents
    for page in claim.tables:
        path = ROOT / ("book/index.md" if page == "index" else f"notebooks/{page}.ipynb")
        source = path.read_text().replace('\\"', '"')
        assert re.search(rf'claims.table\("{page}", \S+', source)


def test_no_measurement_is_typed(claim: Claim) -> None:
    assert not re.search(r"\d[.,]\d|\d points|\d ?%(?<!5 %)", claim.comment + claim.why)


def test_the_page_shows_every_section() -> None:
    cells = json.loads((ROOT / "notebooks/claims.ipynb").read_text())["cells"]
    shown = "\n".join("".join(cell["source"]) for cell in cells)
    sections = list(dict.fromkeys(claim.section for claim in claims.load()))
    found = re.findall(r'claims.statements\(reviewed, "([^"]+)"\)', shown.replace("\n    ", " "))
    assert found == sections


def test_every_metric_and_comparison_is_used() -> None:
    assert {claim.metric for claim in claims.load() if claim.metric} == set(METRICS)
    assert {claim.compare for claim in claims.load() if claim.compare} == set(COMPARISONS)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, "needs a metric, or else a reason"),
        ({"metric": "error", "why": "so"}, "needs a metric, or else a reason"),
        ({"metric": "luck"}, "'one': there is no metric 'luck'"),
        ({"metric": "error", "compare": "to"}, "'one': there is no comparison 'to'"),
        ({"metric": "error", "study": "stars"}, "'one': there is no study 'stars'"),
        ({"why": "so", "colour": "red"}, "'one': .*colour"),
    ],
)
def test_entries_that_say_too_little_or_too_much(entry: dict[str, Any], message: str) -> None:
    entry = {"id": "one", "section": "s", "where": "1", "quote": "q", "quantity": "n", **entry}
    with pytest.raises(ValueError, match=message):
        _claim(entry)
