"""Model directories: the fingerprint follows the bytes, nothing incomplete or foreign is loaded, publishing links."""

import errno
import json
import os
import pickle
import re
import shutil
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from aft.catalog.model_directory import ModelDirectoryDataset
from aft.directories import MANIFEST, finish_directory, is_intact, read_manifest
from aft.errors import ModelError, StoreError
from aft.locks import locked
from aft.models.directory import ModelDirectory, decides, open_model
from aft.models.publish import publish, save_model, standing_for
from aft.sealed import with_seal
from aft.training.run import kept_warnings

WEIGHTS = "model.safetensors"
FILES = ["config.json", "generation_config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json"]
MADE_FROM = {"kind": "test", "seed": 1}


@pytest.fixture
def folder(tmp_path: Path, pocket_directory: ModelDirectory) -> Path:
    """A copy of the pocket model without a manifest, to be damaged."""
    return Path(shutil.copytree(pocket_directory.path, tmp_path / "model"))


@pytest.fixture
def finished(tmp_path: Path, folder: Path) -> ModelDirectory:
    """The same with a manifest, and with a file that decides nothing."""
    (folder / "training_curve.json").write_text("[]", encoding="utf-8")
    finish_directory(folder, tmp_path / "finished", MADE_FROM)
    return open_model(tmp_path / "finished")


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def flip(path: Path) -> None:
    """Change one bit in the middle of a file, in place."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def refused(action: Callable[[], object]) -> str:
    """The one sentence of the `ModelError` that `action` raises."""
    with pytest.raises(ModelError) as caught:
        action()
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence, sentence
    return sentence


class _Bomb:
    """Unpickling it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


