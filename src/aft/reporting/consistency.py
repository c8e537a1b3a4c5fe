"""Where a model ranks a wrong response above a right one of its question: of what kind these are, and what changed.

The scored groups that these functions take have one row per response: `question_id`, `sample_index`, `is_correct`
(bool), `score` (mean token log-probability, <= 0, natural log), and whatever the caller knows of a response besides,
such as its length or the kind of its first error. A pair is a right and a wrong response of one question; it is
inverted if the wrong one scores strictly higher. Where assessment accuracy counts a tie as one half, here it is no
inversion.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from aft.errors import DataError
from aft.evaluation.assessment import check_finite
from aft.evaluation.statistics import bootstrap_interval

PAIR = ["question_id", "sample_index_right", "sample_index_wrong"]
CHANGES = ("stays right", "mended", "new", "stays inverted")
NO_ERROR_NAMED = "no wrong step named"
_SPECIFIC = re.compile(
    r"""\"[^\n]*\"                                    # a quotation
      | (?!is\b)\b[a-z]+s[ ][0-9]+                    # an event with its amount: finds 3
      | (?<!\S)\S*[0-9=]\S*?(?=[.,;]?(?:\s|$))        # a number or an equation
    """,
    re.VERBOSE,
)


def response_pairs(scored: pd.DataFrame, describing: Sequence[str] = ()) -> pd.DataFrame:
    """Every pair of scored groups: `PAIR`, the scores `score_right` and `score_wrong`, `gap` = their difference in nats
    (right minus wrong), `inverted` (bool), and each column of `describing` as `<name>_right` and `<name>_wrong`.

    Questions that lack a right or a wrong response have no pair. Raises `NumericalError`, with the questions' ids, when
    a score is not finite.
    """
    check_finite(scored)
    is_correct = scored["is_correct"].to_numpy(dtype=bool)
    told = scored[["question_id", "sample_index", "score", *describing]]
    pairs = told[is_correct].merge(told[~is_correct], on="question_id", suffixes=("_right", "_wrong"))
    gap = pairs["score_right"] - pairs["score_wrong"]
    return pairs.assign(gap=gap, inverted=gap < 0)


def by_question(pairs: pd.DataFrame) -> pd.DataFrame:
    """Per question id: `pairs`, `inversions`, their `share`, and `worst_gap` in nats; most inverted first."""
    grouped = pairs.groupby("question_id", sort=True)
    table = grouped.agg(pairs=("gap", "size"), inversions=("inverted", "sum"), worst_gap=("gap", "min"))
    table.insert(2, "share", table["inversions"] / table["pairs"])
    return table.sort_values(["share", "worst_gap"], ascending=[False, True], kind="stable")


def inversions_by(pairs: pd.DataFrame, by: Sequence[str], level: float = 0.95) -> pd.DataFrame:
    """How often pairs are inverted, one row per value of the columns `by`: `questions`, `pairs`, `inversions`, `share`.

    `share` in [0, 1] is the mean over questions of the share of the question's pairs, as the macro assessment accuracy
    is; [`low`, `high`] is its interval by bootstrap over questions.
    """
    return _by_questions(pairs.assign(value=pairs["inverted"].astype(float)), by, "share", ["inverted"], level).rename(
        columns={"inverted": "inversions"}
    )


def changes(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """The pairs `before`, with their `gap_after` (nats) under another model and the `change`, one of `CHANGES`.

    Raises `DataError` if the two tables do not hold the same pairs.
    """
    joined = before.merge(
        after[[*PAIR, "gap", "inverted"]], on=PAIR, how="outer", suffixes=("", "_after"), indicator=True
    )
    other = joined[joined["_merge"] != "both"]
    if len(other) or len(joined) != len(before):
        name = other["question_id"].iloc[0] if len(other) else before["question_id"].iloc[0]
        raise DataError(f"Two models scored different pairs of {name}; assess both on the same groups.")
    was, is_now = joined["inverted"].to_numpy(dtype=bool), joined["inverted_after"].to_numpy(dtype=bool)
    number = 2 * was.astype(int) + is_now  # of CHANGES in the order right, new, mended, inverted
    names = np.array([CHANGES[0], CHANGES[2], CHANGES[1], CHANGES[3]], dtype=object)
    return joined.drop(columns=["inverted_after", "_merge"]).assign(change=names[number])


def changes_by(changed: pd.DataFrame, by: Sequence[str], level: float = 0.95) -> pd.DataFrame:
    """What changed, one row per value of the columns `by`: `questions`, `pairs`, `mended`, `new`, `inverted_after`.

    `difference` in [-1, 1] is the change of the share of inverted pairs (see `inversions_by`), negative where more were
    mended than made; [`low`, `high`] is its paired interval by bootstrap over questions.
    """
    mended, new, kept = (changed["change"] == name for name in CHANGES[1:])
    told = changed.assign(value=new.astype(float) - mended, mended=mended, new=new, inverted_after=new | kept)
    return _by_questions(told, by, "difference", ["mended", "new", "inverted_after"], level)


def case_studies(changed: pd.DataFrame, count: int) -> pd.DataFrame:
    """The mended pairs whose gap grew most, of up to `count` different questions; of all pairs where none is mended."""
    mended = changed[changed["change"] == "mended"]
    chosen = mended if len(mended) else changed
    order = (chosen["gap"] - chosen["gap_after"]).sort_values(kind="stable").index
    return chosen.loc[order].drop_duplicates("question_id").head(count)


def quantile_ranges(values: pd.Series, most: int = 5) -> pd.Series:
    """The range of values ("3 to 7") that each value falls in, an ordered categorical of at most `most` ranges.

    The ranges hold about equally many values each; equal values are never parted.
    """
    numbers = values.to_numpy(dtype=np.float64)
    if not numbers.size:
        return pd.Series(pd.Categorical([], ordered=True), index=values.index)
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, most + 1)[1:-1], method="lower"))
    _, codes = np.unique(np.searchsorted(edges, numbers), return_inverse=True)
    ends = [(numbers[codes == code].min(), numbers[codes == code].max()) for code in range(codes.max() + 1)]
    labels = [f"{low:g}" if low == high else f"{low:g} to {high:g}" for low, high in ends]
    ranges = pd.Categorical([labels[code] for code in codes], categories=labels, ordered=True)
    return pd.Series(ranges, index=values.index)


def error_kind(wrong_steps: Sequence[str]) -> str:
    """The kind of a response's first wrong step: its sentence up to a colon, without quotations, events and numbers.

    "The equation 3+4=8 does not hold." and "The equation 2*2=5 does not hold." are of one kind: "The equation … does
    not hold". Linear in time.
    """
    if not wrong_steps:
        return NO_ERROR_NAMED
    general, _, _ = _SPECIFIC.sub("…", wrong_steps[0]).partition(":")
    return general.strip("… .")


def first_wrong_step(response: str, wrong_steps: Sequence[str], equations: Callable[[str], list[str]]) -> int:
    """The number, from 1, of the first of `wrong_lines`.

    Where no line is quoted, what is missing is only known at the end: it is the number of the last line.
    """
    found = wrong_lines(response, wrong_steps, equations)
    return found[0] if found else len(response.rstrip("\n").split("\n"))


def wrong_lines(response: str, wrong_steps: Sequence[str], equations: Callable[[str], list[str]]) -> list[int]:
    """The numbers, from 1, of the lines of `response` that `wrong_steps` quote, as a whole or one of their equations.

    `equations` gives those of a text, as the sentences write them.
    """
    told = "\n".join(wrong_steps)
    return [
        number
        for number, line in enumerate(response.split("\n"), start=1)
        if (line.strip() and f'"{line[:80]}"' in told) or any(_stands_in(one, told) for one in equations(line))
    ]


def _stands_in(equation: str, text: str) -> bool:
    """Whether an equation stands in the text as a whole: 2+2=4 is not in 12+2=41."""
    return re.search(rf"(?<![\w.]){re.escape(equation)}(?!\w)", text) is not None


def step_means(pieces: Sequence[str], logprobs: np.ndarray) -> pd.DataFrame:
    """Per line of a response: its number `step`, `text`, `tokens`, and `score`, the mean log-probability of its tokens.

    `pieces` are the texts of the tokens [C], `logprobs` [C] in nats; a token belongs to the line in which it begins.
    """
    steps = np.cumsum([0, *(piece.count("\n") for piece in pieces)])[: len(pieces)] + 1
    table = pd.DataFrame({"step": steps, "text": pd.Series(pieces, dtype="str"), "logprob": logprobs})
    by_step = table.groupby("step", as_index=False).agg(
        text=("text", "".join), tokens=("logprob", "size"), score=("logprob", "mean")
    )
    return by_step.assign(text=by_step["text"].str.strip("\n"))


def _by_questions(
    pairs: pd.DataFrame, by: Sequence[str], name: str, counted: Sequence[str], level: float
) -> pd.DataFrame:
    """Per value of `by`: numbers of questions and pairs, sums of the columns `counted`, and the mean of `value` over
    questions, as `name`, with the ends `low` and `high` of its interval."""
    rows = []
    for key, own in pairs.groupby(list(by), sort=True, observed=True, dropna=False):
        per_question = own.groupby("question_id")["value"].mean()
        low, high = bootstrap_interval(per_question, level=level)
        rows.append(
            {
                **dict(zip(by, key, strict=True)),
                "questions": len(per_question),
                "pairs": len(own),
                **{column: int(own[column].sum()) for column in counted},
                name: float(per_question.mean()),
                "low": low,
                "high": high,
            }
        )
    return pd.DataFrame(rows, columns=[*by, "questions", "pairs", *counted, name, "low", "high"])
