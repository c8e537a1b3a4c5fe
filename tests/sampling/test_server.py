"""A real server that serves a tiny model: its responses are kept as they are drawn, and its failures lose nothing."""

import json
import logging
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aft.errors import AftError, DataError, SettingsError, StoreError
from aft.models.directory import ModelDirectory
from aft.models.tokens import decode_response, encode_prompt, encode_response
from aft.pipelines import tables
from aft.sampling.engine import Request
from aft.sampling.run import sample_responses
from aft.sampling.server import ask_server
from aft.sampling.settings import SamplerSettings, SamplingSettings, ServerSettings
from aft.tasks import Question, pocket

judge_server = sys.modules["judge_server"]  # see conftest.py
KEY = "sk-very-secret-0123456789"  # see start_server
SETTINGS = SamplingSettings(samples=2, greedy=True, max_new_tokens=24, block_size=2, batch_rows=8)
SEED = 30  # one of those with which a response ends by itself
REQUESTS = 4 * 3  # questions x responses
PER_BLOCK = 2 * 3


@pytest.fixture(scope="session")
def local(
    tmp_path_factory: pytest.TempPathFactory, pocket_directory: ModelDirectory, pocket_questions: list[Question]
) -> pd.DataFrame:
    """The rows of the local engine."""
    root = tmp_path_factory.mktemp("local")
    shards = sample_responses(pocket_directory, pocket_questions[:4], SETTINGS, SEED, root, "sample")
    return pd.concat([pd.read_parquet(shard) for shard in shards], ignore_index=True)


class Run:
    """Samples for the first four questions from a server, one request at a time and without retries."""

    def __init__(self, source: ModelDirectory, questions: list[Question], root: Path) -> None:
        self.source, self.questions, self.root = source, questions, root

    def __call__(self, server: Any, **changed: Any) -> pd.DataFrame:
        connection = ServerSettings(server.url, "pocket", concurrency=1, retries=0, timeout_s=20.0)
        sampler = SamplerSettings(engine="server", server=replace(connection, **changed))
        shards = sample_responses(self.source, self.questions, SETTINGS, SEED, self.root, "sample", sampler)
        return pd.concat([pd.read_parquet(shard) for shard in shards], ignore_index=True)

    @property
    def finished(self) -> int:
        return len(list(self.root.glob("*/*.parquet")))


@pytest.fixture
def sample(tmp_path: Path, pocket_directory: ModelDirectory, pocket_questions: list[Question]) -> Run:
    return Run(pocket_directory, pocket_questions[:4], tmp_path)


def assert_equal(table: pd.DataFrame, local: pd.DataFrame) -> None:
    """Equal rows, but for the rounding of log-probabilities, which are sums of other batches."""
    pd.testing.assert_frame_equal(table, local, check_exact=False, rtol=1e-5, atol=1e-4)
    assert [ids.tolist() for ids in table["token_ids"]] == [ids.tolist() for ids in local["token_ids"]]


