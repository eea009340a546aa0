"""What can go wrong while datasets, candidates and results are made.

OrchestrationError
├── LakeError
│   ├── TableMissing         the table, or a partition of it, was never written
│   ├── TableCorrupted       files of the table are damaged or gone
│   ├── SchemaConflict       a column would change its type
│   └── LakeUnwritable       the folder cannot be written
├── SourceUnavailable        the raw data cannot be read
├── LedgerUnavailable        the router's ledger cannot be read
├── NotProven                a candidate's checks have not passed
├── NoExperiment             nothing was started that could have a result
└── MaterializationFailed    a run ended without success
"""


class OrchestrationError(Exception):
    """Base of every error raised here on purpose."""


class LakeError(OrchestrationError):
    """A table of the lake cannot be read or written."""


class TableMissing(LakeError):
    """The table, or the wanted partition of it, does not exist yet."""


class TableCorrupted(LakeError):
    """Files of the table are damaged or missing."""


class SchemaConflict(LakeError):
    """New content has another type for a column that the table already holds."""


class LakeUnwritable(LakeError):
    """The lake's folder cannot be written."""


class SourceUnavailable(OrchestrationError):
    """The raw data of an endpoint cannot be read."""


class LedgerUnavailable(OrchestrationError):
    """The router's ledger is missing or cannot be read."""


class NotProven(OrchestrationError):
    """A candidate whose blocking checks have not passed is not registered."""


class NoExperiment(OrchestrationError):
    """No experiment was started on the endpoint, so there is no result."""


class MaterializationFailed(OrchestrationError):
    """A run failed, or one of its blocking checks did not pass."""
