"""What a user can get wrong ends in one sentence with the way out, not in a traceback."""

import json
import shutil

import pytest

pytestmark = pytest.mark.e2e


def refused(done, *named: str) -> None:
    assert done.returncode != 0
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("Error: ")
    for name in named:
        assert name in message, message


def test_unknown_recipe(fresh):
    refused(fresh.run(env="gsm9k"), "There is no recipe 'gsm9k'", "choose one of", "base", "gsm8k", "smoke")


def test_unknown_variant(fresh):
    refused(fresh.run("--namespaces=align.aft_xy"), "align.aft_xy")


def test_unknown_pipeline(fresh):
    refused(fresh.run("--pipelines=align_trian"), "align_trian", "align_train")


def test_unknown_parameter_key(fresh):
    refused(fresh.run("--params=training.epoch=3"), "training", "epoch")
    refused(fresh.run("--params=trainin.epochs=3"), "'trainin.epochs'", "did you mean 'training'")


def test_missing_and_malformed_data_file(fresh, tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    options = ("--pipelines=ingest", f"--params=task.settings.path={folder}")
    refused(fresh.run(*options, env="gsm8k"), "train.jsonl")
    good = json.dumps({"question": "2 + 2?", "answer": "2 + 2 = 4\n#### 4"})
    (folder / "train.jsonl").write_text(f"{good}\n{{broken\n", encoding="utf-8")
    (folder / "test.jsonl").write_text(good + "\n", encoding="utf-8")
    refused(fresh.run(*options, env="gsm8k"), "train.jsonl", "2")


def test_model_directory_without_tokenizer(fresh, finished, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(finished.data / "06_models/smoke/base", model)
    for path in model.glob("tokenizer*"):
        path.unlink()
    refused(fresh.run("--pipelines=ingest", f"--params=base_model.source={model}"), "no tokenizer", str(model))


def test_a_label_that_is_no_name_of_a_folder(fresh):
    refused(fresh.run("--params=label=../elsewhere"), "label", "../elsewhere")


def test_a_judge_without_its_settings(copied):
    stage = "--pipelines=label_and_rank"
    refused(copied.run(stage, "--params=labelling.judge=file"), "labelling.ratings_file")
    refused(copied.run(stage, "--params=labelling.judge=file,labelling.ratings_file=none.csv"), "none.csv")
    refused(copied.run(stage, "--params=labelling.judge=openai"), "labelling.openai")
    refused(copied.run(stage, "--params=labelling.judge=chatgpt"), "judge", "'steps'", "'openai'")


def test_a_stage_whose_input_was_not_made(fresh):
    refused(fresh.run("--pipelines=sample_cots"), "vft", "run")


def test_nothing_left_to_train_on(copied):
    too_long = copied.run("--pipelines=align_train", "--namespaces=align.aft", "--params=training.max_tokens=5")
    refused(too_long, "max_tokens=5")
