"""Labels and ratings that came with responses which were drawn elsewhere, beside our own."""

import logging
from collections.abc import Mapping
from typing import Any

import pandas as pd

from aft.errors import SettingsError

logger = logging.getLogger(__name__)

_EXAMPLES = 5  # rows with another label than ours that a summary names


def with_given_labels(labelled: pd.DataFrame, *, use: bool) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The labelled candidates, with the given labels as `is_correct` if they are to be used, and the counts of both.

    A label holds for all equal responses of a question, ended or cut. One that is said to be both right and wrong has
    none, and is counted. Without the column `given_label` (sampled candidates) nothing is compared. The counts, added
    to those of other questions, are for `told_of_labels`.
    """
    if "given_label" not in labelled:
        return labelled, {}
    same = labelled.groupby(["question_id", "response", "finish_reason"])["given_label"]
    doubtful, has_one = same.transform("nunique") > 1, labelled["given_label"].notna()
    contradictory = has_one & doubtful
    told = labelled[has_one & ~doubtful]
    other = told[told["is_correct"] != told["given_label"].astype(bool)]
    given = same.transform("first").mask(doubtful)  # of equal responses some may come with a label, some without
    counts = {
        "labelled": len(labelled),
        "given": len(told),
        "differ": len(other),
        "contradictory": int(contradictory.sum()),
        "examples": [f"{row.question_id} sample {row.sample_index}" for row in other.head(_EXAMPLES).itertuples()],
    }
    decided = given.fillna(labelled["is_correct"]).astype(bool) if use else labelled["is_correct"]
    return labelled.assign(is_correct=decided), counts


def told_of_labels(counts: Mapping[str, Any], *, use: bool) -> dict[str, Any]:
    """How the given labels compare with the task's own check, from the sums of their counts, for log and summary."""
    share, names = counts["differ"] / max(counts["given"], 1), ", ".join(counts["examples"][:_EXAMPLES])
    logger.log(
        logging.WARNING if counts["differ"] or counts["contradictory"] else logging.INFO,
        "Labels are given of %d of %d responses; %d (%.1f %%) differ from the task's own check%s, which %s; %d more "
        "call the same response right and wrong.",
        *(counts["given"], counts["labelled"], counts["differ"], 100 * share, f" ({names})" if names else ""),
        *("they override" if use else "decides", counts["contradictory"]),
    )
    return {
        "given": counts["given"],
        "used": use,
        "differ_from_check": counts["differ"],
        "share_that_differs": share,
        "examples": names,
        "contradictory": counts["contradictory"],
    }


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
