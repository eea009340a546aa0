"""What can go wrong when a result is read.

    AnalysisError
    ├── UnknownScore            no such score of a prediction against its label
    ├── SourceError
    │   ├── SourceNotFound      no ledger and no exported logs where they were looked for
    │   ├── SourceUnavailable   the database does not answer
    │   ├── UnreadableSource    the files are there but cannot be read: corrupted, truncated, not a ledger
    │   └── SchemaMismatch      a table lacks a column that docs/ledger.md promises
    ├── ExperimentNotFound      the source has no experiment of that name
    ├── InvalidExperiment       the experiment's document says something that cannot be analysed
    ├── UnknownMetric           the experiment has no metric of that name, or none of the kind asked for
    ├── UnknownArm              the experiment has no treatment arm of that name
    ├── UnknownField            no unit of the experiment began with that field in its context
    ├── InvalidPolicy           shares of a policy that are no probabilities, or say nothing of some decisions
    ├── InvalidPeriod           a length of time that is not positive
    └── InvalidLevel            a significance level outside (0, 1)

A message names the thing, its value and what to do about it.
"""


class AnalysisError(Exception):
    """Any failure of the analysis package."""


class UnknownScore(AnalysisError):
    """No score has the given name."""


class SourceError(AnalysisError):
    """The ledger or the exported logs cannot be used."""


class SourceNotFound(SourceError):
    """There is no ledger and no folder of exported logs at the given place."""


class SourceUnavailable(SourceError):
    """The database that holds the ledger does not answer."""


class UnreadableSource(SourceError):
    """The source exists but its content cannot be read."""


class SchemaMismatch(SourceError):
    """A table of the source lacks expected columns."""


class ExperimentNotFound(AnalysisError):
    """The source has no experiment of the given name."""


class InvalidExperiment(AnalysisError):
    """The experiment's document cannot be analysed."""


class UnknownMetric(AnalysisError):
    """The experiment has no metric of the given name."""


class UnknownArm(AnalysisError):
    """The experiment has no treatment arm of the given name."""


class UnknownField(AnalysisError):
    """No unit of the experiment began with the given field in its context."""


class InvalidPolicy(AnalysisError):
    """A policy does not say what would have been chosen."""


class InvalidPeriod(AnalysisError):
    """A length of time is not positive."""


class InvalidLevel(AnalysisError):
    """A significance level is not between 0 and 1."""
