"""The parts of the harness that need no server of ours: what it reads, sums up and decides."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench.added_latency import Added
from bench.check import Figure, figures_of, judged, verdict
from bench.comparing import Ratio, ratio, ratios_to
from bench.harness import COUNT, Load, Server, body_of, median, plan, read_result
from bench.open_loop import OpenLoad, Requests, Sender, Times, is_whole, percentile, summed_up
from bench.peers.known import PEERS, Place


def test_result_of_wrk_is_read_in_milliseconds_and_seconds() -> None:
    output = "Running 5s test\nRESULT 10000 5000000 1500 42000 0\nRequests/sec: 1\n"
    assert read_result("turnout", output) == Load(2000.0, 1.5, 42.0)


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ("RESULT 100 5000000 1500 42000 3", "3 of 100 requests failed"),
        ("RESULT 0 5000000 0 0 0", "0 of 0 requests failed"),
        ("unable to connect", "no result"),
    ],
)
def test_result_with_failures_or_without_answers_is_refused(output: str, problem: str) -> None:
    with pytest.raises(RuntimeError, match=problem):
        read_result("turnout", output)


def test_ratio_is_taken_within_turns() -> None:
    # The second turn was on a machine twice as slow, which the quotient of medians would mix up.
    assert ratio([100.0, 50.0, 90.0], [200.0, 100.0, 100.0]) == Ratio(0.5, 0.5, 0.9)


def test_ratios_say_how_many_times_faster_the_subject_is() -> None:
    found = {"turnout": {16: [Load(300, 1, 1)]}, "peer": {16: [Load(100, 1, 1)]}}
    assert ratios_to(found, "turnout") == {"peer": {16: Ratio(3.0, 3.0, 3.0)}}


def test_median_is_that_of_each_figure() -> None:
    assert median([Load(1, 30, 200), Load(2, 10, 300), Load(3, 20, 100)]) == Load(2, 20, 200)


def test_every_other_turn_goes_back() -> None:
    servers = [Server(name, [], "", "") for name in "abc"]
    assert "".join(server.name for server in plan(servers, 3)) == "abccbaabc"


def test_own_requests_have_a_unit_each() -> None:
    body = body_of(Server("turnout", [], "", ""), {"f0": 1.5})
    assert json.loads(body.replace(COUNT, "7")) == {"unit": "unit-7", "inputs": {"f0": 1.5}}


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_requests_of_peers_are_json_with_the_thirty_features(peer, tmp_path) -> None:  # type: ignore[no-untyped-def]
    server = peer.server(Place(tmp_path, tmp_path, 8490))
    text = body_of(server, {})
    json.loads(text.replace(COUNT, "7"))
    assert "17.99" in text
    assert text.count("0.1189") == 1


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (0.999, 100), (0.001, 1)])
def test_percentile_is_the_nearest_rank(share: float, expected: int) -> None:
    assert percentile([*range(1, 101)], share) == expected


def test_open_loop_refuses_a_server_that_did_not_keep_up() -> None:
    times = Times([0.001] * 100, [0.0] * 100, 2.0)
    assert summed_up(times, 50.0) == OpenLoad(50.0, 1.0, 1.0, 1.0, 0.0)
    with pytest.raises(RuntimeError, match="only 50 of 100"):
        summed_up(times, 100.0)


def test_answer_is_whole_when_its_length_has_come() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    assert [is_whole(answer[:size]) for size in (0, 20, len(answer) - 1, len(answer))] == [False, False, False, True]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [(b"HTTP/1.1 503 Busy\r\n\r\n", "503 Busy"), (b"HTTP/1.1 200 OK\r\nserver: x\r\n\r\n", "content-length")],
)
def test_answer_that_is_no_success_is_refused(answer: bytes, problem: str) -> None:
    with pytest.raises(RuntimeError, match=problem):
        is_whole(answer)


def test_open_loop_counts_the_wait_for_a_server_that_stalls() -> None:
    # One stall of 0.3 s at 100 requests a second: a closed loop would see one slow request, others waited as well.
    with _stalling_server(after=80, stall_s=0.3) as url:
        times = Sender(Requests(url, f'{{"n":{COUNT}}}'), connections=2).send(rate=100.0, seconds=1.0)
    assert len(times.latencies) == 100
    waited = [latency for latency in times.latencies if latency > 0.05]
    assert len(waited) >= 20
    assert 0.25 < max(times.latencies) < 2.0


@contextmanager
def _stalling_server(after: int, stall_s: float) -> Iterator[str]:
    """Answer every POST on any connection; stop for a while, all of it, after so many."""
    listener = socket.create_server(("127.0.0.1", 0))
    turn, answered, pause = threading.Lock(), [0], threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection:
            while connection.recv(65536):
                with turn:
                    answered[0] += 1
                    if answered[0] == after:
                        pause.wait(stall_s)
                    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    def accept() -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/predict"
    finally:
        listener.close()


def test_added_latency_is_the_difference_within_turns() -> None:
    loads = [[OpenLoad(100, p50, 9, 9, 0) for p50 in p50s] for p50s in ((3.0, 5.0), (1.0, 4.0))]
    assert Added("turnout", "no ledger", 100.0, *loads).differences("p50_ms") == [2.0, 1.0]


def test_figures_are_ratios_within_turns() -> None:
    ours, bare = {16: [Load(50, 4, 8), Load(60, 3, 8)]}, {16: [Load(100, 2, 4), Load(100, 1, 4)]}
    figures = figures_of(ours, bare)
    assert figures["requests per second at 16 connections"] == Figure("higher", (0.5, 0.6))
    assert figures["p50 at 16 connections"] == Figure("lower", (2.0, 3.0))


QUIET = (0.50, 0.50, 0.50)


@pytest.mark.parametrize(
    ("better", "now", "failed", "improved"),
    [
        ("higher", (0.48, 0.48, 0.48), False, False),
        ("higher", (0.47, 0.47, 0.47), True, False),
        ("higher", (0.60, 0.60, 0.60), False, True),
        ("lower", (0.54, 0.54, 0.54), True, False),
        ("lower", (0.45, 0.45, 0.45), False, True),
    ],
)
def test_check_fails_beyond_five_percent_where_turns_agree(better, now, failed, improved) -> None:  # type: ignore[no-untyped-def]
    found = verdict(Figure(better, QUIET), Figure(better, now))
    assert (found.failed, found.improved) == (failed, improved)
    assert found.band == 0.05


def test_band_of_the_check_grows_with_the_spread_of_the_turns() -> None:
    noisy = Figure("higher", (0.40, 0.45, 0.50))
    assert verdict(Figure("higher", QUIET), Figure("higher", (0.45, 0.45, 0.45))).failed
    assert not verdict(Figure("higher", QUIET), noisy).failed


def test_one_turn_decides_nothing() -> None:
    assert not verdict(Figure("higher", QUIET), Figure("higher", (0.01,))).failed


def test_check_names_figures_and_refuses_to_compare_nothing() -> None:
    before = {"p50 at 16 connections": Figure("lower", QUIET), "p50 at 64 connections": Figure("lower", QUIET)}
    verdicts = judged(before, {"p50 at 64 connections": Figure("lower", (1.0, 1.0))})
    assert {name: each.failed for name, each in verdicts.items()} == {"p50 at 64 connections": True}
    with pytest.raises(ValueError, match="no figure"):
        judged(before, {"p50 at 1 connections": Figure("lower", QUIET)})