class TestFingerprint:
    def test_is_written_down(self, pocket_directory: ModelDirectory) -> None:
        assert names(pocket_directory.path) == FILES
        assert len(pocket_directory.fingerprint) == 16

    @pytest.mark.parametrize("name", FILES)
    def test_changes_with_a_bit_of_any_deciding_file(self, folder: Path, name: str) -> None:
        before = open_model(folder).fingerprint
        text = (folder / name).read_bytes()
        changed = text.replace(b": ", b":  ", 1) if name.endswith(".json") else text[:-1] + bytes([text[-1] ^ 1])
        (folder / name).write_bytes(changed)
        assert open_model(folder).fingerprint != before
        (folder / name).write_bytes(text)
        assert open_model(folder).fingerprint == before

    @pytest.mark.parametrize(
        "name",
        [
            *("chat_template.jinja", "special_tokens_map.json", "tokenizer.model", "tekken.json", "tokenizer.4.0.json"),
            *("config.5.0.0.json", "emoji.json", "source.spm", "additional_chat_templates/default.jinja"),
        ],
    )
    def test_changes_with_a_further_deciding_file(self, folder: Path, name: str) -> None:
        before = open_model(folder).fingerprint
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}", encoding="utf-8")
        assert open_model(folder).fingerprint != before

    def test_follows_every_file_that_a_tokenizer_of_transformers_reads(self) -> None:
        """Their names stand in the source of each architecture's tokenizer; importing them all would take long."""
        import transformers

        assert transformers.__file__
        sources = Path(transformers.__file__).parent.glob("models/*/tokenization_*.py")
        tables = [
            re.findall(r"VOCAB_FILES_NAMES = \{(.*?)\}", source.read_text("utf-8"), re.DOTALL) for source in sources
        ]
        read = {name for (table,) in filter(None, tables) for name in re.findall(r': "([^"]+)"', table)}
        assert {"tokenizer.json", "spiece.model", "emoji.json", "bpe.codes"} <= read
        assert [name for name in sorted(read) if not decides(Path(name))] == []

    def test_changes_with_the_name_of_a_file(self, folder: Path) -> None:
        (folder / "vocab.txt").write_text("a b", encoding="utf-8")
        before = open_model(folder).fingerprint
        (folder / "vocab.txt").rename(folder / "vocab.json")
        assert open_model(folder).fingerprint != before

    @pytest.mark.parametrize("name", ["training_curve.json", "README.md", "pytorch_model.bin", "optimizer.pt"])
    def test_is_independent_of_other_files(self, folder: Path, name: str) -> None:
        before = open_model(folder).fingerprint
        (folder / name).write_text("anything", encoding="utf-8")
        (folder / "checkpoints").mkdir()
        for path in ("checkpoints/config.json", "checkpoints/chat_template.jinja", "checkpoints/model.safetensors"):
            (folder / path).write_text("anything", encoding="utf-8")
        (folder / "tokenizer").mkdir()  # a folder of a deciding name decides nothing
        assert open_model(folder).fingerprint == before

    def test_is_independent_of_place_and_manifest(
        self, pocket_directory: ModelDirectory, finished: ModelDirectory
    ) -> None:
        assert finished.path != pocket_directory.path
        assert read_manifest(finished.path) is not None
        assert finished.fingerprint == pocket_directory.fingerprint

    @pytest.mark.parametrize(
        "manifest", ['{"files": ["model.safetensors"]}', '{"name": "app", "files": {}}', "nonsense"]
    )
    def test_is_independent_of_a_foreign_manifest(self, folder: Path, manifest: str) -> None:
        before = open_model(folder).fingerprint
        (folder / MANIFEST).write_text(manifest, encoding="utf-8")
        assert open_model(folder).fingerprint == before

    @pytest.mark.parametrize(
        "damage", [lambda text: text[:30], lambda text: text.replace("kind", "kin_"), lambda text: ""]
    )
    def test_a_model_whose_manifest_is_damaged_is_said_to_be_taken_for_a_given_one(
        self, damage: Callable[[str], str], finished: ModelDirectory, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert open_model(finished.path) == finished and caplog.text == ""
        text = (finished.path / MANIFEST).read_text(encoding="utf-8")
        (finished.path / MANIFEST).write_text(damage(text), encoding="utf-8")
        assert open_model(finished.path) == finished
        assert "manifest.json is damaged, " in caplog.text and "run the pipeline that made it again" in caplog.text

    @pytest.mark.parametrize("name", FILES)
    def test_a_finished_model_that_changed_is_refused(self, finished: ModelDirectory, name: str) -> None:
        flip(finished.path / name) if name == WEIGHTS else (finished.path / name).write_text("{}", encoding="utf-8")
        assert name in refused(lambda: open_model(finished.path))

    def test_a_manifest_cannot_vouch_for_other_weights(self, folder: Path, pocket_directory: ModelDirectory) -> None:
        """A manifest with false hashes does not give other weights the fingerprint of the true ones."""
        hashes = dict.fromkeys(FILES, "0" * 64)
        (folder / MANIFEST).write_text(json.dumps(with_seal({"made_from": {}, "files": hashes})), encoding="utf-8")
        assert "has changed" in refused(lambda: open_model(folder))


class TestRoundTrip:
    def test_what_is_saved_is_what_is_loaded(self, tmp_path: Path, pocket_directory: ModelDirectory) -> None:
        model, tokenizer = pocket_directory.model(), pocket_directory.tokenizer()
        save_model(model, tokenizer, tmp_path / "again")
        again = open_model(tmp_path / "again")
        loaded = again.model()
        assert not loaded.training
        for name, weights in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], weights), name
        text = "Mia has 12 pens. She finds 3.\n"
        assert again.tokenizer()(text)["input_ids"] == tokenizer(text)["input_ids"]
        for name in (WEIGHTS, "config.json", "tokenizer.json"):
            assert (again.path / name).read_bytes() == (pocket_directory.path / name).read_bytes(), name

    def test_saving_what_was_loaded_gives_the_same_fingerprint(
        self, tmp_path: Path, pocket_directory: ModelDirectory
    ) -> None:
        """transformers notes in the tokenizer's configuration that it was loaded, so the first loading counts."""
        opened = [pocket_directory]
        for name in ("once", "twice"):
            save_model(opened[-1].model(), opened[-1].tokenizer(), tmp_path / name)
            opened.append(open_model(tmp_path / name))
        assert opened[1].fingerprint == opened[2].fingerprint

    def test_precision_is_chosen_when_loading(self, pocket_directory: ModelDirectory) -> None:
        assert pocket_directory.model().dtype == torch.float32
        assert pocket_directory.model("bfloat16").dtype == torch.bfloat16

    def test_a_full_disk_is_one_sentence(
        self,
        tmp_path: Path,
        pocket_directory: ModelDirectory,
        limit_file_size: Callable[[int], AbstractContextManager[None]],
    ) -> None:
        """safetensors reports a full disk in an error of its own, which is no `OSError`."""
        model, tokenizer = pocket_directory.model(), pocket_directory.tokenizer()
        with limit_file_size(20_000), pytest.raises(StoreError, match="disk is full") as caught:
            save_model(model, tokenizer, tmp_path / "model")
        assert "\n" not in str(caught.value)


