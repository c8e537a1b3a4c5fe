"""A server for tests that speaks /v1/completions: the judge's one, with its faults, where a pocket model completes."""

import importlib.util
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from aft.models.directory import ModelDirectory, open_model, save_model
from aft.models.pocket import Architecture, build_model
from aft.models.tokens import decode_response, end_token
from aft.sampling import engine
from aft.sampling.draws import Draws
from aft.sampling.fallback import generate_by_transformers
from aft.sampling.settings import SamplingSettings


def _load(name: str) -> ModuleType:
    """A file of the judge's tests, as a module."""
    path = Path(__file__).parents[1] / "feedback" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


judge_server: Any = _load("judge_server")


class PocketCompletions:
    """Draws from a pocket model as the local engine does, from the seed of the request; one at a time."""

    def __init__(self, directory: ModelDirectory) -> None:
        self.model, self.tokenizer = directory.model(), directory.tokenizer()
        self.lock = threading.Lock()

    @torch.inference_mode()
    def __call__(self, body: dict[str, Any]) -> dict[str, Any]:
        """A choice as vLLM gives it."""
        greedy, end = body["temperature"] == 0, end_token(self.tokenizer)
        settings = SamplingSettings(
            samples=1, temperature=body["temperature"] or 1.0, greedy=greedy, max_new_tokens=body["max_tokens"]
        )
        uniforms = engine._uniforms(body["seed"], body["max_tokens"])[None]
        prompt_R_T = torch.tensor([body["prompt"]])
        with self.lock:
            draws = Draws(uniforms, torch.tensor([greedy]), ["of the server"], settings, {end})
            generate_by_transformers(self.model, prompt_R_T, torch.tensor([0]), draws)
            ((ids, _),) = draws.finished()
            logits_T_V = self.model(torch.cat([prompt_R_T, torch.tensor([ids])], dim=1)).logits[0]
        logprobs_C_V = logits_T_V[prompt_R_T.shape[1] - 1 : -1].float().log_softmax(dim=-1)
        return {
            "index": 0,
            "text": decode_response(self.tokenizer, ids),
            "token_ids": ids,
            "logprobs": {"token_logprobs": logprobs_C_V.gather(1, torch.tensor(ids)[:, None]).squeeze(1).tolist()},
            "finish_reason": "stop" if ids[-1] == end else "length",
        }


class Handler(judge_server._Handler):
    def _completion(self, fault: str | None, body: dict[str, Any]) -> bytes:
        server = self.server.judge
        choice = server.change(server.say(body), fault)
        answer = {"object": "text_completion", "model": body["model"], "choices": [choice]}
        return json.dumps(server.rewrite(answer)).encode()


@pytest.fixture(scope="session")
def padded_directory(tmp_path_factory: pytest.TempPathFactory, pocket_tokenizer: Any) -> ModelDirectory:
    """A random pocket model whose vocabulary has 64 ids more than its tokenizer, which it likes."""
    directory = tmp_path_factory.mktemp("padded")
    model = build_model(
        Architecture(hidden_size=16, intermediate_size=64, layers=2, heads=2), len(pocket_tokenizer) + 64
    )
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(10 if weights.dim() > 1 else 1)
    save_model(model, pocket_tokenizer, directory)
    return open_model(directory)


@pytest.fixture(scope="session")
def pocket_completions(pocket_directory: ModelDirectory) -> PocketCompletions:
    return PocketCompletions(pocket_directory)


@pytest.fixture
def start_server(pocket_completions: PocketCompletions, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Any]]:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-0123456789")
    started = []

    def start() -> Any:
        server = judge_server.JudgeServer(pocket_completions)
        server.http.RequestHandlerClass = Handler
        server.change = lambda choice, fault: choice
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def server(start_server: Callable[[], Any]) -> Any:
    return start_server()
