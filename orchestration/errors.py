"""What can go wrong while datasets, candidates and results are made.

OrchestrationError
├── LakeError
│   ├── TableMissing         the table, or a partition of it, was never written
│   ├── TableCorrupted       files of the table are damaged or gone
│   ├── TableBusy            other runs wrote the table whenever it was tried
│   ├── SchemaConflict       a column would change its type, or the table its partitions
│   └── LakeUnwritable       the folder cannot be written
├── SourceUnavailable        the raw data cannot be read
├── SourceInvalid            the raw data are not what their schema says
├── EndpointBroken           a file that declares an endpoint cannot be used
├── NoSuchEndpoint           no file declares it
├── CannotScaffold           no file can be written for an endpoint
├── LedgerUnavailable        the router's ledger cannot be read
├── NotProven                a candidate's checks have not passed
├── RouterUnavailable        the router does not answer, or not now
├── RolloutRefused           the router will not roll a version out
├── NoExperiment             nothing was started that could have a result
└── MaterializationFailed    a run ended without success
"""

from collections.abc import Sequence


class OrchestrationError(Exception):
    """Base of every error raised here on purpose."""


class LakeError(OrchestrationError):
    """A table of the lake cannot be read or written."""


class TableMissing(LakeError):
    """The table, or the wanted partition of it, does not exist yet."""


class TableCorrupted(LakeError):
    """Files of the table are damaged or missing."""


class TableBusy(LakeError):
    """Other runs were writing the table, however often it was tried."""


class SchemaConflict(LakeError):
    """New content has another type for a column than the table, or the table is divided otherwise."""


class LakeUnwritable(LakeError):
    """The lake's folder cannot be written."""


class SourceUnavailable(OrchestrationError):
    """The raw data of an endpoint cannot be read."""


class SourceInvalid(OrchestrationError):
    """The raw data of an endpoint lack a column, or hold values of another type, than its schema says."""


class EndpointBroken(OrchestrationError):
    """A file that declares an endpoint cannot be imported, or contradicts another."""


class NoSuchEndpoint(OrchestrationError):
    """No file declares an endpoint of that name."""


class CannotScaffold(OrchestrationError):
    """A new endpoint cannot be declared from what was given."""


class LedgerUnavailable(OrchestrationError):
    """The router's ledger is missing or cannot be read."""


class NotProven(OrchestrationError):
    """A candidate whose blocking checks have not passed is not registered."""


class RouterUnavailable(OrchestrationError):
    """The router does not answer, or cannot do now what it is asked for; to ask again may help."""


class RolloutRefused(OrchestrationError):
    """The router will not roll a version out, however often it is asked."""


class NoExperiment(OrchestrationError):
    """No experiment was started on the endpoint, so there is no result."""


class MaterializationFailed(OrchestrationError):
    """A run failed, or one of its blocking checks did not pass; each of the reasons is `check: what it found`."""

    def __init__(self, message: str, reasons: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.reasons = tuple(reasons)
