"""Labels and ratings that came with responses which were drawn elsewhere, beside our own."""

import logging
from typing import Any

import pandas as pd

from aft.errors import SettingsError

logger = logging.getLogger(__name__)

_EXAMPLES = 5  # rows with another label than ours that a summary names


def with_given_labels(labelled: pd.DataFrame, *, use: bool) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The labelled candidates, with the given labels as `is_correct` if they are to be used, and how both compare.

    A response of a question, ended or cut, that is said to be both right and wrong has no given label, and is counted.
    Without the column `given_label` (sampled candidates) nothing is compared.
    """
    if "given_label" not in labelled:
        return labelled, {}
    same = labelled.groupby(["question_id", "response", "finish_reason"])["given_label"]
    contradictory = labelled["given_label"].notna() & (same.transform("nunique") > 1)
    given = labelled["given_label"].mask(contradictory)
    told = labelled[given.notna()]
    other = told[told["is_correct"] != given.dropna().astype(bool)]
    share = len(other) / max(len(told), 1)
    names = [f"{row.question_id} sample {row.sample_index}" for row in other.head(_EXAMPLES).itertuples()]
    logger.log(
        logging.WARNING if len(other) or contradictory.any() else logging.INFO,
        "Labels are given of %d of %d responses; %d (%.1f %%) differ from the task's own check%s, which %s; %d more "
        "call the same response right and wrong.",
        *(len(told), len(labelled), len(other), 100 * share, f" ({', '.join(names)})" if names else ""),
        *("they override" if use else "decides", int(contradictory.sum())),
    )
    report = {
        "given": len(told),
        "used": use,
        "differ_from_check": len(other),
        "share_that_differs": share,
        "examples": ", ".join(names),
        "contradictory": int(contradictory.sum()),
    }
    decided = given.fillna(labelled["is_correct"]).astype(bool) if use else labelled["is_correct"]
    return labelled.assign(is_correct=decided), {"given_labels": report}


def given_ratings(candidates: pd.DataFrame, feedback: pd.DataFrame) -> pd.Series:
    """The given rating of each row of `feedback`, in its index: the mean over responses with the same tokens.

    NaN = unrated. Raises `SettingsError` for candidates that were sampled.
    """
    if "given_rating" not in candidates:
        raise SettingsError("labelling.judge is 'given', but these candidates were sampled: set candidates_from.")
    tokens = candidates["token_ids"].map(tuple)
    means = candidates["given_rating"].groupby([candidates["question_id"], tokens]).mean().to_dict()
    keys = zip(feedback["question_id"], feedback["token_ids"].map(tuple), strict=True)
    return pd.Series([means[key] for key in keys], index=feedback.index, dtype="float64", name="rating")
