"""The runs behind the book, and how a new ledger is held against the committed one."""

from dataclasses import replace

import pytest

from gmlib.study.runs import reproduce
from gmlib.study.runs.ledger import Ledger
from gmlib.study.runs.sweeps import sweep


@pytest.fixture
def studies(tiny, tmp_path, monkeypatch):
    runs = {"first": [tiny("BL", 0), tiny("KUMAR", 0)], "second": [tiny("KUMAR", 1)]}
    monkeypatch.setattr(reproduce, "STUDIES", runs)
    monkeypatch.setenv("GMLIB_RESULTS", str(tmp_path / "committed"))
    return runs


def test_the_committed_ledger_holds_every_run_of_the_studies():
    ledger = Ledger()
    lacking = {
        name
        for name, study in reproduce.STUDIES.items()
        if any(ledger.get(config) is None for config in study)
    }
    assert not lacking


def test_reports_equality_bit_for_bit(studies, tmp_path, capsys):
    sweep([config for study in studies.values() for config in study], jobs=1)
    assert reproduce.main(["--ledger", str(tmp_path / "new"), "--jobs", "1"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("first: 2 runs")
    assert "2 of 2 runs equal bit for bit" in out[0]
    assert "largest difference in test error 0.00 points anywhere" in out[0]
    assert "1 of 1 runs equal bit for bit" in out[1]


def test_reports_how_far_records_are_apart(studies, tmp_path, capsys):
    committed = Ledger()
    for config in studies["first"]:
        record = sweep([config], Ledger(tmp_path / "truth"), jobs=1)[0]
        errors = [*record.curves["test_error"][:-1], record.curves["test_error"][-1] + 0.125]
        committed.put(replace(record, curves={**record.curves, "test_error": errors}))
    assert reproduce.main(["--ledger", str(tmp_path / "new"), "--jobs", "1"]) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert "0 of 2 runs equal bit for bit" in first
    assert "12.50 points anywhere, 12.50 at the end" in first
    assert "1 are not in" in second
    assert "nothing to compare" in second


def test_a_complete_ledger_is_computed_anew_and_a_partial_one_completed(studies, tmp_path):
    folder = tmp_path / "new"
    configs = [config for study in studies.values() for config in study]
    sweep(configs[:1], Ledger(folder), jobs=1)
    kept = Ledger(folder).path(configs[0]).read_bytes()
    reproduce.main(["--ledger", str(folder), "--jobs", "1"])
    assert Ledger(folder).path(configs[0]).read_bytes() == kept
    reproduce.main(["--ledger", str(folder), "--jobs", "1"])
    assert Ledger(folder).path(configs[0]).read_bytes() != kept  # another wall time at least


def test_to_train_anew_takes_away_the_records_and_nothing_else(tiny, tmp_path, monkeypatch):
    observed, run, other = tiny("KUMAR", snapshots=True), tiny("BL"), tiny("BL", 1)
    monkeypatch.setattr(reproduce, "STUDIES", {"one": [observed, run], "two": [run, observed]})
    monkeypatch.setenv("GMLIB_RESULTS", str(tmp_path / "committed"))
    ledger = Ledger(tmp_path / "new")
    sweep([observed, run, other], ledger, jobs=1)
    (ledger.folder / "notes.txt").write_text("mine")
    before = contents(ledger)
    paths = [ledger.path(observed), ledger.path(observed).with_suffix(".npz"), ledger.path(run)]
    seen = []

    def spy(configs, *_):
        seen.extend(sorted(before.keys() - contents(ledger).keys()))
        return sweep(configs, ledger, jobs=1)

    monkeypatch.setattr(reproduce, "sweep", spy)
    reproduce.main(["--ledger", str(ledger.folder)])
    assert seen == sorted(path.name for path in paths)
    after = contents(ledger)
    assert after.keys() == before.keys()
    for name in ("notes.txt", ledger.path(other).name):
        assert after[name] == before[name]


def contents(ledger):
    return {path.name: path.read_bytes() for path in ledger.folder.iterdir()}


# --- Some of the studies -------------------------------------------------------------------------


@pytest.fixture
def three(studies, tiny):
    studies["third"] = [tiny("FC", 0), tiny("KUMAR", 1)]  # shares a run with the second
    return studies


@pytest.mark.parametrize(
    "names",
    [["first"], ["second"], ["third", "first"], ["second", "second"], ["second", "third"], []],
)
def test_trains_the_studies_that_are_named(names, three, tmp_path, capsys):
    ledger = Ledger(tmp_path / "new")
    arguments = [argument for name in names for argument in ("--study", name)]
    assert reproduce.main(["--ledger", str(ledger.folder), "--jobs", "1", *arguments]) == 1
    chosen = list(dict.fromkeys(names)) or list(three)
    expected = {config.run_id for name in chosen for config in three[name]}
    assert {record.config.run_id for record in ledger} == expected
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == chosen
    for name, line in zip(chosen, lines, strict=True):
        runs = len(three[name])
        assert line.startswith(f"{name}: {runs} runs")
        assert f"{runs} are not in {tmp_path / 'committed'}; nothing to compare" in line


def test_compares_the_studies_that_are_named(three, tmp_path, capsys):
    sweep(three["third"], jobs=1)
    arguments = ["--ledger", str(tmp_path / "new"), "--jobs", "1", "--study"]
    assert reproduce.main([*arguments, "third"]) == 0
    assert "2 of 2 runs equal bit for bit" in capsys.readouterr().out
    assert reproduce.main([*arguments, "second", "--study=third"]) == 0
    assert reproduce.main([*arguments, "first"]) == 1


def test_a_study_trained_anew_leaves_the_others_records(three, tmp_path):
    ledger = Ledger(tmp_path / "new")
    reproduce.main(["--ledger", str(ledger.folder), "--jobs", "1"])
    before = contents(ledger)
    reproduce.main(["--ledger", str(ledger.folder), "--jobs", "1", "--study", "second"])
    after = contents(ledger)
    assert after.keys() == before.keys()
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {ledger.path(config).name for config in three["second"]}


def test_names_the_studies_there_are(three, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        reproduce.main(["--ledger", str(tmp_path / "new"), "--study", "first", "--study", "fourth"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "argument --study: invalid choice: 'fourth'" in error
    for name in three:
        assert name in error.partition("choose from")[2]
    assert not (tmp_path / "new").exists()


def test_a_study_has_a_name_of_words(tmp_path, capsys):
    with pytest.raises(SystemExit):
        reproduce.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name in ("main study", "target std", "screen, fashion-mnist", "budget"):
        assert name in text


def test_refuses_the_committed_ledger(studies, tmp_path, capsys):
    with pytest.raises(SystemExit):
        reproduce.main(["--ledger", str(tmp_path / "committed")])
    assert "must not be the committed ledger" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("--jobs", "0"), ("--device", "abacus")])
def test_a_bad_argument_costs_no_record(arguments, studies, tmp_path):
    ledger = Ledger(tmp_path / "new")
    sweep([config for study in studies.values() for config in study], ledger, jobs=1)
    with pytest.raises(SystemExit):
        reproduce.main(["--ledger", str(ledger.folder), *arguments])
    assert len(list(ledger)) == 3


def test_says_why_there_is_no_cluster(studies, tmp_path):
    sweep(
        [config for study in studies.values() for config in study], Ledger(tmp_path / "new"), jobs=1
    )
    with pytest.raises(SystemExit, match=r"^--scheduler nowhere::1: "):
        reproduce.main(["--ledger", str(tmp_path / "new"), "--scheduler", "nowhere::1"])
    assert len(list(Ledger(tmp_path / "new"))) == 3  # not emptied for nothing


def test_processes_are_here_or_on_a_cluster(studies, tmp_path, capsys):
    with pytest.raises(SystemExit):
        reproduce.main(["--jobs", "2", "--scheduler", "tcp://login:8786"])
    assert "not allowed with argument" in capsys.readouterr().err


def test_an_interruption_is_one_line(studies, tmp_path, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt("no run is recorded")

    monkeypatch.setattr(reproduce, "sweep", interrupted)
    assert reproduce.main(["--ledger", str(tmp_path / "new")]) == 130
    assert capsys.readouterr() == ("", "no run is recorded\n")
