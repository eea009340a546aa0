"""A lake that Spark reads: in the session that is already active, else in a local one of our own.

pyspark is imported when there is such a source; it needs Java.
"""

import atexit
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import ibis
import ibis.expr.types as ir

from analysis.errors import SourceNotFound, SourceUnavailable, UnreadableSource
from analysis.lake import Files, Reader
from analysis.schema import TABLES

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ADDRESS = "spark:LAKE"
"""How an address is written."""

_SCHEME = "spark:"
_QUIET = {"spark.app.name": "turnout", "spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false"}
_PARTITIONS = "spark.sql.shuffle.partitions"


def is_address(source: str) -> bool:
    """Return whether the address is that of a lake for Spark."""
    return source.startswith(_SCHEME)


def lake_of(source: str) -> Path:
    """Return the folder that the address names: `spark:var/lake`, `spark:/data/lake` or `spark:///data/lake`."""
    path = source.removeprefix(_SCHEME)
    return Path(path.removeprefix("//") if path.startswith("///") else path)


def reader() -> Reader:
    """Return a reader of a session of its own, which shares the context of the active session.

    Raises:
        SourceNotFound: pyspark or Java is not installed.
        SourceUnavailable: Spark does not start.
    """
    try:
        from pyspark.sql.types import StructType
    except ModuleNotFoundError as error:
        raise SourceNotFound("Spark needs pip install 'turnout[spark]'") from error
    session = _session()
    backend = ibis.pyspark.connect(session)
    # Ibis itself would make pandas frames of rows one by one, in which whole numbers with gaps become floats.
    backend.to_pyarrow = partial(_in_arrow, session, backend)

    def read(table: str, files: Files) -> ir.Table:
        if files.paths:
            rows = session.read.schema(StructType.fromJson(json.loads(files.columns))).parquet(*files.paths)
        else:
            rows = _empty(session, table)
        rows.createOrReplaceTempView(table)
        return backend.table(table)

    return read


def _in_arrow(session: "SparkSession", backend: Any, expression: ir.Expr, /, **settings: Any) -> Any:
    query = backend.compile(expression.as_table(), **settings)
    return expression.__pyarrow_result__(session.sql(query).toArrow())


def _session() -> "SparkSession":
    """Settings and views of this session are not those of the session that somebody else works with."""
    session = _active().newSession()
    # One odd row, such as a propensity of 0, must not end the whole report.
    session.conf.set("spark.sql.ansi.enabled", "false")
    context = session.sparkContext
    settings = context.getConf()
    if settings.get("spark.master", "").startswith("local") and not settings.contains(_PARTITIONS):
        # The default of 200 is meant for a cluster.
        session.conf.set(_PARTITIONS, str(context.defaultParallelism))
    return session


def _active() -> "SparkSession":
    from pyspark.errors import PySparkRuntimeError
    from pyspark.sql import SparkSession

    with suppress(PySparkRuntimeError):
        return SparkSession.active()
    return _start()


def _start() -> "SparkSession":
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    session = SparkSession(SparkContext(gateway=_gateway()))
    atexit.register(_stop, session)
    return session


def _stop(session: "SparkSession") -> None:
    from py4j.protocol import Py4JError

    # What is left to say of a Java that was killed was said to those who read from it.
    with warnings.catch_warnings(action="ignore"), suppress(Py4JError):
        session.stop()


@cache
def _gateway() -> Any:
    """Java, which says nothing on our output; without a master in spark-defaults.conf it works on this machine."""
    from pyspark import SparkConf
    from pyspark.errors import PySparkRuntimeError
    from pyspark.java_gateway import launch_gateway

    if problem := java_problem():
        raise SourceNotFound(f"Spark needs Java: {problem}; install a Java of version 17 or 21, or set JAVA_HOME")
    with tempfile.TemporaryFile() as said:
        try:
            settings = SparkConf().setAll(list(_QUIET.items()))
            return launch_gateway(settings, {"stdout": said, "stderr": said})  # type: ignore[no-untyped-call]
        except PySparkRuntimeError as error:
            raise SourceUnavailable(
                f"Spark does not start ({_last_lines(said)}); it needs a Java of version 17 or 21"
            ) from error


def java_problem() -> str | None:
    """Return why there is no Java to run, or None."""
    if home := os.environ.get("JAVA_HOME"):
        return None if shutil.which(Path(home) / "bin" / "java") else f"there is none in JAVA_HOME ({home})"
    return None if shutil.which("java") else "there is no `java` on the PATH"


def _last_lines(said: IO[bytes]) -> str:
    said.seek(0)
    lines = [line.strip() for line in said.read().decode(errors="replace").splitlines()]
    return " ".join([line for line in lines if line and not line.startswith("at ")][-3:])


def _empty(session: "SparkSession", table: str) -> Any:
    from ibis.backends.pyspark.datatypes import PySparkSchema

    columns = PySparkSchema.from_ibis(ibis.schema(TABLES[table]))
    # createDataFrame would make this the session that is active.
    return session.range(0).selectExpr(*(f"cast(null as {c.dataType.simpleString()}) as {c.name}" for c in columns))


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Turn what Spark raises into a SourceError of that name.

    Raises:
        SourceUnavailable: Its process is gone.
        UnreadableSource: It cannot read the files.
    """
    try:
        from py4j.protocol import Py4JError, Py4JNetworkError
        from pyspark.errors import PySparkException
    except ModuleNotFoundError:
        yield
        return
    try:
        yield
    except (Py4JNetworkError, ConnectionError) as error:
        raise SourceUnavailable(f"{name}: Spark has stopped ({_said(error)}); start again") from error
    except (Py4JError, PySparkException) as error:
        raise UnreadableSource(
            f"{name} cannot be read ({_said(error)}); it may be corrupted: export the logs again"
        ) from error


def _said(error: Exception) -> str:
    return str(error).partition("\n")[0]
