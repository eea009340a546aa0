import os
import resource
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from router.errors import CannotStart, LedgerUnavailable
from router.ledger.batch import Assign, Decide, Observe
from router.ledger.records import ACCEPTED, AssignmentRow
from router.ledger.spool import Spool, adopt_spools, open_spool
from tests.router.ledgers import NOW_MS, decision, outcome

ROOM = 10_000_000


def jobs() -> list[Decide | Assign | Observe]:
    row = decision(unit="Zoë 🚂")
    return [
        Decide(row, "order-1"),
        Assign(AssignmentRow(1, "u", 1, 0, 5000, NOW_MS)),
        Observe((outcome(row), outcome(row, None, version=1))),
    ]


def test_jobs_come_back_as_they_went_in_and_in_order(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, max_bytes=ROOM)
    before = [*jobs(), *jobs()[1:]]
    answers = spool.append(before)
    assert answers == [before[0].row, before[1].row, [ACCEPTED] * 2, before[3].row, [ACCEPTED] * 2]  # type: ignore[union-attr]
    assert len(spool) == 5
    assert [entry.job for entry in spool.first(10)] == before
    spool.remove(spool.first(2)[-1].seq)
    assert [entry.job for entry in spool.first(10)] == before[2:]
    spool.close()


def test_a_retry_while_away_is_answered_with_the_first_decision(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, max_bytes=ROOM)
    first, again, other = decision(), decision(), decision()
    assert spool.append([Decide(first, "order-1")]) == [first]
    assert spool.append([Decide(again, "order-1"), Decide(other, "order-2")]) == [first, other]
    assert len(spool) == 2
    spool.close()


def test_a_full_spool_refuses_and_keeps_what_it_has(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, max_bytes=200_000)
    batch = [Decide(decision(unit="u" * 500), None)] * 10
    with pytest.raises(LedgerUnavailable, match="takes nothing more"):
        list(map(spool.append, [batch] * 1000))
    stored = len(spool)
    assert 0 < stored == len(spool.first(stored + 1))
    spool.remove(spool.first(stored // 2)[-1].seq)
    assert spool.append(jobs())[2] == [ACCEPTED] * 2
    spool.close()


def test_a_job_that_cannot_be_stored_fails_alone(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, max_bytes=ROOM)
    good, bad = decision(), decision(unit="\ud800")
    answers = spool.append([Decide(bad, None), Decide(good, None)])
    assert isinstance(answers[0], LedgerUnavailable)
    assert answers[1] == good
    assert [entry.job for entry in spool.first(9)] == [Decide(good, None)]
    spool.close()


def test_an_empty_spool_leaves_nothing_behind(tmp_path: Path) -> None:
    open_spool(tmp_path, max_bytes=ROOM).close()
    assert list(tmp_path.iterdir()) == []


def test_a_spool_in_use_is_not_adopted_and_a_left_one_is(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, max_bytes=ROOM)
    spool.append(jobs())
    assert list(adopt_spools(tmp_path, max_bytes=ROOM)) == []
    spool.close()
    [adopted] = adopt_spools(tmp_path, max_bytes=ROOM)
    assert len(adopted) == 3
    adopted.remove(adopted.first(3)[-1].seq)
    adopted.close()
    assert list(tmp_path.iterdir()) == []


def test_the_spool_of_a_killed_process_is_adopted_with_all_that_was_answered(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, sys, signal\n"
        "from router.ledger.spool import open_spool\n"
        "from router.ledger.batch import Decide\n"
        "from tests.router.ledgers import decision\n"
        "spool = open_spool(pathlib.Path(sys.argv[1]), max_bytes=10_000_000)\n"
        "spool.append([Decide(decision(), None)] * 7)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], env={**os.environ, "PYTHONPATH": "."})
    assert killed.returncode == -9
    [adopted] = adopt_spools(tmp_path, max_bytes=ROOM)
    assert len(adopted) == len(adopted.first(99)) == 7
    adopted.close()


def test_a_refused_job_is_set_aside_and_its_file_kept(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, max_bytes=ROOM)
    spool.append(jobs())
    for entry in spool.first(3):
        spool.refuse(entry.seq, "no table will take it")
    assert len(spool) == 0
    spool.close()
    assert [path.suffix for path in tmp_path.iterdir()] == [".refused"]
    assert list(adopt_spools(tmp_path, max_bytes=ROOM)) == []


def test_a_job_that_another_version_wrote_is_set_aside(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, max_bytes=ROOM)
    spool.append(jobs())
    with sqlite3.connect(spool.path) as other:
        other.execute("update entries set kind = 'foretell' where seq = 1")
        other.execute("update entries set job = x'00' where seq = 3")
    other.close()
    assert [entry.seq for entry in spool.first(9)] == [2]
    assert len(spool) == 1
    spool.remove(2)
    spool.close()
    assert [path.suffix for path in tmp_path.iterdir()] == [".refused"]


def test_a_file_that_is_no_spool_is_set_aside_and_the_next_is_adopted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left = open_spool(tmp_path, max_bytes=ROOM)
    left.append(jobs())
    left.close()
    (tmp_path / "0000.spool").write_bytes(b"not a database, but long enough to look at" * 100)
    [adopted] = adopt_spools(tmp_path, max_bytes=ROOM)
    assert len(adopted) == 3
    adopted.close()
    assert (tmp_path / "0000.broken").exists()
    assert "0000.spool is no spool" in caplog.text


def test_open_spool_names_the_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotStart, match="TURNOUT_SPOOL"):
        open_spool(tmp_path / "file", max_bytes=ROOM)


def test_what_cannot_be_removed_is_still_there(tmp_path: Path) -> None:
    spool, before = open_spool(tmp_path, max_bytes=ROOM), jobs()
    spool.append(before)
    allowed = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, allowed[1]))
    try:
        with pytest.raises(sqlite3.OperationalError):
            spool.remove(spool.first(3)[-1].seq)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, allowed)
    assert len(spool) == 3
    spool.close()
    [adopted] = adopt_spools(tmp_path, max_bytes=ROOM)
    assert [entry.job for entry in adopted.first(9)] == before
    adopted.close()


def test_spool_is_safe_to_append_to_while_it_drains(tmp_path: Path) -> None:
    spool: Spool = open_spool(tmp_path, max_bytes=ROOM)
    rows = [decision() for _ in range(200)]
    seen = []
    for start in range(0, 200, 10):
        spool.append([Decide(row, None) for row in rows[start : start + 10]])
        entries = spool.first(7)
        seen += [entry.job for entry in entries]
        spool.remove(entries[-1].seq)
    seen += [entry.job for entry in spool.first(200)]
    assert seen == [Decide(row, None) for row in rows]
    spool.close()
