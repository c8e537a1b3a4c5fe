"""Refuse, before anything runs, a model or file to be read that does not exist."""

from pathlib import Path

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

from aft.errors import SettingsError
from aft.feedback.ratings import check_ending
from aft.sampling.rollout_files import rollout_files


class CheckInputsHook:
    """Looks for what the run reads only after a training, which may take hours."""

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Raise `SettingsError` naming the parameter whose model or file does not exist.

        Raises `DataError` for a file of ratings, or files of responses, of no known kind.
        """
        made = pipeline.all_outputs()
        if "candidates" in made:
            folder, given, seed = (
                catalog.load(f"params:{name}") for name in ("sample_from", "candidates_from", "seed")
            )
            if given is not None and folder is not None:
                raise SettingsError("sample_from and candidates_from are set, but candidates come from one; unset one.")
            if given is not None:
                rollout_files(Path(given.replace("{seed}", str(seed))))
            if folder is not None and not _is_file(f"{folder}/config.json", seed):
                raise SettingsError(
                    f"sample_from is {folder!r:.80}, but there is no model; give a model's folder ({{seed}} in it "
                    "stands for the seed), or null for the VFT model."
                )
        if "feedback" in made:
            labelling, seed = catalog.load("params:labelling"), catalog.load("params:seed")
            drawn = "candidates" in made and catalog.load("params:candidates_from") is None
            if labelling.judge == "given" and drawn:
                raise SettingsError(
                    "labelling.judge is 'given', but samples that are drawn here come without ratings: set "
                    "candidates_from, or another judge."
                )
            if labelling.judge == "file":
                if not _is_file(labelling.ratings_file, seed):
                    raise SettingsError(
                        f"labelling.ratings_file is {labelling.ratings_file!r:.80}, but there is no such file; give "
                        "the path of one ({seed} in it stands for the seed)."
                    )
                check_ending(Path(labelling.ratings_file))


def _is_file(path: str, seed: int) -> bool:
    try:
        return Path(path.replace("{seed}", str(seed))).is_file()
    except OSError:  # longer than a path may be, or not to be read
        return False
