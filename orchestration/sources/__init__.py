"""Where the rows of an endpoint come from: files, a database, or a Python function."""

from orchestration.sources.files import Files
from orchestration.sources.function import Function
from orchestration.sources.query import Query
from orchestration.sources.table import from_source

__all__ = ["Files", "Function", "Query", "from_source"]
