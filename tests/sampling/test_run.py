"""Sampling through the store: a killed run continues to the same bytes, and nothing is made twice or mixed."""

import dataclasses
import json
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from aft.errors import DataError, ModelError, NumericalError, StoreError
from aft.models.directory import ModelDirectory, open_model
from aft.models.tokens import decode_response, encode_prompt
from aft.pipelines import tables
from aft.sampling import engine
from aft.sampling.run import sample_responses
from aft.sampling.settings import ClusterSettings, SamplerSettings, SamplingSettings
from aft.scoring.naive import token_logprobs
from aft.shards import encode
from aft.tasks import Question, pocket

Start = Callable[..., "subprocess.Popen[str]"]
SETTINGS = SamplingSettings(samples=3, greedy=True, max_new_tokens=24, block_size=5, batch_rows=8)


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The question ids of every call of the engine."""
    calls: list[list[str]] = []
    generate = engine.generate

    def counted(model: Any, requests: Any, *args: Any) -> Any:
        calls.append([request.question_id for request in requests])
        return generate(model, requests, *args)

    monkeypatch.setattr(engine, "generate", counted)
    return calls


def sample(source: ModelDirectory, questions: list[Question], root: Path, **changed: Any) -> list[Path]:
    seed = changed.pop("seed", 7)
    return sample_responses(source, questions, dataclasses.replace(SETTINGS, **changed), seed, root, "sample")


def bytes_of(shards: list[Path]) -> dict[str, bytes]:
    return {shard.name: shard.read_bytes() for shard in shards}


def table_of(shards: list[Path]) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(shard) for shard in shards], ignore_index=True)


class TestRows:
    def test_fit_the_candidates_table(
        self, tmp_path: Path, pocket_directory: ModelDirectory, pocket_questions: list[Question]
    ) -> None:
        table = table_of(sample(pocket_directory, pocket_questions, tmp_path))
        assert tables.candidates(table).equals(table)
        expected = [(q.question_id, index) for q in pocket_questions for index in (-1, 0, 1, 2)]
        assert list(zip(table["question_id"], table["sample_index"], strict=True)) == expected
        assert set(table["model_fingerprint"]) == {pocket_directory.fingerprint}
        assert table["settings_hash"].nunique() == 1
        assert set(table["finish_reason"]) == {"stop", "length"}

    def test_say_what_the_model_said(
        self, tmp_path: Path, pocket_directory: ModelDirectory, pocket_questions: list[Question]
    ) -> None:
        """Text and count are those of the token ids; the mean is what scoring finds for these very ids."""
        table = table_of(sample(pocket_directory, pocket_questions, tmp_path))
        model, tokenizer = pocket_directory.model(), pocket_directory.tokenizer()
        prompts = {q.question_id: encode_prompt(tokenizer, pocket.prompt(q)) for q in pocket_questions}
        ids = [row.tolist() for row in table["token_ids"]]
        assert table["n_tokens"].tolist() == [len(row) for row in ids]
        assert table["response"].tolist() == [decode_response(tokenizer, row) for row in ids]
        with torch.no_grad():
            scored = token_logprobs(model, [prompts[q] for q in table["question_id"]], ids)
        found_R = torch.tensor(table["sum_logprob"] / table["n_tokens"]).float()
        torch.testing.assert_close(found_R, scored.scores_R, rtol=0, atol=1e-5)

    def test_do_not_depend_on_blocks_and_batches(
        self, tmp_path: Path, pocket_directory: ModelDirectory, pocket_questions: list[Question]
    ) -> None:
        columns = ["question_id", "sample_index", "seed", "response", "finish_reason", "n_tokens", "settings_hash"]
        one = table_of(sample(pocket_directory, pocket_questions, tmp_path / "a"))
        other = table_of(sample(pocket_directory, pocket_questions, tmp_path / "b", block_size=1, batch_rows=100))
        pd.testing.assert_frame_equal(one[columns], other[columns])

    def test_no_questions(self, tmp_path: Path, pocket_directory: ModelDirectory) -> None:
        assert sample(pocket_directory, [], tmp_path) == []


def test_a_disk_that_is_too_small_is_told_of_before_anything_is_made(
    tmp_path: Path,
    pocket_directory: ModelDirectory,
    pocket_questions: list[Question],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is finished takes no more: 32 of 48 responses, of up to 24 tokens of 8 bytes, may take 6144 bytes."""
    usage = shutil.disk_usage(tmp_path)

    def told(store: str, asked: int, free: int) -> bool:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
        caplog.clear()
        sample(pocket_directory, pocket_questions[:asked], tmp_path / store, block_size=4)
        return "32 responses of up to 24 tokens may take up to 6.14e-06 GB" in caplog.text

    assert [told("enough", asked, free) for asked, free in ((4, 3072), (12, 6144), (12, 0))] == [False] * 3
    assert [told("short", asked, free) for asked, free in ((4, 3072), (12, 6143))] == [False, True]


