"""Whatever a user gives the command line, a mistake ends in one sentence, before anything runs.

Each run here goes the whole way through Kedro's session, with a runner that runs nothing.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from kedro.framework.startup import bootstrap_project
from kedro.runner import SequentialRunner

from aft.cli import run

ROOT = Path(__file__).parents[1]
Told = Callable[..., str | None]


@pytest.fixture(scope="module")
def conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "conf", folder / "conf", ignore=shutil.ignore_patterns("local"))
    (folder / "conf/local").mkdir()
    (folder / "conf/base/globals.yml").write_text(f"data: {folder / 'data'}\nrecipe: pocket\n", encoding="utf-8")
    (folder / "conf/base/mlflow.yml").write_text(
        "{enabled: false, tracking_uri: null, experiment: aft}\n", encoding="utf-8"
    )
    return folder / "conf"


@pytest.fixture
def told(conf: Path, monkeypatch: pytest.MonkeyPatch) -> Told:
    """What a run with these options is refused with; None if it would run."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(SequentialRunner, "_run", lambda *_, **__: None)
    bootstrap_project(ROOT)

    def of(*options: str) -> str | None:
        arguments = ["--env=smoke", f"--conf-source={conf}", *options]
        try:
            run.main(arguments, prog_name="run", standalone_mode=False)
        except click.ClickException as refused:
            return refused.format_message()
        return None

    return of


@pytest.mark.parametrize(
    "label",
    ["1.10", "007", "1e3", "0x1F", "0x" + 5000 * "f", "1_000", "yes", "null", "~", "", "[a]", "{a: b}"],
    ids=lambda label: label[:9],
)
def test_a_label_that_yaml_reads_as_something_else_is_refused(label: str, told: Told) -> None:
    """1.1 and 1.10 would share a folder."""
    said = told(f"--params=label={label}")
    assert said is not None and said.startswith("The label is ")


@pytest.mark.parametrize("label", ['"1.10"', "'007'", "2026-01-01", "v1.10", "smoke", "smoke.study.beta=0.1"])
def test_a_label_that_is_text_is_a_name(label: str, told: Told) -> None:
    assert told(f"--params=label={label}") is None


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("--params=label=cache", "holds what all runs share"),
        ("--params=label.x=1", "The label is read as {'x': 1}"),
        ("--params=label=pocket", "holds the results of a recipe"),
        ("--params=label=multitask", "holds the results of a recipe"),
        ("--params=seed.x=1", "must be a whole number"),
        ("--params=seed=", "must be a whole number"),
        ("--params=recipe=mine", "chosen by --env"),
        ("--runner=Nosuch", "Nosuch"),
        ("--runner=no.such.Runner", "no.such.Runner"),
        ("--runner=AbstractRunner", "abstract"),
        ("--runner=os.path", "os.path is no runner of Kedro's"),
        ("--runner=sys.exit", "sys.exit is no runner of Kedro's"),
        ("--runner=ThreadRunner", "set launch.processes"),
        ("--runner=ParallelRunner", "set launch.processes"),
        ("--runner-params=foo=1", "foo"),
        ("--load-versions=base_model:1", "base_model, but that dataset has no versions"),
        ("--load-versions=nosuch:1", "nosuch"),
        ("--load-versions=x", "leave it out, no dataset has versions"),
        ("--load-versions=x:", "leave it out, no dataset has versions"),
        ("--params=.training=1", "no parameter '.training': did you mean 'training'?"),
        ("--params=..=1", "no parameter '..'"),
        ("--params=.label=x", "no parameter '.label'"),
        ("--params=sample_from=nosuch", "sample_from is 'nosuch', but there is no model"),
        ("--params=labelling.judge=file,labelling.ratings_file=/nosuch", "labelling.ratings_file is '/nosuch', but"),
        (
            "--params=base_model.source=s3://bucket/model",
            "base_model.source is 's3://bucket/model', but must",
        ),
        ("--params=sample_cache=memory://bucket", "sample_cache is 'memory://bucket', but must be a path"),
        ("--params=labelling.judge=file,labelling.ratings_file=https://a/b.csv", "labelling.ratings_file is 'https://"),
        ("--params=test_sets.x.family=svamp,test_sets.x.settings.path=gs://a", "test_sets.x.settings.path is 'gs://a'"),
        ("--params=sample_from=hdfs://a/b", "sample_from is 'hdfs://a/b', but must be a path"),
        ("--params=candidates_from=s3://a/b.jsonl", "candidates_from is 's3://a/b.jsonl', but must be a path"),
        ("--params=candidates_from=nosuch", "candidates_from is 'nosuch', but must be a file that ends in .jsonl, "),
        ("--params=a=[", "cannot be read"),
        ("--params=a='", "cannot be read"),
        ("--params=a=@", "cannot be read"),
        ("--params=a=*b", "cannot be read"),
        ("--params=a=${b", "cannot be read"),
        ("--params=a=${nosuch:b}", "nosuch"),
        ("--params=evaluation.ks.0=2", "cannot be read"),
        ("--params=training.lora={rank: 8, alpha: 16}", "training.lora.rank=8,training.lora.alpha=16"),
        ('--params=sampler.server={base_url: "http://x", model: m}', "a dictionary's keys with dots"),
        ("--params=evaluation.ks=[2, 4]", "a list into the recipe's parameters.yml"),
        ("--params=training.batchsize=2", "'training.batchsize': did you mean 'batch_size'? There are epochs, "),
        ("--params=align.aft.objective.bta=1", "did you mean 'beta'?"),
        ("--params=sample_from=5", "sample_from is 5"),
        ("--params=test_sets.x=5", "test_sets.x is 5"),
        ("--params=labelling.judge=file", "set labelling.ratings_file"),
        ("--params=align.vft.objective.term=aft", "align.vft.objective.term: vft is the baseline"),
        ("--pipelines=nosuch", "nosuch"),
        ("--namespaces=nosuch", "nosuch"),
        ("--from-inputs=nosuch", "nosuch"),
        ("--to-outputs=nosuch", "nosuch"),
        ("--tags=nosuch", "no nodes"),
        ("--env=nosuch", "There is no recipe 'nosuch'"),
        ("--env=llama_7b", "There is no recipe 'llama_7b'"),  # only others stand on it
        ("--conf-source=/etc/passwd", "not a valid directory"),
        ("--config=/etc/passwd", "cannot be read"),
    ],
)
def test_a_mistake_ends_in_one_sentence(option: str, named: str, told: Told) -> None:
    said = told(option)
    assert said is not None and named in said and "\n" not in said


