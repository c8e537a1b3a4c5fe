"""A GGUF file becomes a folder in Hugging Face format; what cannot be converted is refused in a sentence."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from aft.cli import cli
from aft.errors import ModelError, SettingsError, StoreError
from aft.locks import lock_of, locked
from aft.models.gguf import convert
from aft.models.source import find_model
from aft.models.tokens import encode_response

TOKENS = ["<end>", *"abcdefgh", "Ġ", "ab"]


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A random Llama of one layer as llama.cpp has it, and its weights by their names there."""
    gguf = pytest.importorskip("gguf", reason="the package gguf is not there")
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_vocab_size(len(TOKENS))
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(48)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    shapes = {"token_embd": (len(TOKENS), 32), "output_norm": (32,), "blk.0.attn_norm": (32,), "blk.0.ffn_norm": (32,)}
    shapes |= {f"blk.0.attn_{name}": (32, 32) for name in ("q", "k", "v", "output")}
    shapes |= {"blk.0.ffn_gate": (48, 32), "blk.0.ffn_up": (48, 32), "blk.0.ffn_down": (32, 48)}
    weights = {name: torch.randn(*shape, generator=torch.manual_seed(0)) for name, shape in shapes.items()}
    for name, weight in weights.items():
        writer.add_tensor(f"{name}.weight", weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, weights


def test_a_file_becomes_a_base_model(written: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    """With its weights, bit by bit, and a tokenizer that knows the end; the folder can be saved from again."""
    path, weights = written
    done = CliRunner().invoke(cli, ["models", "from-gguf", str(path), str(tmp_path / "model")])
    assert done.exit_code == 0, done.output
    found = find_model(str(tmp_path / "model"), None, None)
    assert done.output.strip().endswith(f"Written: {found.fingerprint} in {tmp_path / 'model'}")
    model: Any = found.model()
    assert torch.equal(model.model.embed_tokens.weight, weights["token_embd"])
    assert torch.equal(model.model.layers[0].mlp.down_proj.weight, weights["blk.0.ffn_down"])
    assert model.config.max_position_embeddings == 64 and model.config.dtype == torch.float32
    assert encode_response(found.tokenizer(), "abc") == [10, 3, 0]
    model.save_pretrained(tmp_path / "again")
    with pytest.raises(ModelError, match="model exists; name a new folder"):
        convert(path, tmp_path / "model")


def test_what_is_no_gguf_leaves_no_folder(tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="the package gguf is not there")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF but not really")
    with pytest.raises(ModelError, match=r"bad\.gguf cannot be read by transformers: "):
        convert(tmp_path / "bad.gguf", tmp_path / "model")
    with pytest.raises(ModelError, match=r"There is no file .*other\.gguf"):
        convert(tmp_path / "other.gguf", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_gguf_file_as_base_model_and_a_missing_package_are_told_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "some.gguf").touch()
    with pytest.raises(ModelError, match=r"some\.gguf is a GGUF file; .*: aft models from-gguf .*some\.gguf FOLDER"):
        find_model(str(tmp_path / "some.gguf"), None, None)
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(SettingsError, match=r"pip install 'aft\[gguf\]'"):
        convert(tmp_path / "some.gguf", tmp_path / "model")


def test_a_folder_that_another_process_writes_is_left_to_it(
    written: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    staged = tmp_path / ".model.partial"
    staged.mkdir()
    with locked(lock_of(tmp_path / "model")), pytest.raises(StoreError, match="wait until it has ended"):
        convert(written[0], tmp_path / "model")
    assert staged.is_dir()
    assert convert(written[0], tmp_path / "model").path == tmp_path / "model"
