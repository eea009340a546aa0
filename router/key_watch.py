"""Keeping a process's keys as the ledger has them, and telling the ledger which were used."""

import asyncio
import logging
import time
from collections.abc import Callable

from router.errors import LedgerUnavailable
from router.gate import Gate
from router.keys import Keyring
from router.ledger.control import ControlTables
from router.ledger.keys import KeyTables
from router.repeating import Background

READ_S = 0.5
"""How often a process looks for keys made or revoked; they never wait for models to load."""

RECORD_S = 5.0
"""How often a process records which keys were used; what it knows when it is killed is lost."""

_logger = logging.getLogger(__name__)


class KeyWatch:
    """Follows the keys between `start` and `stop`; while the database is away the last ones stay in force."""

    def __init__(self, control: ControlTables, tables: KeyTables, clock: Callable[[], int]) -> None:
        self.gate = Gate(seconds=time.monotonic, clock=clock)
        self._control = control
        self._tables = tables
        self._version = -1
        self._used: dict[str, int] = {}
        self._background = Background()

    async def start(self) -> None:
        """Read the keys and begin to follow them."""
        await self._read()
        self._background.repeat(READ_S, self._read, "cannot follow the API keys; the last ones stay in force")
        self._background.repeat(RECORD_S, self._record, "cannot record which API keys were used; trying again")

    async def stop(self) -> None:
        """Record the last uses, if the database lets us."""
        await self._background.stop()
        try:
            await self._record()
        except LedgerUnavailable as error:
            _logger.warning("the last uses of API keys are not recorded: %s", error)
        except Exception:
            _logger.exception("the last uses of API keys are not recorded")

    async def _read(self) -> None:
        version = await asyncio.to_thread(self._control.version)
        if version != self._version:
            self.gate.install(Keyring(await asyncio.to_thread(self._tables.read_all)))
            self._version = version

    async def _record(self) -> None:
        self._used |= self.gate.take_used()
        if self._used:
            # What is not recorded this time stays for the next.
            await asyncio.to_thread(self._tables.record_uses, self._used)
            self._used = {}
