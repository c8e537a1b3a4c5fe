"""The tables between the stages: one schema each, checked by the catalog whenever a table is saved or loaded.

A broken row is refused with its id and the reason.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pandas as pd

from aft.errors import DataError
from aft.tasks import Question

if TYPE_CHECKING:
    import pandera.pandas as pa


def questions(table: pd.DataFrame) -> pd.DataFrame:
    """`questions` of one split: the fields of `Question`, ids unique; reference, prompt and choices may be empty."""
    import pandera.pandas as pa

    text = pa.Column(str, pa.Check.str_length(min_value=1))
    columns = {
        **dict.fromkeys(("question_id", "dataset", "split", "question", "answer", "content_hash"), text),
        **dict.fromkeys(("reference", "prompt"), pa.Column(str)),
        "choices": pa.Column(object, nullable=True),
    }
    return _validated(table, columns, unique=["question_id"])


def candidates(table: pd.DataFrame) -> pd.DataFrame:
    """Sampled responses: one row per question and sample index, token ids and log-probability as generated.

    Responses that were drawn elsewhere (`candidates_from`) have the last two columns, and may lack a log-probability.
    """
    import pandera.pandas as pa

    columns = {
        "question_id": pa.Column(str),
        "sample_index": pa.Column(int, pa.Check.ge(-1)),
        "seed": pa.Column(int),
        "response": pa.Column(str),
        "finish_reason": pa.Column(str, pa.Check.isin(["stop", "length"])),
        "sum_logprob": pa.Column(float, pa.Check.le(0.0), nullable=True),
        "n_tokens": pa.Column(int, pa.Check.ge(1)),
        "model_fingerprint": pa.Column(str),
        "settings_hash": pa.Column(str),
        "token_ids": pa.Column(object),
        "given_label": pa.Column("boolean", nullable=True, required=False),
        "given_rating": pa.Column(float, nullable=True, required=False),
    }
    return _validated(table, columns, unique=["question_id", "sample_index"])


def feedback(table: pd.DataFrame) -> pd.DataFrame:
    """Labelled and ranked responses; by `rank` a right one never stands below a wrong one of its question."""
    import pandera.pandas as pa

    columns = {
        "question_id": pa.Column(str),
        "sample_index": pa.Column(int, pa.Check.ge(0)),
        "response": pa.Column(str),
        "token_ids": pa.Column(object),
        "n_tokens": pa.Column(int, pa.Check.ge(1)),
        "extracted_answer": pa.Column(str, nullable=True),
        "is_parsed": pa.Column(bool),
        "is_correct": pa.Column(bool),
        "rating": pa.Column(float, nullable=True),
        "rank": pa.Column(int, pa.Check.ge(0)),
        "rating_rank": pa.Column("Int64", pa.Check.ge(0), nullable=True),
        "distinct_equations": pa.Column(bool, required=False),  # not of held-out groups
        "n_duplicates": pa.Column(int, pa.Check.ge(1)),
        "sum_logprob": pa.Column(float, pa.Check.le(0.0), nullable=True),  # null where no sampler told it
    }
    return _validated(table, columns, unique=["question_id", "sample_index"])


def _validated(table: pd.DataFrame, columns: "dict[str, pa.Column]", unique: list[str]) -> pd.DataFrame:
    import pandera.pandas as pa

    schema = pa.DataFrameSchema(columns, unique=unique, strict=True)
    try:
        return schema.validate(table, lazy=True)
    except pa.errors.SchemaErrors as error:
        first = error.failure_cases.iloc[0]
        row = f"row {_name(table, first['index'])}" if first["index"] is not None else "the table"
        raise DataError(
            f"{row} is refused: {first['column']} fails {first['check']} (found {first['failure_case']!r}); "
            f"{len(error.failure_cases)} failures in all. Run the stage that makes this table again."
        ) from error


def _name(table: pd.DataFrame, index: Any) -> str:
    return str(table.loc[index, "question_id"]) if index in table.index and "question_id" in table else str(index)


def to_table(rows: list[Question]) -> pd.DataFrame:
    """The `questions` table of one split."""
    records = [{name: getattr(row, name) for name in Question.__slots__} for row in rows]
    table = pd.DataFrame(records, columns=list(Question.__slots__))
    choices = [list(row.choices) if row.choices else None for row in rows]
    return table.assign(choices=pd.Series(choices, dtype="object", index=table.index))


def to_questions(table: pd.DataFrame) -> list[Question]:
    """The rows of a `questions` table, in its order."""
    fields = {name: table[name].tolist() for name in Question.__slots__}
    fields["choices"] = [None if choices is None else tuple(choices) for choices in fields["choices"]]
    return [Question(*row) for row in zip(*fields.values(), strict=True)]


def by_id(table: pd.DataFrame) -> dict[str, Question]:
    """The rows of a `questions` table, by question id."""
    return {question.question_id: question for question in to_questions(table)}


def lookup(table: pd.DataFrame) -> Callable[[pd.Series], dict[str, Question]]:
    """What gives the questions of some ids, by id, where all of them would be many; unknown ids are left out."""
    index = pd.Index(table["question_id"])

    def asked(ids: pd.Series) -> dict[str, Question]:
        places = index.get_indexer(pd.Index(ids.unique()))
        places = places[places >= 0]
        first, end = min(places, default=0), max(places, default=-1) + 1
        return by_id(table[first:end].iloc[places - first])  # of a slice: Arrow puts a column together to take from it

    return asked
