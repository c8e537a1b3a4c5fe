"""The smoke recipe from end to end: what a user finds afterwards, and what a second run does."""

import json
import sys
from typing import Any

import pandas as pd
import pytest

from aft.catalog.sample_store import SampleStoreDataset
from aft.files import hash_file

pytestmark = pytest.mark.e2e
MODELS = ("vft", "rft", "aft", "aft_dc", "aft_bc")


def models_of(project, seed=0):
    return project.data / f"06_models/smoke/seed_{seed}"


def test_the_comparison_has_every_variant_on_the_same_questions(finished):
    table = pd.read_csv(finished.data / "08_reporting/smoke/binary/comparison.csv")
    assert table["variant"].tolist() == list(MODELS)
    assert (table["questions"] == 24).all()
    assert table["accuracy"].between(table["low"], table["high"]).all()
    assert table.loc[0, "difference"] == 0
    figures = ["maj_at_2", "pass_at_4", "best_of_4", "auroc", "perplexity_of_positives", "accuracy_validation"]
    assert table[figures].notna().all(axis=None)


def test_the_report_stands_alone(finished):
    page = (finished.data / "08_reporting/smoke/binary/report.html").read_text(encoding="utf-8")
    assert all(name in page for name in MODELS)
    assert page.count("data:image/png;base64,") == 4
    assert str(finished.folder) not in page and "<script" not in page


def test_the_summary_shows_the_table_and_where_everything_is(finished):
    log = (finished.folder / "log.txt").read_text(encoding="utf-8")
    for shown in (*MODELS, "report.html", "answers.html", "comparison.csv", "mlflow ui", "kedro viz"):
        assert shown in log


@pytest.mark.parametrize("name", MODELS)
def test_models_load_in_plain_transformers(finished, name):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = models_of(finished) / name
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer("Mia has 4 pens. She buys 2. How many?\n", return_tensors="pt")
    assert model.generate(**ids, max_new_tokens=2).shape[1] > ids["input_ids"].shape[1]
    assert not [path for path in folder.rglob("*") if path.suffix in {".bin", ".pt", ".pth", ".pkl"}]


def test_training_curves_tell_the_terms_and_scores(finished):
    folder = finished.data / "08_reporting/smoke/training_curves"
    constrained = pd.read_parquet(folder / "aft_bc/seed_0.parquet")
    assert constrained["step"].tolist() == list(range(1, 10))
    scored = constrained.dropna(subset=["score_positive"])
    gap = scored["loss"] - scored["vft_term"] - scored["alignment_term"] - scored["constraint_term"]
    assert gap.abs().max() < 1e-4
    assert (constrained["tokens_per_s"] > 0).all()
    assert pd.read_parquet(folder / "vft/seed_0.parquet")["alignment_term"].isna().all()


def test_mlflow_has_a_parent_and_a_child_for_each_training_and_evaluation(finished):
    from mlflow import MlflowClient

    client = MlflowClient(finished.tracking_uri)
    experiment = client.get_experiment_by_name("aft")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = {
        (run.data.tags["kind"], run.data.tags["variant"]): run for run in runs if "mlflow.parentRunId" in run.data.tags
    }
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert set(children) == {(kind, name) for kind in ("train", "accuracy") for name in MODELS}
    assert len(parents) == 1
    assert len(client.get_metric_history(children["train", "aft_dc"].info.run_id, "loss")) == 9
    assert "accuracy" in children["accuracy", "aft_dc"].data.metrics
    assert children["train", "aft_bc"].data.params["objective.constraint"] == "boundary"
    assert str(finished.folder) not in json.dumps([run.to_dictionary()["data"] for run in runs])


def test_the_same_command_again_reuses_models_and_samples(copied):
    before = {path: path.stat().st_mtime_ns for path in (copied.data / "06_models/cache").glob("*/*.safetensors")}
    shards = {path: path.stat().st_mtime_ns for path in (copied.data / "04_feature/cache").glob("*/*.parquet")}
    done = copied.run()
    assert done.returncode == 0, done.stderr[-2000:]
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert shards == {path: path.stat().st_mtime_ns for path in (copied.data / "04_feature/cache").glob("*/*.parquet")}
    assert done.stderr.count("Reusing") == 11  # base, vft and four variants, and the scores of five models


def test_the_same_command_again_gives_the_same_bytes_without_torch(copied):
    """Nothing is measured, drawn, or made an example again; what the data folder holds is as it was."""

    def files() -> dict[str, str]:
        own = (path for path in copied.data.rglob("*") if path.is_file() and "cache" not in path.parts)
        return {str(path): hash_file(path) for path in own}

    before = files()
    done = copied.call([sys.executable, "-X", "importtime", *copied.command()[1:]])
    assert done.returncode == 0, done.stderr[-2000:]
    assert files() == before
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time")}
    assert "pandas" in imported and imported.isdisjoint({"torch", "transformers", "matplotlib"})


