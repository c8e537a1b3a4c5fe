"""What a comparison came to, in words: three sentences at most, from its table."""

from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd


def in_words(comparison: pd.DataFrame, baseline: str, unconstrained: Collection[str]) -> list[str]:
    """Who leads, by how much against the baseline and whether that is separable, and what the unconstrained did.

    A difference is separable if its paired interval leaves out zero. `comparison` has a row per variant with `variant`,
    `accuracy`, `difference` to the baseline and its interval `difference_low`, `difference_high`, all fractions in
    [-1, 1]; the last sentence is left out where none of the `unconstrained` is among them.
    """
    rows = {str(row["variant"]): row for row in comparison.to_dict("records")}
    first = leaders(comparison)
    names, most = " and ".join(filter(None, (", ".join(first[:-1]), first[-1]))), rows[first[0]]["accuracy"]
    sentences = [f"{names} {'leads' if len(first) == 1 else 'lead together'} with {100 * most:.1f} % right answers."]
    if baseline in first:
        sentences.append(f"No variant stands above {baseline}.")
    else:
        sentences.append(f"{'; '.join(_against(name, rows[name], baseline) for name in first)}.")
    loose = [name for name in rows if name in unconstrained]
    if loose:
        sentences.append(f"Without a constraint, {'; '.join(_against(name, rows[name], baseline) for name in loose)}.")
    return sentences


def leaders(comparison: pd.DataFrame) -> list[str]:
    """The variants of the highest accuracy, of which there may be several."""
    return comparison["variant"][comparison["accuracy"] == comparison["accuracy"].max()].astype(str).tolist()


def _against(name: str, row: Mapping[Any, Any], baseline: str) -> str:
    """How far a variant stands above or below the baseline, with the interval, and whether that can be told apart."""
    difference, low, high = (100 * row[f"difference{end}"] for end in ("", "_low", "_high"))
    where = "above" if difference > 0 else "below"
    points = f"{abs(difference):.1f} points {where}" if round(abs(difference), 1) else "level with"
    separable = "separable" if low > 0 or high < 0 else "not separable"
    return f"{name} is {points} {baseline} [{low:+.1f}, {high:+.1f}], {separable}"
