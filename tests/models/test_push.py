"""What goes to the hub, seen by a hub: a server of our own that keeps what it is sent."""

import base64
import json
import os
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from aft.cli import cli
from aft.errors import ModelError
from aft.files import finish_directory
from aft.models.card import model_card
from aft.models.directory import ModelDirectory, open_model
from aft.models.push import push
from aft.pipelines.tables import to_table
from aft.tasks import pocket

TOKEN = "hf_secretsecretsecret"
MODEL = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


class Hub:
    """Repositories by name: whether they are private, and their files; one commit is one entry of `commits`."""

    def __init__(self) -> None:
        self.private: dict[str, bool] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.commits: list[dict[str, list[str]]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.answer(*hub.post(self.path, body, self.headers["Authorization"]))

            def do_GET(self) -> None:
                self.answer(*hub.get(self.path))

            def answer(self, status: int, content: Any) -> None:
                text = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def post(self, path: str, body: bytes, authorization: str) -> tuple[int, Any]:
        if authorization != f"Bearer {TOKEN}":
            return 401, {"error": f"Invalid credentials: {authorization}"}
        lines = [json.loads(line) for line in body.splitlines()]
        if path == "/api/repos/create":
            name = f"{lines[0]['organization']}/{lines[0]['name']}" if "organization" in lines[0] else lines[0]["name"]
            if name.startswith("other/"):
                return 403, {"error": "You have no rights there.\nAsk for them."}
            status = 409 if name in self.files else 200
            self.private.setdefault(name, lines[0].get("visibility") == "private")
            self.files.setdefault(name, {".gitattributes": b""})
            return status, {"url": f"{self.url}/{name}"}
        if path == "/api/validate-yaml":
            assert lines[0]["content"].startswith("---\n")
            return 200, {"errors": [], "warnings": []}
        name = "/".join(path.split("/")[3:5])
        if "/preupload/" in path:
            known = [one["path"] for one in lines[0]["files"]]
            return 200, {"files": [{"path": one, "uploadMode": "regular", "shouldIgnore": False} for one in known]}
        assert path.endswith("/commit/main"), path
        done: dict[str, list[str]] = {"file": [], "deletedFile": []}
        for line in lines[1:]:
            value = line["value"]
            done[line["key"]].append(value["path"])
            if line["key"] == "file":
                self.files[name][value["path"]] = base64.b64decode(value["content"])
            else:
                del self.files[name][value["path"]]
        self.commits.append(done)
        return 200, {"commitUrl": f"{self.url}/{name}/commit/0", "commitOid": "0"}

    def get(self, path: str) -> tuple[int, Any]:
        parts = path.split("?", maxsplit=1)[0].split("/")
        name = "/".join(parts[3:5])
        if name not in self.files:
            return 404, {"error": "Repository not found"}
        if "tree" in parts:
            files = self.files[name].items()
            return 200, [{"type": "file", "path": one, "size": len(what), "oid": "0"} for one, what in files]
        siblings = [{"rfilename": one} for one in self.files[name]]
        return 200, {"id": name, "private": self.private[name], "sha": "0", "siblings": siblings}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that the client takes for the real one, and a token for it."""
    hub = Hub()
    thread = threading.Thread(target=hub.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield hub
    hub.server.shutdown()
    hub.server.server_close()
    thread.join()


@pytest.fixture
def made(pocket_directory: ModelDirectory, tmp_path: Path) -> ModelDirectory:
    """A finished model with card and adapter, and much beside it that is nobody's business."""
    staged = Path(shutil.copytree(pocket_directory.path, tmp_path / "staged"))
    (staged / "README.md").write_text(model_card({"kind": "model", "seed": 1}), encoding="utf-8")
    (staged / "adapter").mkdir()
    (staged / "adapter" / "adapter_config.json").write_text("{}", encoding="utf-8")
    (staged / "training_curve.json").write_text("[]", encoding="utf-8")
    (staged / "training_warnings.json").write_text("[]", encoding="utf-8")
    (staged / "checkpoints").mkdir()
    (staged / "checkpoints" / "optimizer.safetensors").write_text("moments", encoding="utf-8")
    finish_directory(staged, tmp_path / "made", {"kind": "model"})
    (tmp_path / "made" / "notes.txt").write_text("mine", encoding="utf-8")
    return open_model(tmp_path / "made")


def refused(model: ModelDirectory, name: str = "owner/model", *, private: bool = False) -> str:
    with pytest.raises(ModelError) as caught:
        push(model, name, private=private)
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence and TOKEN not in sentence, sentence
    return sentence


def test_what_a_model_is_passed_on_with_and_nothing_else(hub: Hub, made: ModelDirectory) -> None:
    assert push(made, "owner/model") == f"{hub.url}/owner/model"
    assert sorted(hub.files["owner/model"]) == sorted(
        [".gitattributes", "README.md", "adapter/adapter_config.json", *MODEL]
    )
    for name in ("README.md", "adapter/adapter_config.json", *MODEL):
        assert hub.files["owner/model"][name] == (made.path / name).read_bytes(), name
    assert hub.private == {"owner/model": False}
    assert len(hub.commits) == 1


def test_what_is_pushed_loads(hub: Hub, made: ModelDirectory, tmp_path: Path) -> None:
    push(made, "owner/model")
    for name in MODEL:
        (tmp_path / name).write_bytes(hub.files["owner/model"][name])
    assert open_model(tmp_path).fingerprint == made.fingerprint


def test_an_earlier_model_goes_in_the_same_commit(
    hub: Hub, made: ModelDirectory, pocket_directory: ModelDirectory
) -> None:
    """Its shards or adapter would be loaded, too; pictures, other folders and the licence are the owner's."""
    push(made, "owner/model")
    stale = ["adapter_config.json", "adapter_model.safetensors", "additional_chat_templates/tool.jinja"]
    stale += ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.model"]
    kept = ["LICENSE", "image.png", "onnx/config.json", "README.md"]
    hub.files["owner/model"] |= dict.fromkeys([*stale, *kept], b"")
    push(pocket_directory, "owner/model")
    assert sorted(hub.commits[-1]["deletedFile"]) == sorted(["adapter/adapter_config.json", *stale])
    assert sorted(hub.files["owner/model"]) == sorted([".gitattributes", *kept, *MODEL])


def test_results_of_the_evaluation_are_told(hub: Hub, made: ModelDirectory, tmp_path: Path) -> None:
    """Only if they are not older than the model; the card in its folder stays as it is."""
    folder, data = tmp_path / "data/06_models/mine/seed_0/aft", tmp_path / "data"
    shutil.copytree(made.path, folder)
    questions = data / "03_primary/mine/test_questions.parquet"
    figures = data / "08_reporting/mine/seed_0/metrics/aft.json"
    for file in (questions, figures):
        file.parent.mkdir(parents=True)
    to_table(pocket.load_questions(pocket.Settings(train=1, validation=1, test=2))["test"]).to_parquet(questions)
    figures.write_text('{"accuracy": 0.5}', encoding="utf-8")
    card = (folder / "README.md").read_bytes()
    for time, told in ((0, False), (None, True)):
        os.utime(figures, None if time is None else (time, time))
        assert CliRunner().invoke(cli, ["models", "push", str(folder), "owner/model"]).exit_code == 0
        pushed = hub.files["owner/model"]["README.md"].decode()
        assert ("name: greedy accuracy (%)" in pushed and "value: 50.0" in pushed and "name: pocket" in pushed) == told
    assert (folder / "README.md").read_bytes() == card


def test_private(hub: Hub, made: ModelDirectory) -> None:
    push(made, "owner/hidden", private=True)
    assert hub.private == {"owner/hidden": True}
    push(made, "owner/hidden", private=True)
    push(made, "owner/hidden")
    assert hub.private == {"owner/hidden": True}


def test_what_is_to_be_private_never_goes_to_a_public_repository(hub: Hub, made: ModelDirectory) -> None:
    hub.private["owner/open"], hub.files["owner/open"] = False, {}
    assert "public" in refused(made, "owner/open", private=True)
    assert hub.files["owner/open"] == {}


@pytest.mark.parametrize("name", ["model", "a/b/c", "../model", "owner/", "owner/a model", ""])
def test_a_name_that_is_none(name: str, hub: Hub, made: ModelDirectory) -> None:
    assert "owner/name" in refused(made, name)
    assert not hub.files


def test_without_a_token(hub: Hub, made: ModelDirectory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    assert "hf auth login" in refused(made)
    assert not hub.files


def test_without_rights(hub: Hub, made: ModelDirectory) -> None:
    sentence = refused(made, "other/model")
    assert "403" in sentence and "You have no rights there; Ask for them" in sentence


def test_with_a_token_that_is_not_known(
    hub: Hub, made: ModelDirectory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """This hub says the token in its answer."""
    monkeypatch.setenv("HF_TOKEN", "hf_anotheranother")
    sentence = refused(made)
    assert "401" in sentence and "hf_anotheranother" not in sentence + caplog.text


def test_without_network(hub: Hub, made: ModelDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    assert "check network" in refused(made)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "offline" in refused(made)


def test_the_command(hub: Hub, made: ModelDirectory, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["models", "push", str(made.path), "owner/model", "--private"])
    assert (done.exit_code, done.output) == (0, f"Pushed: {hub.url}/owner/model\n")
    assert hub.private == {"owner/model": True}
    failed = CliRunner().invoke(cli, ["models", "push", str(tmp_path / "none"), "owner/model"])
    assert failed.exit_code == 1 and failed.output.startswith("Error: There is no model directory")