def test_another_seed_lies_beside_and_is_compared(copied):
    """Seed 0 is evaluated once more by itself in between: it makes no difference how a stage was started."""
    assert copied.run("--pipelines=evaluate").returncode == 0
    done = copied.run("--params=seed=1")
    assert done.returncode == 0, done.stderr[-2000:]
    assert (models_of(copied, 1) / "aft_bc/model.safetensors").is_file()
    table = pd.read_csv(copied.data / "08_reporting/smoke/binary/comparison.csv")
    assert (table["seeds"].astype(str) == "0 1").all()
    assert table["std_over_seeds"].notna().all()


def test_one_variant_can_be_trained_alone_by_the_old_and_the_new_spelling(copied):
    old = copied.run("--pipeline=align_train", "--namespaces=align.rft")
    new = copied.run("--pipelines=align_train", "--namespaces=align.rft")
    assert (old.returncode, new.returncode) == (0, 0), old.stderr[-2000:]
    assert "rft" in new.stderr


def test_a_model_of_other_settings_is_not_compared(copied):
    """A variant is trained again with other settings: evaluate must not pass it off as one of the present ones."""
    options = ("--pipelines=align_train", "--namespaces=align.aft_bc", "--params=align.aft_bc.objective.beta=0.5")
    assert copied.run(*options).returncode == 0
    done = copied.run("--pipelines=evaluate")
    assert done.returncode != 0
    assert "was trained with another objective than is set now" in done.stderr


def test_dpo_trains_on_reference_scores_that_are_made_once(copied):
    """Another dpo_beta is another model, but the VFT model's scores are the same."""
    for beta, reused in ((0.1, 0), (0.3, 1)):
        changed = f"--params=align.aft.objective.term=dpo,align.aft.objective.dpo_beta={beta}"
        done = copied.run("--pipelines=align_train", "--namespaces=align.aft", changed)
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stderr.count("(scores): same inputs, same settings") == reused


def test_any_variant_can_be_run_to_its_figures_under_a_label_of_its_own(copied):
    """Ratings of the steps judge rank the samples; the recipe's own results stay as they are."""
    before = (copied.data / "08_reporting/smoke/binary/comparison.csv").read_bytes()
    done = copied.run("--pipelines=variants", "--to-outputs=align.pro_dc.metrics", "--params=label=ranked")
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads((copied.data / "08_reporting/ranked/seed_0/metrics/pro_dc.json").read_text(encoding="utf-8"))
    assert 0 <= figures["accuracy"] <= 1
    feedback = (
        SampleStoreDataset(filepath=str(copied.data / "05_model_input/ranked/seed_0/feedback.json")).load().table()
    )
    assert feedback["rating"].between(1, 10).all()
    assert feedback["rating"].nunique() > 2
    assert (copied.data / "08_reporting/smoke/binary/comparison.csv").read_bytes() == before


def test_one_more_round_samples_from_the_aligned_model(copied):
    folder = f"{copied.data}/06_models/smoke/seed_{{seed}}/aft_bc"
    options = ("--pipelines=ingest,vft_train,sample_cots", f"--params=label=round2,sample_from={folder}")
    done = copied.run(*options)
    assert done.returncode == 0, done.stderr[-2000:]
    name = "04_feature/{}/seed_0/candidates.json"
    one, two = (json.loads((copied.data / name.format(label)).read_text("utf-8")) for label in ("smoke", "round2"))
    assert {shard["path"] for shard in one["shards"]}.isdisjoint(shard["path"] for shard in two["shards"])


def test_other_test_sets_are_answered_beside_the_recipes_own(copied):
    """Two sets of other kinds, ten questions each; a set without a family is refused in one sentence."""
    sets = copied.folder / "conf/smoke/parameters_sets.yml"
    chosen = "{family: pocket, settings: {name: %s, phrasing: %s, test: 10, train: 1, validation: 1}}"
    first, listed = chosen % ("pocket_first", "question_first"), chosen % ("pocket_list", "list")
    sets.write_text(f"test_sets:\n  first: {first}\n  listed: {listed}\n", encoding="utf-8")
    options = ("--pipelines=variants", "--to-outputs=vft_metrics", "--params=label=sets")
    done = copied.run(*options)
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads((copied.data / "08_reporting/sets/seed_0/metrics/vft.json").read_text(encoding="utf-8"))
    assert {"accuracy_first", "accuracy_listed", "accuracy_validation"} <= figures.keys()
    sets.write_text("test_sets: {broken: {settings: {}}}\n", encoding="utf-8")
    refused = copied.run(*options)
    assert refused.returncode != 0 and "broken.family" in refused.stderr.splitlines()[-1]
