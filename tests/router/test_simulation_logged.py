from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine

from router.commands.simulation_ledger import logged_values, stored_experiment
from router.documents import AnyMetric, BinaryMetric, Limits, NumericMetric
from router.errors import CannotStart, InvalidDocument, UnknownExperiment
from router.ledger.folding import Folder
from router.ledger.writing import insert_decisions
from router.simulation.logged import Observed, from_statistics, read_csv
from router.simulation.values import Normals, Ones, Resampled
from tests.router.ledgers import EXPERIMENT, NOW_MS, decision, outcome

CLICK = BinaryMetric(name="click", direction="increase")
REVENUE = NumericMetric(name="revenue", direction="increase")
ARMS = ("control", "new")


def _csv(folder: Path, text: str) -> Path:
    path = folder / "values.csv"
    path.write_text(text)
    return path


def test_a_file_is_drawn_from_with_replacement(tmp_path: Path) -> None:
    path = _csv(tmp_path, "\ufeffday,arm,value\n1,control,2\n1,new,3.5\n2,other,7\n2,control,4\n")
    found = read_csv(path, REVENUE, ARMS)
    assert set(found) == set(ARMS)
    control = found["control"]
    assert isinstance(control, Resampled)
    assert control.observed.tolist() == [2, 4]
    assert (control.mean, control.sd) == (3, 1)
    total, _ = control.draw(np.random.default_rng(0), np.array([1000]))
    assert 2000 < total[0] < 4000


def test_values_of_a_file_are_pulled_to_the_limits(tmp_path: Path) -> None:
    limited = NumericMetric(name="revenue", direction="increase", winsorise=Limits(low=1, high=5))
    found = read_csv(_csv(tmp_path, "arm,value\ncontrol,-2\ncontrol,3\nnew,9\n"), limited, ARMS)
    assert [each.mean for each in found.values()] == [2, 5]


@pytest.mark.parametrize(
    ("text", "metric", "message"),
    [
        ("arm,reward\ncontrol,1\n", REVENUE, "no column 'value'; it has arm, reward: name its columns arm,value"),
        ("", REVENUE, "no column 'arm'; it has none"),
        ("arm,value\ncontrol,1\n", REVENUE, "has no value of arm 'new'; it needs values of control, new"),
        ("arm,value\ncontrol,1\nnew,many\n", REVENUE, "line 3: 'many' is no number; leave rows without a value out"),
        ("arm,value\ncontrol\n", REVENUE, "line 2: None is no number"),
        ("arm,value\ncontrol,inf\n", REVENUE, "line 2: 'inf' is not finite; leave such rows out"),
        ("arm,value\ncontrol,0.5\n", CLICK, "line 2: '0.5' is neither 0 nor 1, as 'click' has to be"),
    ],
    ids=["column", "empty", "arm", "text", "short", "infinite", "binary"],
)
def test_a_bad_file_is_refused_by_line(tmp_path: Path, text: str, metric: AnyMetric, message: str) -> None:
    with pytest.raises(InvalidDocument) as raised:
        read_csv(_csv(tmp_path, text), metric, ARMS)
    assert message in str(raised.value)
    assert raised.value.field == "world.logged"


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidDocument, match=r"none.csv cannot be read: No such file or directory; name a CSV file"):
        read_csv(tmp_path / "none.csv", REVENUE, ARMS)
    (tmp_path / "image.csv").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(InvalidDocument, match=r"is not a CSV file: .*; export it as CSV"):
        read_csv(tmp_path / "image.csv", REVENUE, ARMS)


def test_statistics_become_ones_or_normal_values() -> None:
    assert from_statistics({"control": Observed(10, 3, 3)}, CLICK, "it") == {"control": Ones(0.3)}
    assert from_statistics({"control": Observed(4, 8, 20)}, REVENUE, "it") == {"control": Normals(2, 1)}
    with pytest.raises(InvalidDocument, match=r"it has 1 value\(s\) of 'revenue' in arm 'control'; it needs two"):
        from_statistics({"control": Observed(1, 8, 64)}, REVENUE, "it")


@pytest.fixture
def filled(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """A ledger with 8 decisions of each of two arms: clicks of 2 and 4 of them, and revenue 1 to 8, or 11 to 18."""
    monkeypatch.setenv("TURNOUT_DATABASE", engine.url.render_as_string(hide_password=False))
    rows = [[decision(arm=arm) for _ in range(8)] for arm in (0, 1)]
    decided = [row for each in rows for row in each]
    clicks = [outcome(row, 1.0, "click") for arm, number in ((0, 2), (1, 4)) for row in rows[arm][:number]]
    revenues = [
        outcome(row, 10.0 * arm + number, "revenue") for arm in (0, 1) for number, row in enumerate(rows[arm], start=1)
    ]
    with engine.begin() as connection:
        insert_decisions(connection, decided)
        Folder().count(connection, decided, shard=0)
        Folder().record(connection, [*clicks, *revenues], NOW_MS)
    return engine


@pytest.mark.usefixtures("filled")
def test_an_experiment_in_the_ledger_says_what_its_arms_are() -> None:
    assert stored_experiment("first") == EXPERIMENT
    assert logged_values("first", CLICK, ARMS) == {"control": Ones(0.25), "new": Ones(0.5)}
    found = logged_values("first", REVENUE, ARMS)
    assert all(isinstance(values, Normals) for values in found.values())
    assert [found[arm].mean for arm in ARMS] == [4.5, 14.5]
    assert [found[arm].sd for arm in ARMS] == pytest.approx([5.25**0.5] * 2)


@pytest.mark.usefixtures("filled")
def test_what_a_ledger_does_not_have_is_refused() -> None:
    with pytest.raises(UnknownExperiment):
        stored_experiment("second")
    with pytest.raises(InvalidDocument, match="experiment 'first' has no arm 'newest'; its arms: control, new, newer"):
        logged_values("first", CLICK, ("control", "newest"))
    with pytest.raises(InvalidDocument, match="no metric 'margin' of that kind; its metrics: brier, click, revenue"):
        logged_values("first", NumericMetric(name="margin", direction="increase"), ARMS)
    with pytest.raises(InvalidDocument, match="has no metric 'revenue' of that kind"):
        logged_values("first", BinaryMetric(name="revenue", direction="increase"), ARMS)
    with pytest.raises(InvalidDocument, match=r"has 0 value\(s\) of 'revenue' in arm 'newer'; it needs two"):
        logged_values("first", REVENUE, ("control", "newer"))


def test_no_ledger_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNOUT_DATABASE", f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(CannotStart, match=r"there is no ledger at .*none.db; name it with TURNOUT_DATABASE"):
        stored_experiment("first")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "none.db").touch()
    with pytest.raises(CannotStart, match=r"is at revision none, but this command reads .*: run turnout db upgrade"):
        stored_experiment("first")
