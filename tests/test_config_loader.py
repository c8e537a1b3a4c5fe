"""What stands above what in the configuration: base, what a recipe extends, recipe, machine, command line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kedro.config import MissingConfigException

from aft.config_loader import RecipeConfigLoader
from aft.settings import CONFIG_LOADER_ARGS

Load = Callable[..., RecipeConfigLoader]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """The loader of a project with these files, by their path in conf/."""

    def loader(files: dict[str, str], env: str | None = "mine", **runtime_params: Any) -> RecipeConfigLoader:
        for name, text in {"base/globals.yml": "recipe: pocket", "mine/globals.yml": "recipe: mine", **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return RecipeConfigLoader(str(tmp_path), env, runtime_params, **CONFIG_LOADER_ARGS)

    return loader


FOLDERS = ("base", "shared", "mine", "local")
SHARED = {"mine/globals.yml": "{recipe: mine, extends: shared}"}


@pytest.mark.parametrize("kind", ["parameters", "catalog", "mlflow", "studies", "credentials"])
def test_each_folder_stands_above_those_before_it(kind: str, load: Load) -> None:
    """Key by key: what is nested is merged and not replaced."""
    files = {
        f"base/{kind}.yml": "top: {in: {a: base, b: base, c: base, d: base}}",
        f"shared/{kind}.yml": "top: {in: {b: shared, c: shared, d: shared}}",
        f"mine/{kind}.yml": "top: {in: {c: mine, d: mine}}",
        f"local/{kind}.yml": "top: {in: {d: local}}",
        "base/parameters_other.yml": "seed: 0",  # a catalog is never without parameters
    }
    merged = load({**files, **SHARED})[kind]
    assert merged["top"] == {"in": {"a": "base", "b": "shared", "c": "mine", "d": "local"}}
    assert load(files, env=None)[kind]["top"]["in"] == {"a": "base", "b": "base", "c": "base", "d": "local"}


def test_the_command_line_stands_above_all(load: Load) -> None:
    files = {f"{folder}/parameters.yml": f"training: {{epochs: {epochs}}}" for epochs, folder in enumerate(FOLDERS)}
    assert load({**files, **SHARED}, training={"epochs": 9})["parameters"]["training"] == {"epochs": 9}


def test_what_is_done_to_a_configuration_stays_with_whoever_asked_for_it(load: Load) -> None:
    loader = load({"base/parameters.yml": "training: {epochs: 3}"})
    loader["parameters"]["training"]["epochs"] = 9
    assert loader["parameters"] == {"training": {"epochs": 3}}
    loader["parameters"] = {"set": "from outside"}
    assert loader["parameters"] == {"set": "from outside"}


def test_the_data_folder_of_a_machine_is_that_of_every_recipe(load: Load) -> None:
    """Also where other files name it."""
    files = {"base/globals.yml": "{recipe: pocket, data: data}", "local/globals.yml": "data: /scratch"}
    files |= {"base/parameters.yml": "model_cache: ${globals:data}/cache"}
    for env, recipe in ((None, "pocket"), ("mine", "mine")):
        loader = load(files, env)
        assert loader["globals"] == {"recipe": recipe, "data": "/scratch", "folder": recipe}
        assert loader["parameters"] == {"model_cache": "/scratch/cache"}


def test_credentials_may_lie_on_the_machine_alone(load: Load) -> None:
    assert load({"local/credentials.yml": "hub: {token: t}"})["credentials"] == {"hub": {"token": "t"}}
    with pytest.raises(MissingConfigException, match="nosuch"):
        _ = load({"local/parameters.yml": "a: 1"}, env="nosuch")["parameters"]


def test_a_machine_needs_no_folder_of_its_own(load: Load) -> None:
    assert load({"base/parameters.yml": "a: 1"}, env=None)["parameters"] == {"a": 1}


def test_every_catalog_knows_where_results_lie_and_what_is_set(load: Load) -> None:
    """A recipe's own entries and those of a machine, too; the label goes before the recipe's name."""
    entry = "{path: '${globals:folder}/x', family: '${parameters:task.family}', all: '${parameters:task}'}"
    files = {f"{folder}/catalog.yml": f"{folder}: {entry}" for folder in ("base", "mine", "local")}
    files["base/parameters.yml"] = "task: {family: pocket, settings: {}}"
    for given, folder, family in (({}, "mine", "pocket"), ({"label": "x", "task": {"family": "y"}}, "x", "y")):
        catalog = load(files, **given)["catalog"]
        told = {"path": f"{folder}/x", "family": family, "all": {"family": family, "settings": {}}}
        assert catalog == {"base": told, "mine": told, "local": told}


def test_what_a_recipe_extends_has_to_be_there(load: Load) -> None:
    files = {"base/parameters.yml": "a: 1", "mine/globals.yml": "{recipe: mine, extends: nosuch}"}
    with pytest.raises(MissingConfigException, match="nosuch"):
        _ = load(files)["parameters"]


def test_a_precision_and_a_length_are_set_once_unless_they_are_overridden(load: Load) -> None:
    files = {
        "base/parameters.yml": (
            "training: {precision: float32}\nsampling: {precision: null, max_new_tokens: 80}\n"
            "evaluation: {sampling: {precision: null, max_new_tokens: null}}"
        ),
        "mine/parameters.yml": "{training: {precision: bfloat16}, sampling: {max_new_tokens: 40}}",
    }
    found = load(files)["parameters"]
    assert found["sampling"] == {"precision": "bfloat16", "max_new_tokens": 40}
    assert found["evaluation"]["sampling"] == {"precision": "bfloat16", "max_new_tokens": 40}
    told = load(files, training={"precision": "float32"}, evaluation={"sampling": {"max_new_tokens": 9}})["parameters"]
    assert told["sampling"] == {"precision": "float32", "max_new_tokens": 40}
    assert told["evaluation"]["sampling"] == {"precision": "float32", "max_new_tokens": 9}


@pytest.mark.parametrize(("recipe", "precision", "length"), [("base", "float32", 80), ("gsm8k", "bfloat16", 400)])
def test_the_recipes_have_what_they_had(
    recipe: str, precision: str, length: int, recipe_parameters: Callable[[str], dict[str, Any]]
) -> None:
    found = recipe_parameters(recipe)
    for sampling in (found["sampling"], found["evaluation"]["sampling"]):
        assert (sampling["precision"], sampling["max_new_tokens"]) == (precision, length)
