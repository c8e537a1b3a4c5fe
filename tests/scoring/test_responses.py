"""Scores of a table of responses: each row's own, made once and kept under what they follow from."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from aft.errors import DataError, NumericalError, StoreError
from aft.files import hash_file
from aft.models.directory import ModelDirectory, open_model
from aft.models.publish import save_model
from aft.models.tokens import encode_prompt
from aft.scoring import paths
from aft.scoring.responses import score_responses
from aft.sealed import with_seal
from aft.tasks import get_task


@pytest.fixture
def table(pocket_questions) -> pd.DataFrame:
    """Responses of one to nine tokens to three questions, out of order, in arrays as from Parquet."""
    rng = np.random.default_rng(0)
    names = [pocket_questions[i].question_id for i in (2, 0, 1, 0, 2, 2, 1)]
    tokens = [rng.integers(4, 60, size=size) for size in (9, 1, 3, 5, 2, 9, 4)]
    rows = {"question_id": names, "sample_index": range(7), "token_ids": tokens, "response": "not what is scored"}
    return pd.DataFrame(rows, index=range(10, 17))


@pytest.fixture
def by_id(pocket_questions):
    return {question.question_id: question for question in pocket_questions}


@pytest.fixture
def scored(pocket_directory, by_id, tmp_path):
    """Score a table, by the pocket model if nothing else is said."""

    def run(rows, model=pocket_directory, precision="float32", questions=by_id, budget=8192, **how):
        store = tmp_path / "scores"
        return score_responses(model, rows, questions, precision, store, token_budget=budget, **how)

    return run


@pytest.fixture
def loads(monkeypatch):
    """The precisions in which models are loaded."""
    seen = []
    original = ModelDirectory.model

    def remember(self, dtype="float32"):
        seen.append(dtype)
        return original(self, dtype)

    monkeypatch.setattr(ModelDirectory, "model", remember)
    return seen


def finished(tmp_path):
    return sorted(path for path in (tmp_path / "scores").iterdir() if path.is_dir())


def test_scores_are_those_of_each_response_alone(table, by_id, pocket_directory, scored):
    """Whatever is scored beside it: few tokens at a time, the rows keep their scores and their order."""
    model, tokenizer = pocket_directory.model(), pocket_directory.tokenizer()
    expected = []
    for row in table.itertuples():
        prompt = encode_prompt(tokenizer, get_task("pocket").prompt(by_id[row.question_id]))
        response = [int(token) for token in row.token_ids]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0]
        steps = [logits[len(prompt) + i - 1].log_softmax(0)[token].item() for i, token in enumerate(response)]
        expected.append(sum(steps) / len(steps))
    before = table.copy(deep=True)
    found = scored(table, budget=60)
    assert found.tolist() == pytest.approx(expected, abs=1e-4) and found.dtype == np.float64
    pd.testing.assert_frame_equal(table, before)


def test_rows_in_any_order_get_their_own_scores(table, scored):
    found = scored(table)
    order = [4, 0, 6, 2, 5, 3, 1]
    np.testing.assert_allclose(scored(table.iloc[order]), found[order], rtol=1e-6)
    assert len(set(found.round(3))) == 7, "else this test could not tell them apart"


def test_no_responses_have_no_scores(table, scored):
    assert scored(table.iloc[:0]).tolist() == []


def test_scores_are_made_once(table, scored, loads, tmp_path):
    """The second time no model is loaded, whatever the index and the columns that are not scored."""
    found = scored(table)
    assert len(finished(tmp_path)) == 1 and loads == ["float32"]
    again = scored(table.assign(response="another text").reset_index(drop=True))
    assert again.tolist() == found.tolist() and loads == ["float32"]


def test_the_token_budget_bounds_each_pass_and_is_no_part_of_the_key(table, scored, loads, monkeypatch):
    """Under one of 60 tokens no pass reads more; under another the kept scores are found, without a model."""
    passes: list[int] = []
    original = paths.shared_sums

    def count(model, groups, *rest, **options):
        passes.append(sum(group.cost for group in groups))
        return original(model, groups, *rest, **options)

    monkeypatch.setattr(paths, "shared_sums", count)
    found = scored(table, budget=60)
    assert len(passes[2:]) > 1 and max(passes[2:]) <= 60, "the first two are the trial of the model"
    assert scored(table, budget=8192).tolist() == found.tolist() and len(loads) == 1


def test_scores_under_autocast_are_those_of_training(table, by_id, pocket_directory, scored, loads):
    """Float32 weights, a bfloat16 forward pass; kept apart from those of bfloat16 weights, which are others."""
    model, tokenizer = pocket_directory.model(), pocket_directory.tokenizer()
    loads.clear()
    found = {how: scored(table, precision="bfloat16", weights=how) for how in (None, "float32")}
    assert loads == ["bfloat16", "float32"]
    expected = []
    for row in table.itertuples():
        prompt = encode_prompt(tokenizer, get_task("pocket").prompt(by_id[row.question_id]))
        response = [int(token) for token in row.token_ids]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            logits = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0].float()
        steps = [logits[len(prompt) + i - 1].log_softmax(0)[token].item() for i, token in enumerate(response)]
        expected.append(sum(steps) / len(steps))
    assert found["float32"].tolist() == pytest.approx(expected, abs=1e-2)
    assert found[None].tolist() != pytest.approx(expected, abs=1e-2)
    assert scored(table, precision="bfloat16").tolist() == found[None].tolist() and len(loads) == 2
    assert scored(table, weights="float32").tolist() == scored(table).tolist(), "in float32 both are the same"
    assert len(loads) == 3
    scored(table, precision="bfloat16", weights="bfloat16")
    scored(table, precision="float32", weights="bfloat16")
    assert loads[3:] == ["bfloat16", "bfloat16"], "apart from those without autocast, and of other weights"


@pytest.mark.parametrize("change", ["precision", "model", "one row less", "another token", "another prompt", "order"])
def test_what_follows_from_something_else_is_another_directory(change, table, scored, loads, by_id, tmp_path):
    """And the first is still there."""
    found = scored(table)
    given = {}
    rows = table
    if change == "precision":
        given["precision"] = "bfloat16"
    elif change == "model":
        given["model"] = other_model(tmp_path)
        loads.clear()
    elif change == "one row less":
        rows = table.iloc[:-1]
    elif change == "another token":
        rows = table.assign(token_ids=[table["token_ids"].iloc[0] + 1, *table["token_ids"].iloc[1:]])
    elif change == "another prompt":
        one, other = table["question_id"].iloc[:2]
        given["questions"] = by_id | {one: by_id[other]}
    else:
        rows = table.iloc[::-1]
    first = finished(tmp_path)
    assert scored(rows, **given).tolist() != found.tolist()
    assert len(finished(tmp_path)) == 2 and set(first) < set(finished(tmp_path))
    assert loads[-1] == given.get("precision", "float32")
    loads.clear()
    assert scored(table).tolist() == found.tolist() and not loads


def other_model(tmp_path) -> ModelDirectory:
    from aft.models.pocket import Architecture, build_model, build_tokenizer

    tokenizer = build_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = build_model(Architecture(hidden_size=16, layers=1, heads=2), len(tokenizer))
    save_model(model, tokenizer, tmp_path / "other")
    return open_model(tmp_path / "other")


@pytest.mark.parametrize("room", ["models", "scoring"])
def test_edited_code_scores_again(room, table, scored, loads, tmp_path, edit_code):
    scored(table)
    edit_code(room)
    scored(table)
    assert len(finished(tmp_path)) == len(loads) == 2


@pytest.mark.parametrize("damage", ["cut", "gone", "no manifest", "another file"])
def test_what_is_damaged_is_made_anew(damage, table, scored, loads, tmp_path):
    found = scored(table)
    (directory,) = finished(tmp_path)
    file = directory / "scores.parquet"
    whole = file.read_bytes()
    if damage == "cut":
        file.write_bytes(whole[:-7])
    elif damage == "gone":
        file.unlink()
    elif damage == "no manifest":
        (directory / "manifest.json").unlink()
    else:
        pd.read_parquet(file).assign(score=0.0).to_parquet(file, index=False)
    assert scored(table).tolist() == found.tolist()
    assert len(loads) == 2 and finished(tmp_path) == [directory]
    assert (directory / "scores.parquet").read_bytes() == whole


def reseal(directory, change):
    """Change what a manifest says, as one who knows how it is sealed."""
    manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
    del manifest["seal"]
    change(manifest)
    (directory / "manifest.json").write_text(json.dumps(with_seal(manifest)), encoding="utf-8")


@pytest.mark.parametrize("name", ["model", "precision", "prompts", "responses"])
def test_a_manifest_of_something_else_is_refused(name, table, scored, tmp_path):
    """Its files have the hashes that it names, but it says that they were made from something else."""
    scored(table)
    (directory,) = finished(tmp_path)
    reseal(directory, lambda manifest: manifest["made_from"].update({name: "another"}))
    with pytest.raises(StoreError, match=f"{directory.name} belong to other responses or another model; delete"):
        scored(table)


def test_scores_of_other_rows_are_refused(table, scored, tmp_path):
    """The manifest and its hashes are right, but the file names other samples."""
    scored(table)
    (directory,) = finished(tmp_path)
    file = directory / "scores.parquet"
    pd.read_parquet(file).assign(sample_index=range(1, 8)).to_parquet(file, index=False)
    reseal(directory, lambda manifest: manifest["files"].update({"scores.parquet": hash_file(file)}))
    with pytest.raises(StoreError, match="other responses"):
        scored(table)


@pytest.mark.parametrize("kind", ["object", "string", "str"])
def test_ids_of_any_type_of_text_are_the_same_ids(kind, table, scored):
    """As rows come from a table in memory, from Parquet, or from a frame with nothing but Python objects."""
    rows = table.assign(
        question_id=table["question_id"].astype(kind), sample_index=table["sample_index"].astype("int32")
    )
    assert scored(rows).tolist() == scored(table).tolist()


def test_responses_to_an_unknown_question_are_refused(table, scored):
    with pytest.raises(DataError, match=r"1 unknown questions .pocket/train/99999.; label again"):
        scored(pd.concat([table, table.iloc[:1].assign(question_id="pocket/train/99999")]))


def test_scores_that_are_not_finite_are_not_kept(table, pocket_directory, by_id, tmp_path, pocket_tokenizer):
    model = pocket_directory.model()
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(float("nan"))
    save_model(model, pocket_tokenizer, tmp_path / "broken")
    with pytest.raises(NumericalError, match="scores that are not finite, pocket/train/"):
        score_responses(open_model(tmp_path / "broken"), table, by_id, "float32", tmp_path / "scores", token_budget=99)
    assert not [path for path in (tmp_path / "scores").iterdir() if path.is_dir() and not path.name.startswith(".")]
