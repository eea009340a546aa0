"""The model as a deployment of Ray Serve with one replica, in the mode that its documentation names for throughput."""

import os
import signal
import sys
import threading
from typing import Any

import joblib  # type: ignore[import-untyped]
import numpy as np
import ray  # type: ignore[import-not-found]
from ray import serve


class Tumour:
    """Answers with the probabilities of both classes, row by row."""

    def __init__(self, folder: str) -> None:
        self._pipeline = joblib.load(f"{folder}/model.joblib")

    async def __call__(self, request: Any) -> Any:
        """Return the probabilities; a thread would only add a hop."""
        rows = (await request.json())["rows"]
        return self._pipeline.predict_proba(np.asarray(rows)).tolist()


def main() -> None:
    """Serve until told to end."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    ray.init(num_cpus=1, include_dashboard=False, configure_logging=True, log_to_driver=False)
    serve.start(
        http_options={"host": "127.0.0.1", "port": int(sys.argv[1])}, logging_config={"enable_access_log": False}
    )
    deployed = serve.deployment(num_replicas=1, max_ongoing_requests=1000, ray_actor_options={"num_cpus": 0})(Tumour)
    serve.run(deployed.bind(os.environ["BENCH_FOLDER"]), logging_config={"enable_access_log": False})
    ended.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