class TestUnknownTokens:
    def test_of_a_padded_vocabulary_are_in_no_response(
        self, tmp_path: Path, padded_directory: ModelDirectory, pocket_questions: list[Question]
    ) -> None:
        """Decoded, an unknown id is nothing, so that 1 and 6 around it would read 16."""
        table = table_of(sample(padded_directory, pocket_questions, tmp_path))
        tokenizer = padded_directory.tokenizer()
        assert max(token for ids in table["token_ids"] for token in ids) < len(tokenizer)
        texts = [decode_response(tokenizer, row.tolist()) for row in table["token_ids"]]
        assert table["response"].tolist() == texts

    def test_are_those_that_the_tokenizer_has_no_token_for(self, pocket_tokenizer: Any) -> None:
        """Its length says how many there are and not which: two are missing here, and one was added beyond them."""
        from aft.models.tokens import known_tokens

        vocabulary = pocket_tokenizer.get_vocab()
        first, *_, last = sorted(vocabulary, key=lambda token: vocabulary[token])
        moved = {**vocabulary, last: len(vocabulary) + 1}
        holed = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(moved)), bos_token=first)
        holed.add_tokens(["new"])
        known = known_tokens(holed)
        assert known == {*range(len(vocabulary) - 1), len(vocabulary) + 1, int(holed.convert_tokens_to_ids("new"))}  # type: ignore[arg-type]
        assert known != set(range(len(holed)))


def long(question: Question, times: int = 60) -> Question:
    """The same question, said so often that it leaves no room for a response among the model's 512 positions."""
    return dataclasses.replace(question, question=" ".join([question.question] * times))


