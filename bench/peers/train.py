"""Train the model with the Python of the peer that will load it: `python -m bench.peers.train FOLDER [mlflow]`."""

import sys
from pathlib import Path

from bench.model import fitted


def main() -> None:
    """Save the fitted pipeline in the folder, as a joblib file or as MLflow does."""
    folder, *kind = sys.argv[1:]
    Path(folder).mkdir(parents=True, exist_ok=True)
    if kind == ["mlflow"]:
        import mlflow.sklearn

        # Without a signature the server hands over plain arrays, which are quicker than data frames.
        mlflow.sklearn.save_model(
            fitted(), f"{folder}/model", pyfunc_predict_fn="predict_proba", serialization_format="cloudpickle"
        )
    else:
        import joblib  # type: ignore[import-untyped]

        joblib.dump(fitted(), f"{folder}/model.joblib")


if __name__ == "__main__":
    main()
