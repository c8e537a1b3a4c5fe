"""Ingest: the questions of every split, and the base model."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from aft.checked import read
from aft.code import deciding
from aft.errors import DataError, SettingsError
from aft.models.directory import ModelDirectory
from aft.pipelines.parameters import PRETRAINED, SHIPPED, BaseModel, PocketBase, TaskChoice
from aft.pipelines.tables import to_questions, to_table
from aft.tasks import Question, get_source, get_task
from aft.tasks.base import SPLITS, identities
from aft.tasks.near_duplicates import NearDuplicate, near_duplicates

logger = logging.getLogger(__name__)


def load_questions(
    raw_questions: TaskChoice | dict[str, Any], raw_test_sets: dict[str, Any]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame, list[str]]:
    """The questions of train, validation and test, those of other sets, and the hashes training must not see.

    Both are handles on what a task family reads, the second by name. The other sets are the validation questions and
    the test questions of `raw_test_sets`, whose names are their splits and the first part of their ids, so that one
    family may ask several of them; a question that is also in a split or in a set before is left out, and counted.
    """
    task = read(TaskChoice, raw_questions, "raw_questions")
    splits = _splits(task)
    empty = [split for split in ("train", "test") if not splits[split]]
    if empty:
        raise SettingsError(f"The settings of '{task.family}' leave no question for {' and '.join(empty)}.")
    _refuse_overlaps(splits)
    splits = _without_respelt(splits)
    others = [*splits["validation"], *_other_questions(raw_test_sets, splits)]
    held_out = sorted(set().union(*map(identities, (*splits["test"], *others))))
    logger.info("Questions: %s.", ", ".join(f"{len(rows)} {split}" for split, rows in splits.items()))
    train, validation, test = (to_table(splits[split]) for split in SPLITS)
    return train, validation, test, to_table(others), held_out


def find_near_duplicates(
    train_questions: pd.DataFrame, test_questions: pd.DataFrame, other_questions: pd.DataFrame
) -> pd.DataFrame:
    """Near-duplicates of held-out questions (test and other sets) among the training questions: reported, not removed.

    Questions that their family generates are left out: they are alike by design.
    """
    train, *others = (to_questions(table) for table in (train_questions, test_questions, other_questions))
    held_out = [question for questions in others for question in questions]
    written = [question for question in train if not getattr(get_task(question.dataset), "GENERATED", False)]
    if not written:
        logger.info("Near-duplicates: not looked for, as all training questions are generated.")
    pairs = near_duplicates(written, held_out)
    if written:
        logger.log(
            logging.WARNING if pairs else logging.INFO,
            "Near-duplicates: %d of %d held-out questions are nearly a training question (%d but for the numbers); all "
            "are kept, and named in near_duplicates.",
            len({pair.held_out_id for pair in pairs}),
            len(held_out),
            len({pair.held_out_id for pair in pairs if pair.kind == "numbers"}),
        )
    columns = [column.name for column in fields(NearDuplicate)]
    return pd.DataFrame([asdict(pair) for pair in pairs], columns=columns)


def _splits(task: TaskChoice) -> Mapping[str, list[Question]]:
    """The questions of a family under its settings; raises `SettingsError` if they are none of the family's."""
    family = get_source(task.family)
    return family.load_questions(read(family.Settings, task.settings, f"{task.family}.settings"))


