"""Pickles, which are never loaded: who trusts one loads it where it was made."""

from pathlib import Path
from typing import NoReturn

from models.errors import UnreadableModel
from models.importing.given import Given
from models.importing.mlflow_registries import URI
from models.registry import registry_at

SUFFIXES = {".pkl", ".pickle", ".joblib", ".cloudpickle"}

_REMEDY = """{given.origin} is a pickle, and Turnout never loads one: a pickle runs whatever code it holds.
In the environment that trained it, with pip install 'turnout[orchestration]', run:

    import {module}, models, pandas
    sample = pandas.{reader}  # rows like those it was fitted on, without the label
    models.publish({loader}, sample, name={given.name!r}, registry={registry!r})

Where Turnout cannot be installed, skl2onnx.to_onnx(estimator, sample[:1]) makes a graph that `turnout model import`
takes (docs/models.md)."""


def refuse_pickle(given: Given) -> NoReturn:
    """Raise UnreadableModel with the lines that publish what the pickle holds, for who trusts it."""
    sample = Path("sample.csv") if given.sample is None else given.sample.path.absolute()
    is_file = Path(given.origin).suffix in SUFFIXES
    where = given.origin if URI.match(given.origin) else str(Path(given.origin).absolute())
    remedy = _REMEDY.format(
        given=given,
        module="joblib" if is_file else "mlflow.sklearn",
        loader=f"joblib.load({where!r})" if is_file else f"mlflow.sklearn.load_model({where!r})",
        reader=f"read_{sample.suffix[1:] or 'csv'}({str(sample)!r})",
        registry=str(registry_at(given.registry).root.absolute()),
    )
    raise UnreadableModel(remedy)
