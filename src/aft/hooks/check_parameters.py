"""Refuse, before anything runs, invalid parameters, versions of datasets, names of folders and runners.

A misspelt key must not silently leave the default in force, and two names must not give one folder.
"""

import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.framework.project import pipelines
from kedro.io import CatalogProtocol

from aft.bounds import SEEDS, counted, shown
from aft.errors import SettingsError
from aft.nested import leaves
from aft.pipelines.comparisons import SHAPING
from aft.pipelines.content import paths_of, refuse_address
from aft.pipelines.faults import faults
from aft.pipelines.parameters import MACHINE

_PREFIX = "params:"
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.=-]{0,79}")
_TAKEN = "cache"  # what lies beside the folders of recipes and labels
_READ_BY_CATALOG = {"task", "test_sets"}  # the raw questions are what they say
_AT_ONCE = re.compile("ParallelRunner|ThreadRunner")


class CheckParametersHook:
    """Compares the parameters with what the project's nodes read, and what names folders with what can."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Raise `SettingsError` naming each name of a folder and each parameter that is not what it must be."""
        names, parameters = context.config_loader["globals"], context.config_loader["parameters"]
        given = context.config_loader.runtime_params or {}
        _check_folder(names.get("recipe"), "recipe", 'recipe: "{}" in globals.yml')
        if not isinstance(names.get("data"), str) or not names["data"]:
            raise SettingsError(f"data is {shown(names.get('data'))} in globals.yml, but must be the path of a folder.")
        refuse_address(names["data"], "data in globals.yml")
        _check_seed(parameters.get("seed", 0), given)
        _check_label(parameters.get("label"), given)
        if "label" in given:
            _check_no_recipe(given["label"], names["recipe"], Path(context.config_loader.conf_source))
        if "recipe" in given:
            raise SettingsError("The recipe is chosen by --env; its name stands in its globals.yml.")
        found = faults(parameters)
        if found:
            raise SettingsError(" ".join(found))

    @hook_impl
    def after_catalog_created(self, conf_catalog: dict[str, Any], load_versions: dict[str, str] | None) -> None:
        """Raise `SettingsError` if a version is asked for where there is none, or a dataset is to lie at an address."""
        ours = {name: one for name, one in conf_catalog.items() if str(one.get("type")).startswith("aft.")}
        for name, path in paths_of(ours):  # Kedro's own datasets know addresses
            refuse_address(path, f"In the catalog, {name}")
        for name in load_versions or {}:
            if not conf_catalog.get(name, {}).get("versioned"):
                raise SettingsError(f"--load-versions names {name}, but that dataset has no versions; leave it out.")

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], catalog: CatalogProtocol) -> None:
        """Raise `SettingsError` naming unknown keys and the nearest known ones, or the way to several processes."""
        if os.environ.get("WORLD_SIZE", "1") != "1":  # every process would write the same data
            raise SettingsError(
                "Do not start a run with torchrun: set launch.processes, and training starts them itself."
            )
        # Threads race when they import transformers, and a process that was forked cannot use a GPU.
        if _AT_ONCE.search(str(run_params.get("runner"))):
            raise SettingsError(
                "Nodes run one after another: leave out --runner; for several processes set launch.processes, and for "
                "several runs at once use `kedro studies` with -j."
            )
        if run_params.get("only_missing_outputs"):  # of a table of several seeds Kedro cannot say whose is missing
            raise SettingsError("Leave out --only-missing-outputs: every run finds finished work by itself.")
        check_known(catalog.load("parameters"))


def check_known(parameters: dict[str, Any]) -> None:
    """Raise `SettingsError` naming the keys that neither node nor catalog reads, and the nearest known ones."""
    read = _READ_BY_CATALOG | {
        name.removeprefix(_PREFIX)
        for pipeline in pipelines.values()
        for name in pipeline.inputs()
        if name.startswith(_PREFIX)
    }
    unknown = [
        key
        for key, _ in leaves(parameters)
        if key.partition(".")[0] not in ("label", *SHAPING, *MACHINE)  # it names folders; these were checked whole
        and not any(key == known or key.startswith(f"{known}.") for known in read)
    ]
    if unknown:
        raise SettingsError(" ".join(_sentence(key, sorted(read)) for key in unknown))


def _check_seed(seed: Any, runtime_params: dict[str, Any]) -> None:
    """Folders are named by the seed of the command line: it must be a whole number, and the one in force."""
    if not counted(0, SEEDS).hold(seed):
        raise SettingsError(f"The seed is {shown(seed)}, but must be a whole number from 0 to {SEEDS}.")
    if seed != runtime_params.get("seed", 0):
        raise SettingsError(f"Set the seed on the command line (--params=seed={seed}), not in the configuration.")


def _check_label(label: Any, runtime_params: dict[str, Any]) -> None:
    """Folders are named by the label of the command line."""
    if label != runtime_params.get("label"):
        raise SettingsError(
            f"Set the label on the command line (--params=label={shown(label)}), not in the configuration."
        )
    if "label" in runtime_params:
        _check_folder(label, "label", "--params='label=\"{}\"'")


def _check_no_recipe(label: str, own: str, conf: Path) -> None:
    """A folder holds the results of one recipe."""
    for file in conf.glob("*/globals*.yml"):
        with file.open(encoding="utf-8") as text:
            content = yaml.safe_load(text)
        if isinstance(content, dict) and label == content.get("recipe") != own:
            raise SettingsError(
                f"The label is '{label}', but the folder of that name holds the results of a recipe; choose another."
            )


def _check_folder(name: Any, what: str, quoted: str) -> None:
    """A folder is called exactly as a person wrote it: YAML makes one number of 1.10 and 1.1."""
    if name is None:
        raise SettingsError(f"The {what} is empty, but is the name of a folder.")
    if not isinstance(name, str):
        raise SettingsError(
            f"The {what} is read as {shown(name)} and not as text; put it in quotes, as in {quoted.format('1.10')}, or "
            "choose a name that begins with a letter."
        )
    if not _FOLDER.fullmatch(name):
        raise SettingsError(
            f"The {what} is {name!r:.80}, but must be a name of up to 80 letters, digits and _ . = - for a folder."
        )
    if name == _TAKEN:
        raise SettingsError(f"The {what} is '{name}', but the folder of that name holds what all runs share.")


def _sentence(key: str, known: list[str]) -> str:
    near = get_close_matches(key, known, n=1, cutoff=0.6)
    top = sorted({name.split(".", 1)[0] for name in known})
    hint = f"did you mean '{near[0]}'?" if near else f"the parameters are {', '.join(top)}."
    return f"There is no parameter '{key}': {hint}"
