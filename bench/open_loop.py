"""Requests at a constant rate, whatever the server does, each timed from the moment at which it was due.

A closed loop waits with its next request until the last one is answered, so it hides that others would have had to wait
too. Here a request that no connection is free for, or that the server lets wait, has waited since it was due.

The sender is a process of its own on the client's core: plain sockets, one epoll, no framework. How late it was itself
with requests for which a connection was free is measured too, so that nobody takes that for the server's.
"""

import argparse
import gc
import json
import math
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from bench.harness import CLIENT_CORE, COUNT, Server, body_of, on_core

_WARM_UP_S = 0.5
"""Of requests that are sent and not counted."""
_PATIENCE_S = 10.0
_LEAST_SHARE = 0.98
"""Of the wanted rate that must have been answered."""


class OpenLoad(NamedTuple):
    """One measurement at a constant rate; `late_p99_ms` is what of it may be the sender's own."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    late_p99_ms: float


class Times(NamedTuple):
    """Seconds between due and answered, and between due and sent where a connection was free."""

    latencies: list[float]
    late: list[float]
    took_s: float


def offer(
    server: Server,
    inputs: Mapping[str, float],
    *,
    rate: float,
    seconds: float,
    connections: int = 64,
    core: int | None = CLIENT_CORE,
) -> OpenLoad:
    """Send so many POSTs per second; raises RuntimeError where one fails or the server does not keep up."""
    options = ["--rate", f"{rate:.3f}", "--seconds", str(seconds), "--connections", str(connections)]
    done = subprocess.run(
        [*on_core(core), sys.executable, "-m", "bench.open_loop", server.url, *options],
        input=body_of(server, inputs),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{server.name}: {done.stderr.strip().splitlines()[-1]}")
    return OpenLoad(**json.loads(done.stdout))


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that so great a share of the rising values does not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def main() -> None:
    """Send what stands on the standard input, and print the times as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--connections", type=int, default=64)
    arguments = parser.parse_args()
    requests = Requests(arguments.url, sys.stdin.read())
    # Everything made here lives until the end; a collection would only hold requests back.
    gc.disable()
    times = Sender(requests, arguments.connections).send(arguments.rate, arguments.seconds)
    print(json.dumps(summed_up(times, arguments.rate)._asdict()))


def summed_up(times: Times, rate: float) -> OpenLoad:
    """Return the figures of a run; raises RuntimeError where it was slower than it was meant to be."""
    latencies, late = sorted(times.latencies), sorted(times.late)
    reached = len(latencies) / times.took_s
    if reached < _LEAST_SHARE * rate:
        raise RuntimeError(f"only {reached:,.0f} of {rate:,.0f} requests a second were answered; ask for fewer")
    p50, p99, p999 = (percentile(latencies, share) * 1000 for share in (0.5, 0.99, 0.999))
    return OpenLoad(reached, p50, p99, p999, percentile(late, 0.99) * 1000)


class Requests:
    """The bytes of numbered POSTs to one address."""

    def __init__(self, url: str, body: str) -> None:
        parts = urlsplit(url)
        self.address = parts.hostname or "127.0.0.1", parts.port or 80
        head = f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
        self._head = f"{head}content-length: ".encode()
        self._before, self._numbered, self._after = (part.encode() for part in body.partition(COUNT))
        self._rest = len(self._before) + len(self._after)

    def make(self, number: int) -> bytes:
        """Return the whole request."""
        digits = b"%d" % number if self._numbered else b""
        length = b"%d\r\n\r\n" % (self._rest + len(digits))
        return b"".join((self._head, length, self._before, digits, self._after))


class Connection:
    """A connection that is kept, with at most one request on its way."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=_PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self._received = b""

    def send(self, request: bytes, due: float) -> None:
        """Send a request that was due then."""
        self.due = due
        # It fits the socket's buffer, which is empty: the last request was answered.
        self.socket.sendall(request)

    def answered(self) -> bool:
        """Read what has come, and return whether that ends the answer; raises RuntimeError unless it is a 200."""
        part = self.socket.recv(65536)
        if not part:
            raise RuntimeError("the server closed a connection")
        self._received += part
        if not is_whole(self._received):
            return False
        self._received = b""
        return True


def is_whole(received: bytes) -> bool:
    """Return whether these bytes are a whole answer; raises RuntimeError where it is none with 200 and a length."""
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return False
    if not head.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(f"the server answered {head.splitlines()[0].decode()!r}")
    _, found, rest = head.lower().partition(b"\r\ncontent-length:")
    if not found:
        raise RuntimeError("the server answered without a content-length")
    return len(body) >= int(rest.partition(b"\r\n")[0])


class Sender:
    """Connections of which those that are free take the next request."""

    def __init__(self, requests: Requests, connections: int) -> None:
        self._requests = requests
        self._free = deque(Connection(requests.address) for _ in range(connections))
        self._by_descriptor = {each.socket.fileno(): each for each in self._free}
        self._poll = select.epoll()
        for descriptor in self._by_descriptor:
            self._poll.register(descriptor, select.EPOLLIN)
        self._latencies: list[float] = []
        self._late: list[float] = []

    def send(self, rate: float, seconds: float) -> Times:
        """Send for so long, wait for the last answer, close the connections and return the times."""
        try:
            return self._send(rate, seconds)
        finally:
            self._poll.close()
            for connection in self._by_descriptor.values():
                connection.socket.close()

    def _send(self, rate: float, seconds: float) -> Times:
        start = time.perf_counter() + 0.05
        counted_from, total = start + _WARM_UP_S, math.floor(rate * (seconds + _WARM_UP_S))
        sent, free_since = 0, 0.0
        while sent < total or len(self._free) < len(self._by_descriptor):
            now = time.perf_counter()
            while sent < total and (due := start + sent / rate) <= now and self._free:
                self._free.popleft().send(self._requests.make(sent), due)
                sent += 1
                now = time.perf_counter()
                # What was due while no connection was free is late by the server's fault.
                if due >= max(counted_from, free_since):
                    self._late.append(now - due)
            if not self._free:
                free_since = math.inf
            if now > start + total / rate + _PATIENCE_S:
                raise RuntimeError(f"some requests were not answered within {_PATIENCE_S:g} s")
            wake = start + sent / rate if sent < total and self._free else now + 1.0
            self._read(max(0.0, wake - now), counted_from)
            if free_since == math.inf and self._free:
                free_since = time.perf_counter()
        return Times(self._latencies, self._late, time.perf_counter() - counted_from)

    def _read(self, timeout_s: float, counted_from: float) -> None:
        """Wait for answers at most so long; epoll itself would count in milliseconds, select does not."""
        ready, _, _ = select.select([self._poll.fileno()], [], [], timeout_s)
        for descriptor, _ in self._poll.poll(0) if ready else ():
            connection = self._by_descriptor[descriptor]
            if connection.answered():
                if connection.due >= counted_from:
                    self._latencies.append(time.perf_counter() - connection.due)
                self._free.append(connection)


if __name__ == "__main__":
    main()
