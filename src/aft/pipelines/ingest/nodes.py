"""Ingest: the questions of every split, and the base model."""

import logging
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from aft.errors import DataError, SettingsError
from aft.models.directory import ModelDirectory
from aft.pipelines.parameters import BaseModel, TaskChoice
from aft.pipelines.tables import to_table
from aft.tasks import Question, get_task

logger = logging.getLogger(__name__)


def load_questions(task: TaskChoice) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, list[str]]:
    """The questions of train, validation and test, and the content hashes that training must never see."""
    family = get_task(task.family)
    try:
        settings = TypeAdapter(family.Settings).validate_python(task.settings, extra="forbid")
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        known = ", ".join(family.Settings.__dataclass_fields__)
        raise SettingsError(f"The settings of '{task.family}' are refused ({faults}); they are {known}.") from error
    splits = family.load_questions(settings)
    empty = [split for split in ("train", "test") if not splits[split]]
    if empty:
        raise SettingsError(f"The settings of '{task.family}' leave no question for {' and '.join(empty)}.")
    held_out = _held_out(splits)
    logger.info("Questions: %s.", ", ".join(f"{len(rows)} {split}" for split, rows in splits.items()))
    return to_table(splits["train"]), to_table(splits["validation"]), to_table(splits["test"]), held_out


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
