"""`kedro feedback`: write the labelled and ranked samples for other trainers."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aft.bounds import SEEDS
from aft.errors import SettingsError
from aft.project import at_workplace
from aft.training.export import SHAPES

if TYPE_CHECKING:
    from aft.studies.run import Workplace

_SUFFIXES = (".jsonl", ".parquet")


@click.group()
def feedback() -> None:
    """The labelled and ranked samples of a run."""


@feedback.command("export")
@click.option("--as", "shape", type=click.Choice(SHAPES), required=True, help="For what trainer; see above.")
@click.option("--output", type=click.Path(path_type=Path, resolve_path=True), help="A .jsonl or .parquet file.")
@click.option("--seed", type=click.IntRange(0, SEEDS), default=0, show_default=True, help="The run's seed.")
@click.option("--label", help="The run's label, if it has one.")
@at_workplace
def export(place: "Workplace", shape: str, output: Path | None, seed: int, label: str | None) -> None:
    """Write what training learns from as rows of prompts and responses.

    trl_pairs: prompt, chosen, rejected, for every right and wrong response of a question; trl_unpaired: prompt,
    completion, label; sft: prompt, completion, as RFT imitates them; ranked: prompt, responses, ranks, rewards.

    Without --output the file is feedback_SHAPE.jsonl, beside the feedback in the data folder.
    """
    from aft.models.chat import chat_settings
    from aft.pipelines.tables import to_questions
    from aft.training.examples import refuse_held_out
    from aft.training.export import export_feedback

    if output is not None and output.suffix not in _SUFFIXES:
        raise SettingsError(f"--output is {output}, but must end in {' or '.join(_SUFFIXES)}.")
    context = place.context(label, seed)
    catalog, folder = context.catalog, context.config_loader["globals"]["folder"]
    questions, model = to_questions(catalog.load("train_questions")), catalog.load("vft_model")
    tokenizer, held_out = model.tokenizer(), catalog.load("held_out_hashes")
    refuse_held_out(questions, held_out, chat_settings(tokenizer).examples)
    table, configured = catalog.load("feedback").table(), context.params["training"].max_tokens
    # As the run trained, whatever its --params; a model that was not made by a run does not say.
    max_tokens = model.made_from.get("training", {}).get("max_tokens", configured)
    rows = export_feedback(shape, questions, table, tokenizer, max_tokens, model.end_tokens())
    beside = Path(place.globals["data"], "05_model_input", folder, f"seed_{seed}", f"feedback_{shape}.jsonl")
    path = (output or beside).absolute()
    _write(rows, path)
    click.echo(f"Written: {len(rows)} rows in {path}")


def _write(rows: list[dict[str, Any]], path: Path) -> None:
    from aft.files import write_atomically, write_text

    if path.suffix == ".jsonl":
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    else:
        from pyarrow import Table
        from pyarrow.parquet import write_table

        write_atomically(path, lambda staged: write_table(Table.from_pylist(rows), staged))
