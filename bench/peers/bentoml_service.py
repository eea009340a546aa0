"""The model as a BentoML service: one worker, run in the event loop, without a log line per request."""

import os

import bentoml  # type: ignore[import-not-found]
import joblib  # type: ignore[import-untyped]
import numpy as np


@bentoml.service(workers=1, logging={"access": {"enabled": False}}, metrics={"enabled": False}, traffic={"timeout": 60})
class Tumour:
    """Answers with the probabilities of both classes, row by row."""

    def __init__(self) -> None:
        self._pipeline = joblib.load(f"{os.environ['BENCH_FOLDER']}/model.joblib")

    @bentoml.api  # type: ignore[untyped-decorator]
    async def predict(self, rows: list[list[float]]) -> list[list[float]]:
        """Return the probabilities; a thread would only add a hop."""
        probabilities: list[list[float]] = self._pipeline.predict_proba(np.asarray(rows)).tolist()
        return probabilities
