"""Turnout against other model servers, each with its own packages, the same model and the same features.

Run it with `make bench-peers`; the first run makes an environment for each peer below var/bench/. Turnout decides
between three arms and commits every decision to SQLite before it answers; no peer stores anything. A peer that cannot
be installed or started here is left out, with the reason.
"""

import argparse
import math
import re
import tempfile
from pathlib import Path

from rich.console import Console

from bench.comparing import draw_comparison, print_comparison
from bench.harness import Server, compare, first_answer, running, write_json
from bench.model import example, features, fitted
from bench.peers.environments import CannotInstall, prepare
from bench.peers.known import PEERS, Peer
from bench.routers import published, router

TURNOUT, SKLEARN = "turnout", "turnout scikit-learn"
_FIRST_PORT = 8490
_TOLERANCE = 1e-5
"""Between the peer's prediction and ours: their library versions may differ, and MLServer's JSON is no wider."""


def main() -> None:
    """Measure, print the table and keep the figures and the chart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, nargs="+", default=[16, 64])
    names = [peer.name for peer in PEERS]
    parser.add_argument("--peers", nargs="*", choices=names, default=names)
    parser.add_argument("--folder", type=Path, default=Path("var/bench"), help="of environments and models")
    parser.add_argument("--json", type=Path, default=Path("var/bench/peers.json"))
    arguments = parser.parse_args()
    missing: dict[str, str] = {}
    wanted = [peer for peer in PEERS if peer.name in arguments.peers]
    peers = [server for peer in wanted if (server := _ready(peer, arguments.folder, missing)) is not None]
    with tempfile.TemporaryDirectory() as name:
        ours = [_turnout(TURNOUT, Path(name) / "onnx", 8471), _turnout(SKLEARN, Path(name) / "sklearn", 8478)]
        found = compare(
            [*ours, *peers],
            example(),
            connections=arguments.connections,
            turns=arguments.turns,
            seconds=arguments.seconds,
        )
    print_comparison(found, TURNOUT, SKLEARN)
    for each, why in missing.items():
        Console().print(f"without {each}: {why}")
    write_json(arguments.json, {"load": found, "missing": missing})
    draw_comparison(found, arguments.json.with_suffix(".png"), "Turnout with a durable ledger, peers without any")


def _turnout(name: str, folder: Path, port: int) -> Server:
    folder.mkdir()
    references = published(folder, runtime="sklearn" if name == SKLEARN else "onnx")
    return router(name, folder, port, references, database_url=f"sqlite:///{folder}/ledger.db")


def _ready(peer: Peer, folder: Path, missing: dict[str, str]) -> Server | None:
    """Return the peer's server after it has predicted what we do, or note why there is none."""
    try:
        place = prepare(peer, folder, _FIRST_PORT + 10 * PEERS.index(peer))
        server = peer.server(place)._replace(log=place.folder / "server.log")
        with running(server):
            _check(server)
    except (CannotInstall, RuntimeError) as error:
        missing[peer.name] = str(error)
        Console().print(f"without {peer.name}: {error}")
        return None
    return server


def _check(server: Server) -> None:
    """Compare a prediction of the peer's with ours; raises RuntimeError for another, or none."""
    expected = float(fitted().predict_proba(features()[:1])[0, 1])
    answer = first_answer(server, {})
    numbers = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?", answer)]
    if not any(math.isclose(number, expected, rel_tol=_TOLERANCE) for number in numbers):
        raise RuntimeError(f"{server.name} predicts {answer[:200]}, and we {expected}")


if __name__ == "__main__":
    main()
