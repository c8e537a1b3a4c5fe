"""How the configuration of a run is merged: base, what the recipe extends, the recipe, local, the command line."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

from kedro.config import MissingConfigException, OmegaConfigLoader
from omegaconf import OmegaConf

INHERITED = {  # a parameter that is null is as another one
    ("sampling", "precision"): ("training", "precision"),
    ("evaluation", "sampling", "precision"): ("training", "precision"),
    ("evaluation", "sampling", "max_new_tokens"): ("sampling", "max_new_tokens"),
}
MACHINE = "local"  # the folder of a user's own settings and credentials, which git ignores


class RecipeConfigLoader(OmegaConfigLoader):
    """Kedro's loader over more folders of `conf/` than two; each is merged, key by key, over those before it.

    1. `base`; 2. the folder that the recipe `extends`, if its `globals.yml` names one; 3. the recipe (`--env`);
    4. `local`, if it is there; 5. the parameters of the command line.

    Parameters in `INHERITED` that are null then become what the shared ones are.

    A kind is read and merged once. Beside Kedro's resolvers there are `${globals:folder}`, the name under which the
    results of a run lie (its label, or else the recipe's name), and in the catalog `${parameters:task.family}` for any
    parameter.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        self._merged: dict[str, dict[str, Any]] = {}
        super().__init__(*given, **named)

    def __getitem__(self, key: str) -> dict[str, Any]:
        """The merged configuration of a kind, such as "parameters"; errors are those of Kedro's loader."""
        if key in self:  # set from outside
            return super().__getitem__(key)
        if key not in self._merged:
            self._merged[key] = self._read(key)
        return deepcopy(self._merged[key])

    def _read(self, key: str) -> dict[str, Any]:
        folders = [MACHINE] if Path(self.conf_source, MACHINE).is_dir() else []
        if key != "globals" and "extends" in (names := self["globals"]):
            folders = [names["extends"], str(self.env), *folders]
        if key == "catalog":
            parameters = OmegaConf.create(self["parameters"])
            OmegaConf.register_new_resolver("parameters", lambda name: OmegaConf.select(parameters, name), replace=True)
        try:
            merged = super().__getitem__(key)
        except MissingConfigException:
            if key != "credentials":  # these may lie in `local` alone
                raise
            merged: dict[str, Any] = {}
        for folder in folders:
            path = f"{self.conf_source}/{folder}"
            found = self.load_and_merge_dir_config(path, self.config_patterns[key], key, set(), key == "credentials")
            merged = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.merge(merged, found)))
        if key == "parameters":
            _inherit(merged)
        if key == "globals":
            merged["folder"] = self.runtime_params.get("label", merged.get("recipe"))
        return merged


def _inherit(parameters: dict[str, Any]) -> None:
    for (*path, name), shared in INHERITED.items():
        holder = _at(parameters, path)
        if isinstance(holder, dict) and name in holder and holder[name] is None:
            holder[name] = _at(parameters, shared)


def _at(values: Any, path: Sequence[str]) -> Any:
    """What stands at a path of nested dictionaries; None if nothing does."""
    for part in path:
        values = values.get(part) if isinstance(values, dict) else None
    return values
