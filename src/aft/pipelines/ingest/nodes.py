"""Ingest: the questions of every split, and the base model."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from aft.errors import DataError, SettingsError
from aft.models.directory import ModelDirectory
from aft.pipelines.parameters import BaseModel, TaskChoice
from aft.pipelines.tables import to_table
from aft.tasks import Question, get_task
from aft.tasks.base import SPLITS

logger = logging.getLogger(__name__)


def load_questions(
    task: TaskChoice, test_sets: dict[str, Any]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame, list[str]]:
    """The questions of train, validation and test, those of other sets, and the hashes training must not see.

    The other sets are the validation questions and the test questions of `test_sets`, whose names are their splits;
    a question that is also a training or test question is left out of them, and counted.
    """
    splits = _splits(task)
    empty = [split for split in ("train", "test") if not splits[split]]
    if empty:
        raise SettingsError(f"The settings of '{task.family}' leave no question for {' and '.join(empty)}.")
    held_out = _held_out(splits)
    others = [*splits["validation"], *_other_questions(_choices(test_sets), splits)]
    logger.info("Questions: %s.", ", ".join(f"{len(rows)} {split}" for split, rows in splits.items()))
    train, validation, test = (to_table(splits[split]) for split in SPLITS)
    return train, validation, test, to_table(others), held_out


def _splits(task: TaskChoice) -> Mapping[str, list[Question]]:
    """The questions of a family under its settings; raises `SettingsError` if they are none of the family's."""
    family = get_task(task.family)
    try:
        settings = TypeAdapter(family.Settings).validate_python(task.settings, extra="forbid")
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        known = ", ".join(family.Settings.__dataclass_fields__)
        raise SettingsError(f"The settings of '{task.family}' are refused ({faults}); they are {known}.") from error
    return family.load_questions(settings)


def _choices(test_sets: Mapping[str, Any]) -> dict[str, TaskChoice]:
    """The test sets by name; Kedro makes typed parameters of single entries only."""
    try:
        return TypeAdapter(dict[str, TaskChoice]).validate_python(test_sets)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise SettingsError(f"test_sets are refused ({faults}); each needs a family, and may have settings.") from error


def _other_questions(test_sets: Mapping[str, TaskChoice], splits: Mapping[str, list[Question]]) -> list[Question]:
    seen = {question.content_hash for rows in splits.values() for question in rows}
    chosen: list[Question] = []
    for name, task in test_sets.items():
        if name in SPLITS:
            raise SettingsError(f"A test set cannot be called '{name}'; the splits are {', '.join(SPLITS)}.")
        rows = _splits(task)["test"]
        new = [replace(question, split=name) for question in rows if question.content_hash not in seen]
        left_out = len(rows) - len(new)
        logger.info("Test set %s: %d questions; %d are in other splits, too, and left out.", name, len(new), left_out)
        seen |= {question.content_hash for question in new}
        chosen += new
    return chosen


def _held_out(splits: Mapping[str, list[Question]]) -> list[str]:
    """Content hashes of validation and test; raises `DataError` if two splits share a question."""
    hashes = {split: {question.content_hash for question in rows} for split, rows in splits.items()}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        shared = hashes[one] & hashes[other]
        if shared:
            raise DataError(f"{len(shared)} questions are in both {one} and {other}; the source's splits overlap.")
    return sorted(hashes["validation"] | hashes["test"])


def prepare_base_model(base_model: BaseModel, held_out: list[str], model_cache: str) -> ModelDirectory:
    """The base model: pretrained for pocket (once per settings), else the given folder or a pinned hub revision."""
    from aft.models.source import find_model
    from aft.training.pretrain import pretrain_pocket

    if base_model.source != "pocket":
        return find_model(base_model.source, base_model.revision, base_model.fingerprint)
    if base_model.pocket is None:
        raise SettingsError("base_model.source is 'pocket', but base_model.pocket has no settings.")
    made = base_model.pocket
    return pretrain_pocket(made.corpus, made.architecture, made.training, held_out, Path(model_cache)).directory
