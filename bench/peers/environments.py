"""A virtual environment for each peer, made once of the pinned versions in its list, and the model trained in it."""

import subprocess
import sys
from pathlib import Path

from bench.peers.known import Peer, Place

_LISTS = Path(__file__).parent


class CannotInstall(Exception):
    """A peer that cannot be had here, and why."""


def prepare(peer: Peer, root: Path, port: int) -> Place:
    """Return where the peer lives, after making its environment and its model where they are not there yet.

    Raises CannotInstall.
    """
    environment, folder = root / "venvs" / peer.name, root / "peers" / peer.name
    wanted = (_LISTS / f"{peer.name}.txt").read_text()
    made_of = environment / "made-of.txt"
    if not made_of.exists() or made_of.read_text() != wanted:
        _run(peer, [sys.executable, "-m", "venv", "--clear", str(environment)])
        pip = [f"{environment}/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run(peer, [*pip, "-r", str(_LISTS / f"{peer.name}.txt")])
        made_of.write_text(wanted)
    if not folder.exists():
        _run(peer, [f"{environment}/bin/python", "-m", "bench.peers.train", str(folder), *peer.training])
    return Place((environment / "bin").absolute(), folder.absolute(), port)


def _run(peer: Peer, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
        raise CannotInstall(f"{peer.name}: {' '.join(command[:4])} ..: {' '.join(last)}")
