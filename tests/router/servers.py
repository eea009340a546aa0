"""A router over HTTP in a thread of the test."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from router.http.app import application
from router.service import Service
from router.settings import Settings
from tests.router.small_models import load_small


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """Serve the small models and yield the address."""
    app = application(Service(settings, load_model=load_small), max_body_bytes=settings.max_body_bytes)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
