"""`turnout serve`: run the router."""

import gc
import ipaddress
import logging
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.errors import CannotStart
from router.keys import Keyring
from router.ledger.database import shown, upgraded
from router.ledger.keys import KeyTables
from router.settings import Settings, load

if TYPE_CHECKING:
    from litestar import Litestar

_BACKLOG = 2048
_KEEP_ALIVE_S = 75
"""Longer than clients and balancers keep an idle connection: who closes first meets a request that is on its way."""


_COLLECTED_AFTER = 20_000
"""So many objects more than were freed make the collector look at the youngest; 700 are there in every turn here."""


@click.command()
@click.option("--host", help="Address to listen on (TURNOUT_HOST); beyond loopback it needs an API key.")
@click.option("--port", type=int, help="Port to listen on (TURNOUT_PORT); 0 takes a free one.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes to run.")
@click.option("--database", metavar="URL", help="The ledger (TURNOUT_DATABASE), such as sqlite:///var/turnout.db.")
@click.option("--registry", type=click.Path(path_type=Path), help="The model registry (TURNOUT_REGISTRY).")
def serve(workers: int, **options: str | int | Path | None) -> None:
    """Serve predictions, count outcomes and run experiments."""
    settings = load({**os.environ, **_as_variables(options)})
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if not _is_loopback(settings.host):
        _require_key(settings)
    listener = _listen(settings)
    # Worker processes read their settings from the environment.
    os.environ.update(_as_variables(options))
    _run(settings, listener, workers)


def _as_variables(options: Mapping[str, str | int | Path | None]) -> dict[str, str]:
    return {f"TURNOUT_{name.upper()}": str(value) for name, value in options.items() if value is not None}


def _require_key(settings: Settings) -> None:
    with upgraded(settings.database) as engine:
        usable = Keyring(KeyTables(engine).read_all()).has_usable_key
    if not usable:
        raise CannotStart(
            f"host {settings.host!r} is reachable from other machines, but this router has no API key; make one with "
            "turnout key create --name NAME --scope admin, or listen on 127.0.0.1"
        )


def _listen(settings: Settings) -> socket.socket:
    """Return the listening socket, bound before anything is loaded so that a taken port fails at once."""
    listener = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise CannotStart(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; choose another with --port"
        ) from error
    listener.set_inheritable(True)
    return listener


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _run(settings: Settings, listener: socket.socket, workers: int) -> None:
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    with upgraded(settings.database):
        # Once, before several workers would try to.
        pass
    host, port = listener.getsockname()[:2]
    config = uvicorn.Config(
        _served(settings) if workers == 1 else "router.commands.serve:create_worker_app",
        factory=workers > 1,
        host=host,
        port=port,
        workers=workers,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        ws="none",
        timeout_keep_alive=_KEEP_ALIVE_S,
    )
    click.echo(f"Turnout on http://{settings.host}:{port}  (API: /schema, ledger: {shown(settings.database)})")
    server = uvicorn.Server(config)
    if workers == 1:
        server.run(sockets=[listener])
    else:
        Multiprocess(config, sockets=[listener]).run()


def create_worker_app() -> "Litestar":
    """Return the application of one of several processes, which stops when the one that started it is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent,), name="follow-parent", daemon=True).start()
    return _served()


def _served(settings: Settings | None = None) -> "Litestar":
    from router.http.app import create_app

    app = create_app(settings)
    app.on_startup.append(_spare_collector)
    return app


def _spare_collector() -> None:
    # What is there by now stays: to look through it took a tenth of a second each time, in which nobody was answered.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECTED_AFTER)


def _follow(parent: BaseProcess) -> None:
    # A parent that was killed could tell nobody; its orphans would hold the port and serve on, unseen.
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