class TestRows:
    def test_are_those_of_the_local_engine_if_the_server_draws_as_it_does(
        self, server: Any, sample: Run, local: pd.DataFrame, pocket_completions: Any
    ) -> None:
        """Same prompts, seeds, tokens, reasons and sums; both reasons are among them."""
        table = sample(server, concurrency=4)
        assert_equal(table, local)
        assert tables.candidates(table).equals(table)
        assert set(table["finish_reason"]) == {"stop", "length"}
        assert server.requests == REQUESTS and server.paths == {"/v1/completions"}
        prompts = [encode_prompt(pocket_completions.tokenizer, pocket.prompt(q)) for q in sample.questions]
        assert {tuple(body["prompt"]) for body in server.bodies} == set(map(tuple, prompts))
        assert {body["seed"] for body in server.bodies} == set(local["seed"])

    def test_are_asked_for_with_all_that_decides_them(self, server: Any, sample: Run) -> None:
        """A server has defaults of its own, from the model's generation_config.json for one."""
        sample(server)
        greedy, sampled, *_ = server.bodies
        expected = {"model": "pocket", "max_tokens": 24, "logprobs": 0, "return_token_ids": True, "top_p": 1.0}
        expected |= {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "skip_special_tokens": False}
        expected |= {"presence_penalty": 0.0, "frequency_penalty": 0.0}
        assert {name: sampled[name] for name in expected} == expected
        assert (greedy["temperature"], sampled["temperature"]) == (0.0, 1.0)

    def test_are_kept_apart_from_local_ones(
        self, server: Any, sample: Run, pocket_directory: ModelDirectory, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The description names the server's model, neither its address nor the key."""
        sample(server)
        sample_responses(pocket_directory, sample.questions, SETTINGS, SEED, sample.root, "sample")
        descriptions = [json.loads(path.read_text(encoding="utf-8")) for path in sample.root.glob("*/description.json")]
        assert sorted(one.get("engine", "") for one in descriptions) == ["", "server"]
        assert [one["served_as"] for one in descriptions if "engine" in one] == ["pocket"]
        files = [path.read_bytes() for path in sample.root.rglob("*") if path.is_file()]
        assert not any(secret in content for content in files for secret in (KEY.encode(), server.url.encode()))
        assert KEY not in caplog.text and server.headers[0]["authorization"] == f"Bearer {KEY}"

    def test_end_with_any_end_of_the_model(self, server: Any, tmp_path: Path, two_ends: ModelDirectory) -> None:
        """As in the local engine; the server is told of all of them."""
        questions = pocket.load_questions(pocket.Settings(train=4, validation=1, test=1))["train"]
        shards = sample_responses(two_ends, questions, SETTINGS, SEED, tmp_path / "local", "sample")
        local = pd.concat([pd.read_parquet(shard) for shard in shards], ignore_index=True)
        ended = local[local["finish_reason"] == "stop"]
        assert {ids[-1] for ids in ended["token_ids"]} == two_ends.end_tokens() and len(two_ends.end_tokens()) == 2
        assert_equal(Run(two_ends, questions, tmp_path / "server")(server), local)
        assert server.bodies[0]["stop_token_ids"] == sorted(two_ends.end_tokens())

    def test_a_finished_store_needs_no_server(self, server: Any, sample: Run) -> None:
        table = sample(server)
        server.plan = lambda number, body: pytest.fail("asked again")
        assert_equal(sample(server, base_url="http://localhost:1/v1", concurrency=3), table)

    @pytest.mark.parametrize("concurrency", [1, 3])
    def test_are_asked_for_side_by_side_up_to_the_bound(self, concurrency: int, server: Any, sample: Run) -> None:
        server.think = 0.05
        sample(server, concurrency=concurrency)
        assert server.most_under_way == concurrency


class TestTokens:
    def test_of_a_server_that_tells_none_come_from_its_text_if_that_is_sure(
        self, server: Any, sample: Run, pocket_completions: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Of each block's six texts the second was drawn as one token more than it is encoded as: it has no row."""
        text = "finds 2: 5 + 2 = 7.\n#### 7"
        ids = encode_response(pocket_completions.tokenizer, text)
        server.say = lambda body: {"text": text, "finish_reason": "stop"}
        server.plan = lambda number, body: "split" if number % PER_BLOCK == 1 else None
        server.change = lambda choice, fault: {
            **choice,
            "logprobs": {"token_logprobs": [-0.5] * (len(ids) + (fault == "split"))},
        }
        with caplog.at_level(logging.WARNING):
            table = sample(server)
        assert list(table["sample_index"]) == [-1, 1, -1, 0, 1] * 2
        assert [row.tolist() for row in table["token_ids"]] == [ids] * 10
        assert table["sum_logprob"].tolist() == [-0.5 * len(ids)] * 10
        assert "1 of 6 responses are left out" in caplog.text

    def test_of_a_text_that_was_cut_have_no_end(self, server: Any, sample: Run, pocket_completions: Any) -> None:
        text = "finds 2:" + " 5 + 2" * 7
        ids = encode_response(pocket_completions.tokenizer, text)[:-1]
        assert len(ids) == SETTINGS.max_new_tokens
        logprobs = {"token_logprobs": [-0.5] * len(ids)}
        server.say = lambda body: {"text": text, "finish_reason": "length", "logprobs": logprobs}
        assert [row.tolist() for row in sample(server)["token_ids"]] == [ids] * REQUESTS

    def test_of_a_text_with_half_a_character_are_not_to_be_had(self, server: Any, sample: Run) -> None:
        """JSON may hold one; no tokenizer takes it."""
        server.change = lambda choice, fault: {**choice, "token_ids": None, "text": "finds \ud800"}
        with pytest.raises(DataError, match="none of 6 texts"):
            sample(server)

    def test_that_cannot_be_had_at_all_are_told(self, server: Any, sample: Run) -> None:
        server.change = lambda choice, fault: {**choice, "token_ids": None, "text": "¤"}
        with pytest.raises(DataError, match=r"none of 6 texts .* return_token_ids, such as vLLM\.$"):
            sample(server)


class TestFaults:
    @pytest.mark.parametrize(
        "fault", ["500 0.01", "503 0.01", "429 0.01", "drop", "half", "not json", "page", "list", "deep", "no choices"]
    )
    def test_a_passing_one_changes_nothing(self, fault: str, server: Any, sample: Run, local: pd.DataFrame) -> None:
        server.plan = lambda number, _: fault if number in (1, 8) else None
        assert_equal(sample(server, retries=1), local)
        assert server.requests == REQUESTS + 2

    def test_a_rate_limit_is_waited_for_as_long_as_it_says(self, server: Any, sample: Run) -> None:
        server.plan = lambda number, _: "429 1" if number == 0 else None
        sample(server, retries=1)
        assert server.times[1] - server.times[0] >= 1

    def test_a_server_that_vanishes_loses_no_finished_shard(
        self, start_server: Callable[[], Any], sample: Run, local: pd.DataFrame
    ) -> None:
        """It stops in the second block; the next run asks another one, elsewhere, for that block only."""
        first, second = start_server(), start_server()
        first.plan = lambda number, _: (first.http.socket.close(), "drop")[1] if number == PER_BLOCK + 2 else None
        with pytest.raises(
            StoreError, match=r"cannot be reached: nothing answers .*; finished shards are kept, run the same"
        ) as caught:
            sample(first, retries=1)
        assert "\n" not in str(caught.value) and sample.finished == 1
        assert_equal(sample(second), local)
        assert second.requests == PER_BLOCK

    @pytest.mark.parametrize(
        ("fault", "kind", "told"),
        [
            ("drop", StoreError, r"hung up when asked for a response to pocket/train/\S+; its own log says why"),
            ("429", StoreError, "still answers 429 after 0 retries"),
            ("500", StoreError, "still answers 500 after 0 retries"),
            ("401", SettingsError, "the environment variable OPENAI_API_KEY holds one that it refuses"),
            ("403", SettingsError, "does not allow the model pocket"),
            ("404", SettingsError, "has no model pocket"),
            ("400", DataError, r"refuses the request for a response to pocket/train/\S+ with 400 .* --max-model-len"),
        ],
    )
    def test_a_lasting_one_is_one_sentence(
        self, fault: str, kind: type[AftError], told: str, server: Any, sample: Run
    ) -> None:
        server.plan = lambda number, _: fault if number >= PER_BLOCK else None
        with pytest.raises(kind, match=told) as caught:
            sample(server)
        text = str(caught.value)
        assert text.startswith(f"The server at {server.url} ") and "finished shards are kept" in text
        assert "\n" not in text and KEY not in text
        assert sample.finished == 1

    @pytest.mark.parametrize(
        ("changed", "told"),
        [
            ({"finish_reason": "abort"}, "finish_reason 'abort'"),
            ({"logprobs": None}, "no log-probabilities"),
            ({"logprobs": {"token_logprobs": [None, -1.0]}}, "no log-probabilities"),
            ({"finish_reason": "stop", "token_ids": [5, 5], "logprobs": {"token_logprobs": [-1, -1]}}, "stopped at an"),
            (
                {"finish_reason": "length", "token_ids": [5, True], "logprobs": {"token_logprobs": [-1, -1]}},
                "not those",
            ),
            ({"finish_reason": "length", "token_ids": [5, 5], "logprobs": {"token_logprobs": [-1]}}, "not those"),
            ({"finish_reason": "length", "token_ids": [5, -5], "logprobs": {"token_logprobs": [-1, -1]}}, "not those"),
            ({"finish_reason": "length", "token_ids": [5], "logprobs": {"token_logprobs": [0.5]}}, "no log-prob"),
            (
                {"finish_reason": "length", "token_ids": [5], "logprobs": {"token_logprobs": [-(10**400)]}},
                "no log-prob",
            ),
            (
                {"finish_reason": "length", "token_ids": [5, 5], "logprobs": {"token_logprobs": [-1e308] * 2}},
                "no log-p",
            ),
            ({"finish_reason": ["stop"] * 9}, "finish_reason 'list'"),
            ({"index": 1}, "finish_reason 'NoneType'"),
        ],
        ids=lambda value: str(value)[:40],
    )
    def test_an_answer_that_is_none_is_asked_for_again_and_then_told(
        self, changed: dict[str, Any], told: str, server: Any, sample: Run
    ) -> None:
        server.change = lambda choice, fault: {**choice, **changed}
        with pytest.raises(StoreError, match=told) as caught:
            sample(server, retries=2)
        assert server.requests == 3 and str(caught.value).endswith(".") and "\n" not in str(caught.value)
        assert sample.finished == 0


class TestLeftOut:
    """A response that cannot be used is left out and counted; the run goes on."""

    def test_tokens_that_the_tokenizer_does_not_know(
        self, server: Any, sample: Run, local: pd.DataFrame, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Of each block's six responses the second holds one; what it says between 1 and 6 would be read as 16."""
        server.plan = lambda number, _: "unknown" if number % PER_BLOCK == 1 else None
        server.change = lambda choice, fault: (
            {**choice, "token_ids": [10**6, *choice["token_ids"][1:]]} if fault == "unknown" else choice
        )
        table = sample(server)
        assert_equal(table, local[[number % PER_BLOCK != 1 for number in range(REQUESTS)]].reset_index(drop=True))
        assert "1 of 6 responses are left out (pocket/train/00000): they hold tokens that the" in caplog.text
        assert "2 of 12 responses could not be had from the server and are left out; a server with more" in caplog.text

    @pytest.mark.parametrize(
        "error",
        [
            {"message": "This model's maximum context length is 64 tokens. However, you requested 90.", "code": 400},
            {"message": "The decoder prompt (length 90) is longer than the maximum model length of 64."},
            {"message": "Too much.", "type": "invalid_request_error", "code": "context_length_exceeded"},
            {"message": "request (90 tokens) exceeds the available context size (64 tokens), try increasing it"},
        ],
        ids=str,
    )
    def test_a_question_that_is_longer_than_the_servers_context(
        self, error: dict[str, Any], server: Any, sample: Run, local: pd.DataFrame, caplog: pytest.LogCaptureFixture
    ) -> None:
        """All of the first block, so that its shard is empty; the table of all shards has the types that it must."""
        long = {
            row["seed"]
            for _, row in local.iterrows()
            if row["question_id"] in ("pocket/train/00000", "pocket/train/00001")
        }
        server.error, server.plan = error, lambda _, body: "400" if body["seed"] in long else None
        table = sample(server)
        assert_equal(table, local[PER_BLOCK:].reset_index(drop=True))
        assert tables.candidates(table).equals(table)
        assert (
            "6 of 6 responses are left out (pocket/train/00000, pocket/train/00001): their prompts leave" in caplog.text
        )
        assert server.requests == REQUESTS  # a refusal is not asked for again

    def test_a_question_without_room_in_the_context_that_the_server_tells(
        self, server: Any, sample: Run, pocket_completions: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is not asked at all: responses would be cut where the context ends."""
        prompts = [encode_prompt(pocket_completions.tokenizer, pocket.prompt(q)) for q in sample.questions]
        longest = max(map(len, prompts))
        long = sum(len(prompt) == longest for prompt in prompts)
        server.models = [{"id": "other", "max_model_len": 1}, {"id": "pocket", "max_model_len": longest + 24 - 1}]
        assert len(sample(server)) == server.requests == (4 - long) * 3
        assert "their prompts leave no room for max_new_tokens in the server's context" in caplog.text

    @pytest.mark.parametrize("listed", [[], [{"id": "pocket", "max_model_len": "64"}], [3], [{"id": "else"}]], ids=str)
    def test_a_list_of_models_that_tells_no_context_changes_nothing(
        self, listed: list[Any], server: Any, sample: Run, local: pd.DataFrame
    ) -> None:
        server.models = listed
        assert_equal(sample(server), local)

    def test_a_response_that_the_server_cut_sooner_than_asked(
        self, server: Any, sample: Run, local: pd.DataFrame, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It would be kept as one that had all its tokens; of equal length are only those that had."""

        def cut(choice: dict[str, Any], fault: str | None) -> dict[str, Any]:
            if choice["finish_reason"] == "stop":
                return choice
            logprobs = {"token_logprobs": choice["logprobs"]["token_logprobs"][:-1]}
            return {**choice, "token_ids": choice["token_ids"][:-1], "logprobs": logprobs}

        server.change = cut
        ended = local[local["finish_reason"] == "stop"].reset_index(drop=True)
        assert_equal(sample(server), ended)
        assert "the server cut them before max_new_tokens (vLLM: --max-model-len)" in caplog.text

    def test_an_end_that_comes_last_of_all_ends_a_response(self, server: Any, sample: Run, local: pd.DataFrame) -> None:
        """Some servers say "length" of it; the last line of a response that was cut would be lost."""
        server.change = lambda choice, fault: {**choice, "finish_reason": "length"}
        assert_equal(sample(server), local)

    @pytest.mark.parametrize("finished", [False, True])
    def test_everything_is_one_sentence(self, finished: bool, server: Any, sample: Run) -> None:
        server.error, server.plan = {"code": "context_length_exceeded"}, lambda *_: "400"
        for _ in range(1 + finished):
            with pytest.raises(DataError, match=r"^None of 12 responses could be had from the server at .*\.$"):
                sample(server)


def test_whatever_a_server_answers_is_a_response_or_is_asked_for_again(server: Any, pocket_completions: Any) -> None:
    """Junk in the place of every value of an answer: what is taken or left out ends a sample, else it is asked for."""
    tokenizer = pocket_completions.tokenizer
    told = pocket_completions({"temperature": 0, "seed": 0, "max_tokens": 2, "prompt": [0, 9]})
    answer = {"object": "text_completion", "choices": [told], "usage": {"total_tokens": 3}}
    junk = list(judge_server.with_junk(answer))
    server.say = lambda body: told
    server.rewrite = lambda _: junk[server.requests - 1] if server.requests <= len(junk) else answer
    connection = ServerSettings(server.url, "pocket", concurrency=1, retries=1000)
    settings, ends = SamplingSettings(200, max_new_tokens=9), frozenset({tokenizer.eos_token_id})
    (responses,) = ask_server(connection, tokenizer, [Request("q", [0, 9])], settings, 0, ends)
    assert server.requests > len(junk) > 300
    for response in responses:
        assert type(response.sum_logprob) is float and -math.inf < response.sum_logprob <= 0
        assert response.token_ids and {*response.token_ids} <= {*tokenizer.get_vocab().values()}
        decode_response(tokenizer, response.token_ids).encode()


class TestComparedWithTheModelsOwn:
    @pytest.mark.parametrize(("off", "told"), [(0.0, False), (1e-5, False), (6e-4, True), (-1.0, True)])
    def test_log_probabilities_of_the_first_question(
        self, off: float, told: bool, server: Any, sample: Run, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Nats per token: vLLM in float32 is 1e-6 away, in bfloat16 6e-4."""

        def shifted(choice: dict[str, Any], fault: str | None) -> dict[str, Any]:
            logprobs = [min(0.0, one - abs(off)) for one in choice["logprobs"]["token_logprobs"]]
            return {**choice, "logprobs": {"token_logprobs": logprobs}}

        server.change = shifted
        sample(server)
        assert ("nats per token away from those of the model" in caplog.text) is told
        assert ("(vLLM: --dtype float32)" in caplog.text) is told

    def test_a_model_that_would_fill_the_memory_is_not_read(
        self, server: Any, sample: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("os.sysconf", lambda name: 1)
        monkeypatch.setattr(ModelDirectory, "model", lambda *_: pytest.fail("read"))
        with caplog.at_level(logging.INFO):
            sample(server)
        assert "not compared with the model's own: it would fill the memory" in caplog.text

    def test_what_fails_is_told_and_what_was_sampled_is_kept(
        self, server: Any, sample: Run, local: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, caplog: Any
    ) -> None:
        def fails(*_: Any) -> None:
            raise RuntimeError("out of memory")

        monkeypatch.setattr(ModelDirectory, "model", fails)
        assert_equal(sample(server), local)
        assert "are not compared with the model's own: out of memory" in caplog.text and sample.finished == 2

    def test_a_first_question_without_responses_is_passed_over(
        self, server: Any, sample: Run, local: pd.DataFrame, caplog: pytest.LogCaptureFixture
    ) -> None:
        long = set(local["seed"][:PER_BLOCK])
        server.error = {"code": "context_length_exceeded"}
        server.plan = lambda _, body: "400" if body["seed"] in long else None
        server.change = lambda choice, fault: {
            **choice,
            "logprobs": {"token_logprobs": [min(0.0, one - 1) for one in choice["logprobs"]["token_logprobs"]]},
        }
        sample(server)
        assert f"log-probabilities of {local['question_id'][PER_BLOCK]} are up to" in caplog.text


def test_no_key_is_needed_where_none_is_wanted(server: Any, sample: Run) -> None:
    sample(server, api_key_env="NO_SUCH_KEY")
    assert server.requests == REQUESTS and KEY not in server.headers[0]["authorization"]