@pytest.mark.parametrize(
    ("file", "text", "named"),
    [
        ("globals.yml", "recipe: 1.10\n", "The recipe is read as 1.1"),
        ("globals.yml", "recipe: cache\n", "holds what all runs share"),
        ("globals.yml", "recipe:\n", "The recipe is empty"),
        ("globals.yml", "recipe: x\ndata: 5\n", "data is 5"),
        ("globals.yml", "recipe: x\ndata: memory://bucket\n", "data in globals.yml is 'memory://bucket', but must be"),
        ("catalog.yml", "feedback: {filepath: 's3://b/feedback'}\n", "feedback.filepath is 's3://b/feedback', but"),
        (
            "catalog.yml",
            "raw_questions: {asked: {settings: {path: 'file:///data'}}}\n",
            "asked.settings.path is 'file:///data', but",
        ),
        ("parameters.yml", "training: {epochs: [\n", "parameters.yml"),
        ("parameters.yml", "label: mine\n", "Set the label on the command line"),
        ("parameters.yml", "- a list\n", ""),
        ("mlflow.yml", "enabled: [\n", "mlflow.yml"),
        ("mlflow.yml", "experiment: ''\n", "experiment"),
        ("catalog.yml", "base_model: 5\n", ""),
    ],
)
def test_a_mistake_in_a_file_ends_in_one_sentence(file: str, text: str, named: str, conf: Path, told: Told) -> None:
    (conf / "broken").mkdir()
    (conf / "broken/globals.yml").write_text("recipe: broken\n", encoding="utf-8")
    (conf / "broken" / file).write_text(text, encoding="utf-8")
    try:
        said = told("--env=broken")
    finally:
        shutil.rmtree(conf / "broken")
    assert said is not None and named in said


def test_the_settings_of_a_machine_stand_above_those_of_a_recipe(conf: Path, told: Told) -> None:
    """And the command line above both."""
    settings = conf / "local/parameters.yml"
    settings.write_text("training: {epochs: many}\n", encoding="utf-8")
    try:
        said = told(), told("--params=training.epochs=2")
    finally:
        settings.unlink()
    assert said[0] is not None and "training.epochs is 'many'" in said[0]
    assert said[1] is None


def test_a_folder_without_configuration_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(click.ClickException, match=f"There is no folder {tmp_path / 'conf'}; go to the project"):
        run.main([], standalone_mode=False)


def test_the_shipped_form_of_a_setting_runs(told: Told) -> None:
    """As conf/base says."""
    lora = "training.lora.rank=16,training.lora.alpha=32"
    server = "sampler.engine=server,sampler.server.base_url=http://host:8000/v1,sampler.server.model=vft"
    judge = "labelling.judge=openai,labelling.openai.base_url=http://host:8000/v1,labelling.openai.model=judge"
    assert told(f"--params={lora},{server},{judge},task.settings.train=100") is None
