"""A real TCP proxy between a router and its database, whose line can be cut or can go silent."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Proxy:
    """Forwards connections from `port` to a server until it is told otherwise."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._passing = threading.Event()
        self._passing.set()
        self._refusing = False
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break every connection and refuse new ones."""
        self._refusing = True
        self.break_connections()

    def break_connections(self) -> None:
        """Break every connection; new ones are served."""
        sockets, self._sockets = self._sockets, []
        for each in sockets:
            _shut(each)

    def silence(self) -> None:
        """Keep every connection open, but let nothing through any more."""
        self._passing.clear()

    def restore(self) -> None:
        """Serve again."""
        self._refusing = False
        self._passing.set()

    def close(self) -> None:
        """End for good."""
        self.cut()
        self._passing.set()
        _shut(self._listener)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing:
                _shut(client)
                continue
            try:
                server = socket.create_connection(self._target)
            except OSError:
                _shut(client)
                continue
            for each in (client, server):
                # As both ends have it; small messages would wait for each other.
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                self._passing.wait()
                sink.sendall(data)
        _shut(source)
        _shut(sink)


@contextmanager
def proxy(target: tuple[str, int]) -> Iterator[Proxy]:
    """Run a proxy in front of a server."""
    running = Proxy(target)
    try:
        yield running
    finally:
        running.close()


def _shut(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
