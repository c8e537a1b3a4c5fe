"""`kedro run` of this project: the same options; a mistake of the user ends in one sentence instead of a traceback."""

import os
from pathlib import Path
from typing import Any

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.utils import find_kedro_project

from aft.cache_cli import cache
from aft.errors import AftError
from aft.mistakes import check_recipe, one_sentence
from aft.studies.cli import studies


@click.group(name="aft")
def cli() -> None:
    """Commands of the project."""


def _run(**options: Any) -> Any:
    if options.get("conf_source"):
        options["conf_source"] = str(Path(options["conf_source"]).resolve())
    os.chdir(find_kedro_project(Path.cwd()) or Path.cwd())  # paths in parameters are relative to the project
    try:
        check_recipe(options.get("env"), Path(options.get("conf_source") or "conf"))
        return kedro_run.callback(**options)  # type: ignore[misc]
    except Exception as error:
        sentence = one_sentence(error)
        if sentence is None:
            raise
        raise click.ClickException(sentence) from error


@click.group()
def models() -> None:
    """What can be done with a finished model."""


@models.command("push")
@click.argument("model_dir", type=click.Path(path_type=Path))
@click.argument("name", metavar="OWNER/NAME")
@click.option("--private", is_flag=True, help="Make the repository a private one.")
def push_model(model_dir: Path, name: str, private: bool) -> None:
    """Upload the model in MODEL_DIR to the Hugging Face hub, with the token of `hf auth login` or HF_TOKEN."""
    from aft.models.directory import open_model
    from aft.models.push import push

    try:
        click.echo(f"Pushed: {push(open_model(model_dir), name, private=private)}")
    except AftError as error:
        raise click.ClickException(str(error)) from error


run = click.Command("run", callback=_run, params=kedro_run.params, help=kedro_run.help)
cli.add_command(run)
cli.add_command(studies)
cli.add_command(models)
cli.add_command(cache)