class TestTooLong:
    @pytest.mark.parametrize("engine_used", ["slots", "fallback", "cluster"])
    def test_a_question_is_left_out_and_named_and_the_others_stay_as_they_are(
        self,
        tmp_path: Path,
        pocket_directory: ModelDirectory,
        pocket_questions: list[Question],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        engine_used: str,
    ) -> None:
        """In a run that finds everything finished as well."""
        if engine_used == "fallback":
            monkeypatch.setattr(engine, "_why_not_slots", lambda model: "it is told to")
        given, shorter = list(pocket_questions[:6]), [*pocket_questions[:2], *pocket_questions[3:6]]
        given[2] = long(given[2])
        sampler = SamplerSettings(cluster=ClusterSettings(workers=2) if engine_used == "cluster" else None)
        monkeypatch.setattr("aft.sampling.cluster.make_on_cluster", in_this_process)
        expected = bytes_of(sample(pocket_directory, shorter, tmp_path / "shorter"))
        for _ in range(2):
            caplog.clear()
            shards = sample_responses(pocket_directory, given, SETTINGS, 7, tmp_path / "all", "sample", sampler)
            assert bytes_of(shards) == expected
            assert f"1 of 6 questions are left out ({given[2].question_id}): their prompts with" in caplog.text

    def test_a_run_that_finds_everything_needs_no_tokenizer(
        self,
        tmp_path: Path,
        pocket_directory: ModelDirectory,
        pocket_questions: list[Question],
        monkeypatch: pytest.MonkeyPatch,
        edit_code: Callable[[str], None],
    ) -> None:
        """Its import takes seconds; other questions, and code that makes other prompts, are asked for anew."""
        given = [long(pocket_questions[0]), *pocket_questions[1:6]]
        expected = sample(pocket_directory, given, tmp_path)
        for name in ("tokenizer", "config"):
            monkeypatch.setattr(ModelDirectory, name, lambda self: pytest.fail("transformers is asked"))
        assert sample(pocket_directory, given, tmp_path) == expected
        for other in (given[1:], [dataclasses.replace(given[0], question="How many?"), *given[1:]]):
            with pytest.raises(pytest.fail.Exception):
                sample(pocket_directory, other, tmp_path)
        edit_code("models/tokens.py")
        with pytest.raises(pytest.fail.Exception):
            sample(pocket_directory, given, tmp_path)

    def test_many_are_counted_and_some_of_them_named(
        self,
        tmp_path: Path,
        pocket_directory: ModelDirectory,
        pocket_questions: list[Question],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """A whole block of them, too."""
        given = [*map(long, pocket_questions[:9]), *pocket_questions[9:]]
        table = table_of(sample(pocket_directory, given, tmp_path))
        assert set(table["question_id"]) == {question.question_id for question in pocket_questions[9:]}
        named = ", ".join(question.question_id for question in given[:3])
        assert f"9 of 12 questions are left out ({named} ...)" in caplog.text

    def test_the_last_token_that_there_is_room_for(
        self, tmp_path: Path, pocket_directory: ModelDirectory, pocket_questions: list[Question]
    ) -> None:
        """Prompt and response fill the 512 positions to the last; with one token more nothing is left."""
        question = pocket_questions[0]
        room = 512 - len(encode_prompt(pocket_directory.tokenizer(), pocket.prompt(question)))
        wanted = {"samples": 1, "greedy": False}
        assert len(sample(pocket_directory, [question], tmp_path, max_new_tokens=room, **wanted)) == 1
        with pytest.raises(DataError, match="All 1 questions are too long"):
            sample(pocket_directory, [question], tmp_path, max_new_tokens=room + 1, **wanted)

    def test_all_questions_are_one_sentence_and_no_weights_are_loaded(
        self,
        tmp_path: Path,
        pocket_directory: ModelDirectory,
        pocket_questions: list[Question],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(ModelDirectory, "model", lambda *args: pytest.fail("the model is loaded"))
        with pytest.raises(DataError) as caught:
            sample(pocket_directory, list(map(long, pocket_questions)), tmp_path)
        assert re.fullmatch(
            r"All 12 questions are too long: the shortest prompt has \d+ tokens, which with max_new_tokens=24 is more "
            r"than the 512 positions of the model in \S+; lower max_new_tokens, or take a model with more positions\.",
            str(caught.value),
        )

    def test_a_damaged_configuration_is_one_sentence(
        self, tmp_path: Path, pocket_directory: ModelDirectory, pocket_questions: list[Question]
    ) -> None:
        folder = Path(shutil.copytree(pocket_directory.path, tmp_path / "other"))
        (folder / "config.json").write_text('{"model_type": "no such"}', encoding="utf-8")
        with pytest.raises(ModelError, match=r"configuration of the model in .* cannot be read: ") as caught:
            sample(open_model(folder), pocket_questions, tmp_path)
        assert "\n" not in str(caught.value)


def in_this_process(rows: Any, numbers: Any, block_of: Any, cluster: Any, rooms: Any) -> Iterator[tuple[int, bytes]]:
    """What the workers of a cluster make, without one."""
    yield from ((number, encode(rows(*block_of(number)))) for number in numbers)


class TestContinuing:
    def test_a_finished_run_makes_nothing_and_loads_nothing(
        self,
        tmp_path: Path,
        pocket_directory: ModelDirectory,
        pocket_questions: list[Question],
        generated: list[list[str]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        shards = sample(pocket_directory, pocket_questions, tmp_path)
        assert [len(ids) for ids in generated] == [5, 5, 2]
        generated.clear()
        monkeypatch.setattr(ModelDirectory, "model", lambda *args: pytest.fail("the model is loaded"))
        assert sample(pocket_directory, pocket_questions, tmp_path) == shards
        assert generated == []

    def test_kill_9_in_the_middle(
        self,
        tmp_path: Path,
        pocket_directory: ModelDirectory,
        pocket_questions: list[Question],
        generated: list[list[str]],
        start_python: Start,
    ) -> None:
        """A process that is killed in the second block's third token; another one continues to the same bytes."""
        code = """
import dataclasses, json, os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from aft.models.directory import open_model
from aft.sampling import engine
from aft.sampling.draws import Draws
from aft.sampling.run import sample_responses
from aft.sampling.settings import SamplingSettings
from aft.tasks import pocket
draw, blocks = Draws.draw, []
generate = engine.generate
def counted(model, requests, *args):
    blocks.append(requests)
    return generate(model, requests, *args)
def killed(self, logits, rows, steps):
    if len(blocks) == 2 and int(steps[0]) == 2:
        os.kill(os.getpid(), 9)
    return draw(self, logits, rows, steps)
engine.generate, Draws.draw = counted, killed
questions = pocket.load_questions(pocket.Settings(train=12, validation=1, test=1))["train"]
settings = SamplingSettings(**json.loads(sys.argv[3]))
sample_responses(open_model(Path(sys.argv[1])), questions, settings, 7, Path(sys.argv[2]), "sample")
"""
        settings = json.dumps(dataclasses.asdict(SETTINGS))
        process = start_python(code, pocket_directory.path, tmp_path / "killed", settings)
        assert process.wait() == -signal.SIGKILL
        assert len(list((tmp_path / "killed").glob("*/*.parquet"))) == 1
        continued = sample(pocket_directory, pocket_questions, tmp_path / "killed")
        assert [len(ids) for ids in generated] == [5, 2]  # the first block was there
        assert bytes_of(continued) == bytes_of(sample(pocket_directory, pocket_questions, tmp_path / "uninterrupted"))

    def test_a_damaged_shard_is_made_anew(
        self,
        tmp_path: Path,
        pocket_directory: ModelDirectory,
        pocket_questions: list[Question],
        generated: list[list[str]],
    ) -> None:
        shards = sample(pocket_directory, pocket_questions, tmp_path)
        before = bytes_of(shards)
        shards[1].write_bytes(before[shards[1].name][:-1])
        generated.clear()
        assert bytes_of(sample(pocket_directory, pocket_questions, tmp_path)) == before
        assert generated == [[question.question_id for question in pocket_questions[5:10]]]

    def test_more_questions_keep_the_whole_blocks(
        self,
        tmp_path: Path,
        pocket_directory: ModelDirectory,
        pocket_questions: list[Question],
        generated: list[list[str]],
    ) -> None:
        sample(pocket_directory, pocket_questions[:10], tmp_path)
        generated.clear()
        sample(pocket_directory, pocket_questions, tmp_path)
        assert generated == [[question.question_id for question in pocket_questions[10:]]]

    def test_logits_that_are_not_finite_stop_the_run_and_keep_what_is_finished(
        self,
        tmp_path: Path,
        pocket_directory: ModelDirectory,
        pocket_questions: list[Question],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        load = ModelDirectory.model
        wrong = pocket_questions[7]
        length = len(encode_prompt(pocket_directory.tokenizer(), pocket.prompt(wrong)))

        def broken(source: ModelDirectory, dtype: str) -> Any:
            model = load(source, dtype)
            told = encode_prompt(source.tokenizer(), pocket.prompt(wrong))

            def break_logits(module: Any, inputs: Any, options: dict[str, Any], output: Any) -> None:
                for row, ids in enumerate(options["input_ids"].tolist()):
                    if any(ids[at : at + length] == told for at in range(len(ids))):  # padded on either side
                        output.logits[row] = torch.nan

            model.register_forward_hook(break_logits, with_kwargs=True)
            return model

        monkeypatch.setattr(ModelDirectory, "model", broken)
        with pytest.raises(NumericalError, match=wrong.question_id):
            sample(pocket_directory, pocket_questions, tmp_path)
        assert len(list(tmp_path.glob("*/*.parquet"))) == 1


class TestNeverMixed:
    @pytest.mark.parametrize(
        "changed",
        [{"seed": 8}, {"temperature": 0.9}, {"samples": 2}, {"greedy": False}, {"max_new_tokens": 23}],
        ids=str,
    )
    def test_seeds_and_settings(
        self,
        tmp_path: Path,
        pocket_directory: ModelDirectory,
        pocket_questions: list[Question],
        generated: list[list[str]],
        changed: dict[str, Any],
    ) -> None:
        one = sample(pocket_directory, pocket_questions, tmp_path)
        before = bytes_of(one)
        generated.clear()
        other = sample(pocket_directory, pocket_questions, tmp_path, **changed)
        assert len(generated) == 3 and not set(one) & set(other)
        assert bytes_of(one) == before

    def test_models(
        self,
        tmp_path: Path,
        pocket_directory: ModelDirectory,
        pocket_questions: list[Question],
        generated: list[list[str]],
    ) -> None:
        folder = Path(shutil.copytree(pocket_directory.path, tmp_path / "other"))
        content = bytearray((folder / "model.safetensors").read_bytes())
        content[-1] ^= 1
        (folder / "model.safetensors").write_bytes(content)
        one = sample(pocket_directory, pocket_questions, tmp_path / "store")
        other = sample(open_model(folder), pocket_questions, tmp_path / "store")
        assert len(generated) == 6 and not set(one) & set(other)
        assert set(table_of(one)["model_fingerprint"]) != set(table_of(other)["model_fingerprint"])

    def test_the_same_model_elsewhere_is_the_same_model(
        self,
        tmp_path: Path,
        pocket_directory: ModelDirectory,
        pocket_questions: list[Question],
        generated: list[list[str]],
    ) -> None:
        folder = Path(shutil.copytree(pocket_directory.path, tmp_path / "other"))
        shards = sample(pocket_directory, pocket_questions, tmp_path / "store")
        generated.clear()
        assert sample(open_model(folder), pocket_questions, tmp_path / "store") == shards
        assert generated == []

    @pytest.mark.parametrize("room", ["models", "sampling", "scoring"])
    def test_code(
        self,
        room: str,
        tmp_path: Path,
        pocket_directory: ModelDirectory,
        pocket_questions: list[Question],
        edit_code: Callable[[str], None],
    ) -> None:
        shards = sample(pocket_directory, pocket_questions[:2], tmp_path)
        edit_code(room)
        assert not set(shards) & set(sample(pocket_directory, pocket_questions[:2], tmp_path))

    def test_questions(
        self,
        tmp_path: Path,
        pocket_directory: ModelDirectory,
        pocket_questions: list[Question],
        generated: list[list[str]],
    ) -> None:
        """Another id is another seed, another text another prompt, even if it counts as the same question."""
        sample(pocket_directory, pocket_questions[:2], tmp_path)
        renamed = dataclasses.replace(pocket_questions[1], question_id="pocket/train/other")
        written_otherwise = dataclasses.replace(pocket_questions[1], question=f" {pocket_questions[1].question}")
        for other in (renamed, written_otherwise):
            generated.clear()
            sample(pocket_directory, [pocket_questions[0], other], tmp_path)
            assert len(generated) == 1
        generated.clear()
        graded = dataclasses.replace(pocket_questions[1], reference="by another path", answer="7")
        sample(pocket_directory, [pocket_questions[0], graded], tmp_path)
        assert generated == []  # the reference is not read when sampling

    @pytest.mark.usefixtures("impatient")
    def test_a_second_process_never_fills_the_same_store(
        self, tmp_path: Path, pocket_directory: ModelDirectory, pocket_questions: list[Question], start_python: Start
    ) -> None:
        (shard, *_) = sample(pocket_directory, pocket_questions[:1], tmp_path)
        code = """
import sys, time
from pathlib import Path
from aft.locks import lock_of, locked
with locked(lock_of(Path(sys.argv[1]))):
    print("locked", flush=True)
    time.sleep(600)
"""
        other = start_python(code, shard.parent)
        assert other.stdout is not None and other.stdout.readline() == "locked\n"
        with pytest.raises(StoreError, match="Another run"):
            sample(pocket_directory, pocket_questions[:1], tmp_path)
        other.kill()
        other.wait()
        assert sample(pocket_directory, pocket_questions[:1], tmp_path) == [shard]
