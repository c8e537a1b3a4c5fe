"""The project's commands, of `aft` and `kedro`; a mistake of the user ends in one sentence instead of a traceback."""

import re
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.cli.utils import KedroCliError

from aft.cache_cli import cache
from aft.errors import AftError
from aft.feedback_cli import feedback
from aft.project import at_workplace, in_project
from aft.studies.cli import studies
from aft.user_errors import check_runner

if TYPE_CHECKING:
    from aft.studies.run import Workplace


@click.group(name="aft")
def cli() -> None:
    """Commands of the project."""


class _Run(click.Command):
    """`kedro run`; options that cannot be read end in one sentence, too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options; Kedro reads the values of some as YAML."""
        try:
            return super().parse_args(ctx, args)
        except KedroCliError as error:  # it shows itself as a traceback; Kedro raises it for this option only
            told = "--load-versions takes NAME:VERSION; leave it out, no dataset has versions."
            raise click.UsageError(told, ctx) from error
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise click.UsageError(f"The options cannot be read ({said}).", ctx) from error


def _split_no_brackets(ctx: click.Context, option: click.Parameter, value: Any) -> Any:
    """What Kedro makes of --params; it cuts at every comma, also at those of a list or dictionary."""
    if isinstance(value, str) and re.search(r"=\s*(\{[^}]*,|\[[^\]]*,)", value):
        raise click.BadParameter(
            "a list or dictionary of several entries cannot be given here; give a dictionary's keys with dots, as in "
            "training.lora.rank=8,training.lora.alpha=16, and write a list into the recipe's parameters.yml.",
            ctx,
            option,
        )
    return _SPLIT(ctx, option, value)  # type: ignore[misc]


def _run(**options: Any) -> Any:
    with in_project(options["env"], options["conf_source"] or None) as (_, conf_source):
        check_runner(options["runner"], options["runner_params"])
        return kedro_run.callback(**{**options, "conf_source": conf_source})  # type: ignore[misc]


@click.group()
def models() -> None:
    """Models beside a run: push one, convert one."""


@models.command("push")
@click.argument("model_dir", type=click.Path(path_type=Path))
@click.argument("name", metavar="OWNER/NAME")
@click.option("--private", is_flag=True, help="Make the repository a private one.")
def push_model(model_dir: Path, name: str, private: bool) -> None:
    """Upload the model in MODEL_DIR to the Hugging Face hub, with the token of `hf auth login` or HF_TOKEN.

    If it was evaluated since it was made, its card tells the hub the figures.
    """
    from aft.models.directory import open_model
    from aft.models.push import push
    from aft.pipelines.beside import results_of

    try:
        model = open_model(model_dir)
        click.echo(f"Pushed: {push(model, name, private=private, results=results_of(model))}")
    except AftError as error:
        raise click.ClickException(str(error)) from error


@models.command("harness")
@click.argument("model_dir", type=click.Path(path_type=Path))
@click.option("--to", "folder", type=click.Path(path_type=Path), default=Path("harness"), help="Where it is written.")
@click.option("--questions", type=click.Path(path_type=Path), help="Another Parquet table than the test questions'.")
@click.option("--max-new-tokens", type=click.IntRange(1), default=256, show_default=True, help="Of an answer.")
def write_harness_task(model_dir: Path, folder: Path, questions: Path | None, max_new_tokens: int) -> None:
    """Write a task of lm-evaluation-harness that asks the model in MODEL_DIR the test questions of its recipe."""
    from aft.evaluation.harness import write_task
    from aft.models.chat import prompt_style
    from aft.models.directory import open_model
    from aft.pipelines.beside import questions_beside

    try:
        model = open_model(model_dir)
        asked = questions_beside(model, questions)
        name = f"aft_{asked[0].dataset.rpartition('.')[2].partition('/')[0]}"
        path = write_task(model, asked, folder, name=name, max_new_tokens=max_new_tokens)
        # A chat template, which the prompts have had, writes the beginning-of-sequence token itself.
        more = ",add_bos_token=False" if prompt_style(model.tokenizer()) == "chat" else ""
    except AftError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"Written: {path}, of {len(asked)} questions. Run:")
    click.echo(
        f"lm_eval run --model hf --model_args pretrained={model_dir},dtype=float32{more} "
        f"--include_path {folder} --tasks {name} --log_samples --output_path {folder}"
    )


@models.command("from-gguf")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
def convert_gguf(file: Path, folder: Path) -> None:
    """Write the model in the GGUF FILE into the new FOLDER, in Hugging Face format: a base model."""
    from aft.models.gguf import convert

    try:
        click.echo(f"Written: {convert(file, folder).fingerprint} in {folder}")
    except AftError as error:
        raise click.ClickException(str(error)) from error


@models.command("pretrain-pocket")
@click.argument("folder", type=click.Path(path_type=Path, resolve_path=True))
@at_workplace
def pretrain_pocket(place: "Workplace", folder: Path) -> None:
    """Pretrain the pocket base model by base_model.pocket, measure it, and write it into FOLDER.

    With FOLDER src/aft/models/pocket_base this makes the model that ships with AFT.
    """
    from aft.pipelines.ingest.pocket_base import make_pocket_base

    params = place.context().params
    made, cache = params["base_model"].pocket, Path(params["model_cache"])
    click.echo(f"Written: {make_pocket_base(made, cache, folder).fingerprint} in {folder}")


_OPTIONS = [copy(option) for option in kedro_run.params]
_PARAMS = next(option for option in _OPTIONS if option.name == "params")
_SPLIT, _PARAMS.callback = _PARAMS.callback, _split_no_brackets
run = _Run("run", callback=_run, params=_OPTIONS, help=kedro_run.help)
cli.add_command(run)
cli.add_command(studies)
cli.add_command(models)
cli.add_command(cache)
cli.add_command(feedback)