class TestRefused:
    def test_no_folder(self, tmp_path: Path) -> None:
        assert "no model directory" in refused(lambda: open_model(tmp_path / "nowhere"))

    @pytest.mark.parametrize(
        ("missing", "told"), [("config.json", "config.json"), (WEIGHTS, "safetensors"), ("tokenizer.json", "tokenizer")]
    )
    def test_incomplete(self, folder: Path, missing: str, told: str) -> None:
        (folder / missing).unlink()
        assert told in refused(lambda: open_model(folder))

    def test_pickled_weights_are_never_unpickled(self, tmp_path: Path, folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        exploded = tmp_path / "exploded"
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Bomb(exploded)))
        assert "save_pretrained" in refused(lambda: open_model(folder))
        refused(ModelDirectory(folder, "0").model)  # nor by loading without opening first
        assert not exploded.exists()
        pickle.loads((folder / "pytorch_model.bin").read_bytes())
        assert exploded.exists()  # the bomb is real

    def test_code_of_its_own(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config["auto_map"] = {"AutoModelForCausalLM": "modeling.Model"}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        (folder / "modeling.py").write_text("raise SystemExit('ran')", encoding="utf-8")
        assert "auto_map" in refused(lambda: open_model(folder))

    def test_a_tokenizer_with_code_of_its_own(self, folder: Path) -> None:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        config.update(tokenizer_class="OwnTokenizer", auto_map={"AutoTokenizer": ["own.OwnTokenizer", None]})
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        (folder / "own.py").write_text("raise SystemExit('ran')", encoding="utf-8")
        refused(open_model(folder).tokenizer)

    def test_a_tokenizer_without_an_end(self, folder: Path) -> None:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        del config["eos_token"]
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        assert "eos_token" in refused(open_model(folder).tokenizer)

    @pytest.mark.parametrize("text", ["", "{", '{"a": ', "\xff"])
    def test_a_configuration_that_is_not_json(self, folder: Path, text: str) -> None:
        (folder / "config.json").write_bytes(text.encode("latin-1"))
        assert "not JSON" in refused(lambda: open_model(folder))

    @pytest.mark.parametrize("text", ["[]", "{}", '{"model_type": "of another world"}'])
    def test_a_configuration_of_no_language_model(self, folder: Path, text: str) -> None:
        (folder / "config.json").write_text(text, encoding="utf-8")
        refused(lambda: open_model(folder).model())

    @pytest.mark.parametrize("content", [b"", b"\xff" * 100, "half"])
    def test_damaged_weights(self, folder: Path, content: bytes | str) -> None:
        whole = (folder / WEIGHTS).read_bytes()
        (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
        assert "cannot be loaded" in refused(open_model(folder).model)

    def test_missing_weights_are_not_made_up(self, folder: Path) -> None:
        """transformers would go on with random numbers in their place, and only log it."""
        weights = load_file(folder / WEIGHTS)
        del weights["model.norm.weight"]
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
        assert "model.norm.weight" in refused(open_model(folder).model)

    def test_weights_of_another_shape(self, folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        weights["model.norm.weight"] = torch.ones(7)
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
        refused(open_model(folder).model)

    def test_a_missing_shard(self, folder: Path) -> None:
        names = list(load_file(folder / WEIGHTS))
        (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
        where = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
        (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}), "utf-8")
        assert "names model-00002-of-00002.safetensors" in refused(lambda: open_model(folder))

    @pytest.mark.parametrize(
        "place", ["../elsewhere.safetensors", "part/model.safetensors", "{}/elsewhere.safetensors"]
    )
    def test_a_shard_in_another_folder(self, folder: Path, place: str) -> None:
        """transformers would read it, but no fingerprint would follow it."""
        place = place.format(folder.parent)
        (folder / "part").mkdir()
        names = list(load_file(folder / WEIGHTS))
        (folder / WEIGHTS).rename(folder / place)
        (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(names, place)}), "utf-8")
        (folder / "other.safetensors").write_bytes(b"")
        assert place in refused(lambda: open_model(folder))

    @pytest.mark.parametrize("index", [None, "{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
    def test_weights_that_nothing_names(self, folder: Path, index: str | None) -> None:
        (folder / WEIGHTS).rename(folder / "consolidated.safetensors")
        if index is not None:
            (folder / f"{WEIGHTS}.index.json").write_text(index, encoding="utf-8")
        assert f"{WEIGHTS}.index.json" in refused(lambda: open_model(folder))

    def test_a_configuration_that_names_other_weights(self, folder: Path) -> None:
        (folder / "part").mkdir()
        shutil.copy(folder / WEIGHTS, folder / "part")
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config["transformers_weights"] = f"part/{WEIGHTS}"
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        assert "transformers_weights" in refused(lambda: open_model(folder))

    @pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"])
    def test_an_adapter_beside_the_weights(self, folder: Path, name: str) -> None:
        """transformers adds it to the weights by itself, and what is made of the model would be without it."""
        (folder / name).write_text("{}", encoding="utf-8")
        sentence = refused(lambda: open_model(folder))
        assert name in sentence and "merge_and_unload" in sentence and "save_pretrained" in sentence

    def test_an_adapter_without_weights(self, tmp_path: Path) -> None:
        (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
        assert "merge_and_unload" in refused(lambda: open_model(tmp_path))

    @pytest.mark.parametrize("content", ["", "{}", "half"])
    def test_a_damaged_tokenizer(self, folder: Path, content: str) -> None:
        whole = (folder / "tokenizer.json").read_text(encoding="utf-8")
        (folder / "tokenizer.json").write_text(whole[: len(whole) // 2] if content == "half" else content, "utf-8")
        assert "cannot be loaded" in refused(open_model(folder).tokenizer)


class TestPublish:
    def test_links_what_decides_and_nothing_else(self, tmp_path: Path, finished: ModelDirectory) -> None:
        published = publish(finished, tmp_path / "06_models" / "vft")
        assert names(published.path) == sorted([*FILES, MANIFEST])
        assert published.fingerprint == finished.fingerprint == open_model(published.path).fingerprint
        assert all((published.path / name).samefile(finished.path / name) for name in FILES)
        manifest = read_manifest(published.path)
        assert manifest is not None and manifest["made_from"] == MADE_FROM
        assert is_intact(published.path)

    def test_across_disks_by_symbolic_links(
        self, tmp_path: Path, finished: ModelDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def another_disk(source: Path, target: Path) -> None:
            raise OSError(errno.EXDEV, "Invalid cross-device link")

        monkeypatch.setattr(os, "link", another_disk)
        monkeypatch.chdir(tmp_path)
        source = ModelDirectory(Path("finished"), finished.fingerprint)  # a relative path must not become a broken link
        published = publish(source, Path("other/vft"))
        assert all((published.path / name).is_symlink() for name in FILES)
        assert open_model(published.path).fingerprint == finished.fingerprint
        assert torch.equal(published.model().lm_head.weight, finished.model().lm_head.weight)
        before = published.path.stat().st_ino
        publish(source, Path("other/vft"))
        assert published.path.stat().st_ino == before
        shutil.rmtree(finished.path)
        assert read_manifest(published.path) is None  # a dangling link is no finished model

    @pytest.mark.parametrize("given", ["finished", "folder"])
    def test_is_idempotent(self, tmp_path: Path, given: str, request: pytest.FixtureRequest) -> None:
        fixture = request.getfixturevalue(given)
        source = fixture if isinstance(fixture, ModelDirectory) else open_model(fixture)
        target = tmp_path / "vft"
        publish(source, target)
        before = target.stat().st_ino, (target / MANIFEST).stat().st_ino
        assert publish(source, target).fingerprint == source.fingerprint
        assert (target.stat().st_ino, (target / MANIFEST).stat().st_ino) == before

    def test_the_same_bytes_made_from_something_else_are_published_anew(
        self, tmp_path: Path, finished: ModelDirectory
    ) -> None:
        """Another setting may train the same weights: what the manifest says of them must follow."""
        target = publish(finished, tmp_path / "vft").path
        staged = Path(shutil.copytree(finished.path, tmp_path / "staged"))
        finish_directory(staged, tmp_path / "other", {**MADE_FROM, "seed": 2})
        publish(open_model(tmp_path / "other"), target)
        assert ModelDirectory(target, finished.fingerprint).made_from == {**MADE_FROM, "seed": 2}

    def test_a_given_folder_stays_as_it_is(self, tmp_path: Path, folder: Path) -> None:
        (folder / "README.md").write_text("mine", encoding="utf-8")
        before = names(folder)
        published = publish(open_model(folder), tmp_path / "base")
        assert names(folder) == before
        assert names(published.path) == sorted([*FILES, MANIFEST])

    @pytest.mark.parametrize("name", FILES)
    def test_a_given_file_is_edited_in_place(self, tmp_path: Path, folder: Path, name: str) -> None:
        """Training may go on for days with what was published; a copy of the given folder is as it was."""
        (folder / "additional_chat_templates").mkdir()
        (folder / "additional_chat_templates" / "tool.jinja").write_text("{{ messages }}", encoding="utf-8")
        published = publish(open_model(folder), tmp_path / "base")
        assert not any((published.path / path).samefile(folder / path) for path in FILES)
        with (folder / name).open("ab") as file:
            file.write(b" ")
        assert open_model(published.path).fingerprint == published.fingerprint != open_model(folder).fingerprint
        assert (published.path / "additional_chat_templates" / "tool.jinja").is_file()
        again = publish(open_model(folder), tmp_path / "base")
        assert open_model(again.path).fingerprint == again.fingerprint == open_model(folder).fingerprint

    def test_a_damaged_copy_of_a_given_model_is_made_anew(self, tmp_path: Path, folder: Path) -> None:
        source = open_model(folder)
        target = publish(source, tmp_path / "base").path
        flip(target / WEIGHTS)
        publish(source, target)
        assert open_model(target).fingerprint == source.fingerprint == open_model(folder).fingerprint

    def test_card_and_adapter_come_along(self, tmp_path: Path, folder: Path) -> None:
        """Of a model that was made here; they decide nothing, but a directory that lacks them is made anew."""
        (folder / "README.md").write_text("a card", encoding="utf-8")
        (folder / "adapter").mkdir()
        (folder / "adapter" / "adapter_config.json").write_text("{}", encoding="utf-8")
        before = open_model(folder).fingerprint
        finish_directory(folder, tmp_path / "finished", MADE_FROM)
        source = open_model(tmp_path / "finished")
        target = publish(source, tmp_path / "vft").path
        assert source.fingerprint == open_model(target).fingerprint == before
        assert names(target) == sorted([*FILES, "README.md", "adapter", MANIFEST])
        assert (target / "adapter" / "adapter_config.json").samefile(source.path / "adapter" / "adapter_config.json")
        assert is_intact(target)
        place = target.stat().st_ino
        with (target / "README.md").open("a", encoding="utf-8") as card:  # the user's licence, say
            card.write(", edited")
        publish(source, target)
        assert target.stat().st_ino == place and is_intact(source.path)
        assert (target / "README.md").read_text("utf-8") == "a card, edited"
        (target / "README.md").unlink()
        publish(source, target)
        assert (target / "README.md").read_text(encoding="utf-8") == "a card"

    def test_the_warnings_of_its_training_are_told_of_a_model_from_the_catalog(
        self, tmp_path: Path, folder: Path
    ) -> None:
        (folder / "training_warnings.json").write_text('["scores fell"]', encoding="utf-8")
        assert kept_warnings(publish(open_model(folder), tmp_path / "given").path) == []  # somebody else's file
        finish_directory(folder, tmp_path / "finished", MADE_FROM)
        source = open_model(tmp_path / "finished")
        dataset = ModelDirectoryDataset(filepath=str(tmp_path / "vft"))
        dataset.save(source)
        assert kept_warnings(dataset.load().path) == ["scores fell"]
        variant = standing_for(dataset.load(), {"term": "aft"}, tmp_path / "cache")
        assert kept_warnings(variant.path) == ["scores fell"]

    def test_a_foreign_manifest_names_no_file_to_take_over(self, tmp_path: Path, folder: Path) -> None:
        (tmp_path / "secret").write_text("mine", encoding="utf-8")
        (folder / "adapter").mkdir()
        named = {"adapter/../../secret": "", "../secret": "", "secret": ""}
        (folder / MANIFEST).write_text(json.dumps({"made_from": {}, "files": named}), encoding="utf-8")
        published = publish(open_model(folder), tmp_path / "there" / "base")
        assert names(published.path) == sorted([*FILES, MANIFEST])

    @pytest.mark.parametrize(
        ("place", "known"),
        [
            ("hub/models--Qwen--Qwen2.5-0.5B/snapshots/0123abcd", {"name": "Qwen/Qwen2.5-0.5B"}),
            ("hub/models--owner--a--b/snapshots/0123abcd", {"name": "owner/a--b"}),
            ("home/somebody/my model", {}),
        ],
    )
    def test_of_a_given_model_only_its_name_on_the_hub_is_noted(
        self, place: str, known: dict[str, str], tmp_path: Path, folder: Path
    ) -> None:
        given = Path(shutil.copytree(folder, tmp_path / place))
        published = publish(open_model(given), tmp_path / "base")
        assert published.made_from == {"kind": "given model", "fingerprint": published.fingerprint, **known}

    def test_replaces_another_model_as_a_whole(self, tmp_path: Path, finished: ModelDirectory, folder: Path) -> None:
        target = tmp_path / "vft"
        publish(finished, target)
        (target / "stale.safetensors").write_text("of another run", encoding="utf-8")
        other = Path(shutil.copytree(finished.path, folder))
        (other / MANIFEST).unlink()
        (other / "generation_config.json").unlink()
        source = open_model(other)
        published = publish(source, target)
        assert names(target) == sorted({*FILES, MANIFEST} - {"generation_config.json"})
        assert open_model(target).fingerprint == published.fingerprint == source.fingerprint != finished.fingerprint
        assert [name for name in names(tmp_path) if name.startswith(".vft")] == [".vft.lock"]

    def test_repairs_what_was_damaged_through_a_link(
        self, tmp_path: Path, finished: ModelDirectory, folder: Path
    ) -> None:
        """The published file *is* the cached one; when the cache is built anew, the published model follows."""
        target = publish(finished, tmp_path / "vft").path
        whole = (finished.path / WEIGHTS).read_bytes()
        flip(target / WEIGHTS)
        assert not is_intact(finished.path)
        refused(lambda: open_model(target))
        (finished.path / WEIGHTS).unlink()
        (finished.path / WEIGHTS).write_bytes(whole)  # as a rebuild does: a new file of the same name and content
        assert is_intact(finished.path)
        publish(finished, target)
        assert open_model(target).fingerprint == finished.fingerprint

    @pytest.mark.usefixtures("impatient")
    def test_two_processes_never_publish_at_the_same_place_at_once(
        self, tmp_path: Path, finished: ModelDirectory
    ) -> None:
        with locked(tmp_path / ".vft.lock"), pytest.raises(StoreError, match="Another run"):
            publish(finished, tmp_path / "vft")
        target = publish(finished, tmp_path / "vft").path
        with locked(tmp_path / ".vft.lock"):
            publish(finished, target)  # nothing to do, so no lock is needed

    def test_what_another_process_published_while_this_one_waited_stays(
        self, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Replaced, it would be gone for a moment under whoever reads it by now."""
        source, target, waits = open_model(folder), tmp_path / "base", threading.Event()

        def locked_soon(*options: Any) -> AbstractContextManager[None]:
            waits.set()
            return locked(*options)

        monkeypatch.setattr("aft.models.publish.locked", locked_soon)
        second = threading.Thread(target=publish, args=(source, target))
        with locked(tmp_path / ".base.lock"):
            second.start()
            assert waits.wait(60)
            publish(source, tmp_path / "beside").path.rename(target)  # what the holder of the lock does
            place = target.stat().st_ino
        second.join()
        assert target.stat().st_ino == place
        assert open_model(target).fingerprint == source.fingerprint

    def test_what_a_killed_run_left_is_no_obstacle(self, tmp_path: Path, finished: ModelDirectory) -> None:
        left = tmp_path / ".vft.partial"
        left.mkdir()
        (left / WEIGHTS).write_text("ha", encoding="utf-8")
        target = publish(finished, tmp_path / "vft").path
        assert open_model(target).fingerprint == finished.fingerprint
        assert not left.exists()
