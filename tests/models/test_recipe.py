import numpy as np
import pytest

from models import Registry, load, publish
from models.errors import InvalidSample
from models.estimator import predictions
from models.frame import from_frame
from models.recipe import Recipe, base_rate, boosting, forest, logistic
from models.signature import Feature, Signature
from models.training import fit
from tests.models.made_up import Flights

RECIPES = [
    base_rate("carrier"),
    logistic(),
    boosting(iterations=10, leaf_rows=10),
    forest(trees=5, depth=4),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_recipe_becomes_an_exact_onnx_model_of_all_features(
    recipe: Recipe, flights: Flights, registry: Registry
) -> None:
    signature = from_frame(flights.frame, "probability")
    estimator = fit(recipe, signature, flights.frame, flights.late)
    reference = publish(
        estimator, flights.frame, name="delay", registry=registry, signature=signature, params=recipe.params
    )
    manifest = load(registry, reference).manifest
    assert manifest.runtime == "onnx"
    assert manifest.signature == signature
    assert manifest.parity is not None
    assert manifest.parity.max_abs_difference < 1e-6
    assert manifest.params == recipe.params


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_recipe_takes_a_signature_without_nulls_or_numbers(recipe: Recipe, flights: Flights) -> None:
    frame = flights.frame[["carrier"]]
    estimator = recipe.build(from_frame(frame, "probability")).fit(frame, flights.late)
    assert ((predictions(estimator, frame) > 0) & (predictions(estimator, frame) < 1)).all()


@pytest.mark.parametrize("recipe", RECIPES[1:], ids=lambda recipe: recipe.name)
def test_recipe_takes_a_signature_without_categories(recipe: Recipe, flights: Flights) -> None:
    frame = flights.frame[["distance", "weekend"]]
    estimator = recipe.build(from_frame(frame, "probability")).fit(frame, flights.late)
    assert predictions(estimator, frame).std() > 0


def test_base_rate_is_the_rate_of_the_category_where_data_are_plenty(flights: Flights) -> None:
    recipe = base_rate("carrier", shrinkage=1e-6)
    estimator = recipe.build(from_frame(flights.frame, "probability")).fit(flights.frame, flights.late)
    rate = np.array([flights.late[flights.frame["carrier"] == carrier].mean() for carrier in flights.frame["carrier"]])
    np.testing.assert_allclose(predictions(estimator, flights.frame), rate, atol=1e-3)


def test_base_rate_draws_towards_the_overall_rate(flights: Flights) -> None:
    signature = from_frame(flights.frame, "probability")
    spread = []
    for shrinkage in (0.01, 1, 100):
        estimator = base_rate("carrier", shrinkage=shrinkage).build(signature).fit(flights.frame, flights.late)
        spread.append(np.ptp(predictions(estimator, flights.frame)))
    assert spread[0] > spread[1] > spread[2]


def test_base_rate_names_a_category_that_is_missing() -> None:
    with pytest.raises(InvalidSample, match="base_rate needs the category 'carrier'"):
        base_rate("carrier").build(Signature((Feature("carrier", "number"),), "probability"))


@pytest.mark.parametrize("recipe", [boosting(iterations=5, seed=3), forest(trees=3, seed=3)], ids=lambda r: r.name)
def test_recipe_with_a_seed_gives_the_same_model_twice(recipe: Recipe, flights: Flights) -> None:
    signature = from_frame(flights.frame, "probability")
    first, second = (recipe.build(signature).fit(flights.frame, flights.late) for _ in range(2))
    np.testing.assert_allclose(predictions(first, flights.frame), predictions(second, flights.frame), atol=1e-12)
