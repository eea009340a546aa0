"""The model behind KServe's Python server, as its documentation serves a custom model, with one worker."""

import os
from typing import Any

import joblib  # type: ignore[import-untyped]
import kserve  # type: ignore[import-not-found]
import numpy as np


class Tumour(kserve.Model):  # type: ignore[misc]
    """Answers version 1 of the protocol with the probabilities of both classes, row by row."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._pipeline = joblib.load(f"{os.environ['BENCH_FOLDER']}/model.joblib")
        self.ready = True

    async def predict(self, payload: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        """Return the probabilities; a thread would only add a hop."""
        return {"predictions": self._pipeline.predict_proba(np.asarray(payload["instances"])).tolist()}


if __name__ == "__main__":
    kserve.ModelServer(workers=1, enable_grpc=False, enable_latency_logging=False).start([Tumour("tumour")])