def _other_questions(test_sets: Mapping[str, Any], splits: Mapping[str, list[Question]]) -> list[Question]:
    seen = {known for rows in splits.values() for question in rows for known in identities(question)}
    datasets = {question.dataset for question in splits["test"]}
    chosen: list[Question] = []
    for name, asked in test_sets.items():
        if name in SPLITS:
            raise SettingsError(f"A test set cannot be called '{name}'; the splits are {', '.join(SPLITS)}.")
        if not name.strip() or "/" in name:
            raise SettingsError(f"A test set cannot be called '{name}': the ids of its questions are <name>/<id>.")
        if len(datasets) > 1 and name in datasets:
            raise SettingsError(f"A test set cannot be called '{name}': the test questions of {name} are that set.")
        rows = _splits(read(TaskChoice, asked, f"test_sets.{name}"))["test"]
        new = [
            replace(question, split=name, question_id=f"{name}/{question.question_id}")
            for question in rows
            if identities(question).isdisjoint(seen)
        ]
        left_out = len(rows) - len(new)
        logger.info("Test set %s: %d questions; %d are in other splits, too, and left out.", name, len(new), left_out)
        seen |= {known for question in new for known in identities(question)}
        chosen += new
    return chosen


def _refuse_overlaps(splits: Mapping[str, list[Question]]) -> None:
    """Raise `DataError` if two splits share a question, by content hash."""
    hashes = {split: {question.content_hash for question in rows} for split, rows in splits.items()}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        shared = hashes[one] & hashes[other]
        if shared:
            raise DataError(f"{len(shared)} questions are in both {one} and {other}; the source's splits overlap.")


def _without_respelt(splits: Mapping[str, list[Question]]) -> dict[str, list[Question]]:
    """The splits without what another one, which is held out from it, asks with other white space; the log counts it.

    Families tell their questions apart by content hash, for which "5 km" and "5km" are two.
    """
    kept, held_out = dict[str, list[Question]](), set[str]()
    for split in reversed(SPLITS):  # test stays whole
        kept[split] = [question for question in splits[split] if held_out.isdisjoint(identities(question))]
        dropped = len(splits[split]) - len(kept[split])
        if dropped:
            logger.warning("Dropped %d %s questions that are held out, but for white space.", dropped, split)
        held_out.update(*map(identities, kept[split]))
    return {split: kept[split] for split in SPLITS}


def prepare_base_model(base_model: BaseModel, model_cache: str) -> ModelDirectory:
    """The base model: pocket's, as it ships or pretrained here (once per settings), a folder or a pinned hub revision.

    A given one carries the style of its prompts from here on.
    """
    from aft.models.publish import in_prompt_style
    from aft.models.source import check_pinned, find_model

    cache = Path(model_cache)
    if base_model.source not in (SHIPPED, PRETRAINED):
        found = find_model(base_model.source, base_model.revision, base_model.fingerprint)
        return in_prompt_style(found, base_model.prompt_style, cache, base_model.chat)
    model = _pocket_model(base_model, cache)
    check_pinned(model, base_model.source, base_model.fingerprint)
    return model


def _pocket_model(base_model: BaseModel, cache: Path) -> ModelDirectory:
    from aft.models.shipped import shipped_model
    from aft.training.pretrain import pretrain_pocket

    if base_model.prompt_style != "plain":
        raise SettingsError(
            f"base_model.prompt_style is '{base_model.prompt_style}', but the pocket model has no chat template and "
            "knows plain prompts only; set it to plain, or give another base_model.source."
        )
    made = base_model.pocket
    if base_model.source == PRETRAINED:
        if made is None:
            raise SettingsError("base_model.source is 'pretrain', but base_model.pocket has no settings.")
        return pretrain_pocket(made.corpus, made.architecture, made.training, cache).directory
    if made is not None:
        _refuse_other_settings(made)
    return shipped_model(cache)


def _refuse_other_settings(made: PocketBase) -> None:
    """Raise `SettingsError` if the pocket model that ships was made under other settings than those asked for."""
    from aft.models.shipped import facts_of_shipped

    asked = {
        "corpus": asdict(made.corpus),
        "architecture": asdict(made.architecture),
        "training": deciding(made.training),
    }
    shipped = facts_of_shipped()["made_from"]
    other = [name for name, value in asked.items() if shipped[name] != value]
    if other:
        raise SettingsError(
            f"The pocket base model that ships with AFT was made under another {' and '.join(other)} than "
            f"base_model.pocket asks for: set base_model.source={PRETRAINED} to make one of these settings."
        )
