"""Where a base model comes from: a folder or a pinned revision; anything else is one sentence."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub.utils import filter_repo_objects

from aft.errors import ModelError
from aft.models.directory import ModelDirectory
from aft.models.source import find_model


def refused(source: str, revision: str | None = None, fingerprint: str | None = None) -> str:
    with pytest.raises(ModelError) as caught:
        find_model(source, revision, fingerprint)
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence, sentence
    return sentence


def test_a_folder(pocket_directory: ModelDirectory) -> None:
    assert find_model(str(pocket_directory.path), None, None) == pocket_directory
    assert find_model(str(pocket_directory.path), None, pocket_directory.fingerprint) == pocket_directory


def test_a_folder_with_other_weights_than_pinned(pocket_directory: ModelDirectory) -> None:
    sentence = refused(str(pocket_directory.path), None, "0" * 16)
    assert pocket_directory.fingerprint in sentence and "base_model.fingerprint" in sentence


@pytest.mark.parametrize("source", ["./nowhere", "/nowhere/at/all", "~/model", "model", "a/b/c", ""])
def test_no_folder_and_no_name_on_the_hub(source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert source in refused(source, "0" * 40)


def test_a_name_on_the_hub_without_a_revision() -> None:
    assert "base_model.revision" in refused("owner/model")


@pytest.mark.parametrize("name", ["owner/model", "owner/not a name", "-owner/model--"])
def test_a_name_on_the_hub_without_network(name: str) -> None:
    """Network is off in all tests (HF_HUB_OFFLINE): what is not in the local cache cannot be fetched."""
    sentence = refused(name, "0" * 40)
    assert name in sentence and "give a folder" in sentence


def test_a_fetched_model_is_checked_like_a_folder(
    pocket_directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever decides what it says is fetched, and an adapter, which is refused; no pickled weights and no code."""
    wanted = ["model.safetensors", "config.json", "tokenizer.json", "tokenizer.model.v3", "merges.txt", "emoji.json"]
    wanted += ["chat_template.jinja", "additional_chat_templates/tool.jinja", "adapter_config.json"]
    unwanted = ["pytorch_model.bin", "modeling.py", "README.md", "original/params.json"]
    asked: list[tuple[str, str]] = []

    def snapshot_download(name: str, *, revision: str, allow_patterns: list[str]) -> str:
        asked.append((name, revision))
        assert sorted(filter_repo_objects([*wanted, *unwanted], allow_patterns=allow_patterns)) == sorted(wanted)
        return str(pocket_directory.path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert find_model("owner/model", "abc", pocket_directory.fingerprint) == pocket_directory
    assert "is pinned" in refused("owner/model", "abc", "0" * 16)
    assert asked == [("owner/model", "abc")] * 2


GATED = "Access to model owner/model is restricted. Visit https://huggingface.co/owner/model to ask for access."
TOKEN = "hf_secretsecretsecret"


@pytest.fixture
def hub_that_refuses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[[int, str | None, str], None]]:
    """A hub that answers every question with this status, error code and message, as the real one words them."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, code, message = answer
            self.send_response(status)
            for name, value in (("X-Request-Id", "Root=1-2"), ("X-Error-Code", code), ("X-Error-Message", message)):
                if value:
                    self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    answer: list = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield lambda *told: answer.__setitem__(slice(None), told)
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("status", "code", "message", "helps"),
    [
        (403, "GatedRepo", GATED, "Visit https://huggingface.co/owner/model to ask for access"),
        (401, "GatedRepo", "Access to model owner/model is restricted. Please log in.", "Please log in"),
        (404, "RevisionNotFound", "Invalid rev id: 0000", "Invalid rev id: 0000"),
        (401, "RepoNotFound", "Repository not found", "Repository Not Found"),
        (403, None, "Access to this resource is disabled.", "Access to this resource is disabled"),
        (418, None, "The hub is a teapot.", "The hub is a teapot"),  # in a `LocalEntryNotFoundError`
        (401, "GatedRepo", f"{TOKEN} is not allowed.", "*** is not allowed"),
    ],
)
def test_what_the_hub_says_that_helps_is_told(
    status: int,
    code: str | None,
    message: str,
    helps: str,
    hub_that_refuses: Callable[[int, str | None, str], None],
) -> None:
    hub_that_refuses(status, code, message)
    sentence = refused("owner/model", "0" * 40)
    assert helps in sentence and TOKEN not in sentence and "Request ID" not in sentence
