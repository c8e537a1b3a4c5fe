import pandas as pd
import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline

from aft.hooks import run_summary
from aft.hooks.mlflow_tracking import MlflowTrackingHook
from aft.hooks.run_summary import RunSummaryHook, comparison_lines, next_lines, stage_lines
from aft.models.directory import ModelDirectory
from aft.models.publish import WARNINGS

OFF = {"enabled": False, "tracking_uri": None, "experiment": "aft"}
ON = {**OFF, "enabled": True}
COMPARISON = pd.DataFrame(
    {
        "variant": ["vft", "aft_dc"],
        "seeds": [2, 1],
        "accuracy": [0.3333, 1.0],
        "low": [0.3, 0.98],
        "high": [0.4, 1.0],
        "difference": [0.0, 0.6667],
        "difference_low": [0.0, -0.01],
        "difference_high": [0.0, 0.7],
        "maj_at_4": [0.1, 0.1],
        "pass_at_4": [0.2, 0.2],
        "maj_at_16": [0.35, 0.99],
        "pass_at_16": [0.5, 1.0],
        "assessment_accuracy": [0.755, float("nan")],
        "perplexity_of_positives": [1.234, 10.0],
    }
)
ALIGN = {"aft_dc": {"objective": {"term": "aft", "constraint": "detached"}, "note": "one", "source": "Eq. 7"}}
FIGURES = {"accuracy": 0.3333, "accuracy_low": 0.3, "accuracy_high": 0.4, "auroc": 0.5}


def test_the_comparison_is_an_aligned_table_in_percent():
    """k = 16 is more than 4, also as a number; vft has no difference to itself; NaN is a dash."""
    assert comparison_lines(COMPARISON) == [
        "variant  seeds  accuracy % [interval]  minus vft [interval]  maj@16 %  pass@16 %  assessment %  perplexity",
        "vft          2      33.3 [30.0, 40.0]                     -      35.0       50.0          75.5        1.23",
        "aft_dc       1    100.0 [98.0, 100.0]   +66.7 [-1.0, +70.0]      99.0      100.0             -       10.00",
    ]


def test_without_samples_there_is_no_k():
    greedy = COMPARISON.drop(columns=[name for name in COMPARISON if "_at_" in str(name)])
    assert comparison_lines(greedy)[0].split("  ")[-2:] == ["assessment %", "perplexity"]
    assert "@" not in comparison_lines(greedy)[0]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (59.9, "59.9 s"),
        (60.0, "1 min 00 s"),
        (200.4, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations_have_the_unit_that_a_person_would_choose(seconds, text):
    assert stage_lines({"ingest": seconds}) == [f"ingest  {text}"]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def run(tmp_path, monkeypatch, caplog, run_with_hook):
    """A run with a clock that only its nodes move: `ingest` takes 2 s and 1 s, `evaluate` 90 s; gives the message."""
    clock = Clock()
    monkeypatch.setattr(run_summary, "perf_counter", clock)
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "made" / WARNINGS).write_text('["it degrades"]', encoding="utf-8")

    def make(seconds, result):
        def node(*_):
            clock.now += seconds
            return result

        return node

    model = ModelDirectory(tmp_path / "made", "f0")
    nodes = [
        Node(make(2, model), None, "base_model", name="base", tags="ingest"),
        Node(make(1, (model, "ready")), None, ["vft_model", "ready"], name="vft", tags=["ingest", "run.train.vft"]),
        Node(make(90, COMPARISON), "ready", "comparison", name="compare", tags=["evaluate", "run.accuracy.vft"]),
        Node(make(0, {}), "comparison", "accuracy_figure", name="draw", tags="evaluate"),
        Node(make(0, "page"), "comparison", "align.compare.mine.report", name="report", tags="evaluate"),
        Node(make(0, "page"), "comparison", "align.compare.mine.answers", name="answers", tags="evaluate"),
        Node(make(0, FIGURES), None, "vft_metrics", name="measure_vft", tags=["evaluate", "partial"]),
        Node(make(0, FIGURES), None, "align.aft_dc.metrics", name="measure_aft_dc", tags=["evaluate", "partial"]),
    ]
    models = {"type": "aft.catalog.model_directory.ModelDirectoryDataset"}
    catalog = DataCatalog.from_config(
        {
            "base_model": {**models, "filepath": str(tmp_path / "data/models/base")},
            "vft_model": {**models, "filepath": str(tmp_path / "data/models/seed_0/vft")},
            "comparison": {"type": "pandas.CSVDataset", "filepath": str(tmp_path / "data/comparison.csv")},
            "vft_metrics": {
                "type": "aft.catalog.atomic.AtomicJSONDataset",
                "filepath": str(tmp_path / "data/seed_0/vft.json"),
            },
            "align.{variant}.metrics": {
                "type": "aft.catalog.atomic.AtomicJSONDataset",
                "filepath": str(tmp_path / "data/seed_0/{variant}.json"),
            },
            "align.compare.{comparison}.{page}": {
                "type": "aft.catalog.atomic.AtomicTextDataset",
                "filepath": str(tmp_path / "data/{comparison}/{page}.html"),
            },
            "accuracy_figure": {"type": "json.JSONDataset", "filepath": str(tmp_path / "data/accuracy.json")},
        }
    )

    catalog["parameters"] = MemoryDataset({"align": ALIGN, "comparisons": {"mine": ["aft_dc"], "other": ["aft_dc"]}})
    tracking = MlflowTrackingHook()
    hook = RunSummaryHook(tracking)

    def told(stages: list[str], mlflow: dict, gaps: str = "", runtime_params: dict | None = None) -> str:
        tracking.gaps = gaps
        caplog.clear()
        with caplog.at_level("INFO", logger="aft.run"):
            asked = {"env": "smoke", "runtime_params": runtime_params}
            run_with_hook(hook, Pipeline(nodes).only_nodes_with_tags(*stages), catalog, tmp_path, mlflow, **asked)
        return caplog.messages[-1]

    return told


def test_the_message_has_the_table_the_stages_and_the_places(run, monkeypatch):
    """2 s + 1 s and 90 s; the common folder of both models; every path relative to the project."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert run(["ingest", "evaluate"], ON).splitlines() == [
        "The run is complete.",
        "",
        *comparison_lines(COMPARISON),
        "",
        "aft_dc leads with 100.0 % right answers.",
        "aft_dc is 66.7 points above vft [-1.0, +70.0], not separable.",
        "",
        "Warning: base: it degrades",
        "Warning: vft: it degrades",
        "",
        "ingest         3.0 s",
        "evaluate  1 min 30 s",
        "",
        "Report      data/mine/report.html",
        "Answers     data/mine/answers.html",
        "Comparison  data/comparison.csv",
        "Figure      data/accuracy.json",
        "Models      data/models",
        "MLflow      mlflow ui --backend-store-uri sqlite:///mlflow.db",
        "Pipeline    kedro viz run",
        "",
        *next_lines("kedro run --env=smoke", {}, ["data/mine/report.html"], "kedro run --env=smoke", 3, ["other"]),
    ]


def test_what_may_come_next_is_a_command_each():
    again = "kedro run --pipelines=binary"
    assert next_lines("kedro run", {}, ["a/report.html"], again, 1, ["ranking", "today"])[:-1] == [
        "See the report      python -m webbrowser a/report.html",
        "Another seed        kedro run --pipelines=binary --params=seed=1",
        "Another comparison  kedro run --pipelines=ranking",
    ]
    assert [line.split("  ")[0] for line in next_lines("kedro run", {}, [], "kedro run", 1, [])] == [
        "Another seed",
        "Your own questions",
    ]


def test_what_comes_next_repeats_the_parameters_of_the_run(run):
    """Another seed without them would be of another label, of other responses, or even of another task."""
    given = {"seed": 2, "label": "1.10", "task": {"settings": {"path": "my rows.jsonl"}}, "sampler": {"cluster": None}}
    _, seed, comparison, _ = run(["ingest", "evaluate"], ON, runtime_params=given).split("\n\n")[-1].splitlines()
    told = 'label="1.10",task.settings.path=my rows.jsonl,sampler.cluster=null\''
    assert seed == f"Another seed        kedro run --env=smoke --params='seed=3,{told}"
    assert comparison == f"Another comparison  kedro run --env=smoke --pipelines=other --params='seed=2,{told}"


def test_a_run_tells_only_what_it_wrote(run):
    """The second run, of one stage and without MLflow, says nothing of what the first one wrote."""
    run(["ingest", "evaluate"], ON)
    assert run(["ingest"], OFF).splitlines() == [
        "The run is complete.",
        "",
        "Warning: base: it degrades",
        "Warning: vft: it degrades",
        "",
        "ingest  3.0 s",
        "",
        "Models    data/models",
        "Pipeline  kedro viz run",
    ]


def test_a_server_is_named_without_its_credentials(run):
    message = run(["ingest"], {**ON, "tracking_uri": "https://arthur:dent42@host/mlflow"})
    assert "MLflow    https://host/mlflow" in message
    assert "dent42" not in message


def test_without_a_comparison_the_accuracy_of_each_variant_is_told(run):
    """Of `--to-outputs=vft_metrics` and the like; the comparison of a whole run tells it itself, as above."""
    assert run(["partial"], OFF).splitlines() == [
        "The run is complete.",
        "",
        "variant  accuracy % [interval]",
        "vft          33.3 [30.0, 40.0]",
        "aft_dc       33.3 [30.0, 40.0]",
        "",
        "evaluate  0.0 s",
        "",
        "Metrics   data/seed_0/vft.json",
        "Metrics   data/seed_0/aft_dc.json",
        "Pipeline  kedro viz run",
    ]


def test_what_is_missing_in_mlflow_is_the_last_line(run):
    told = run(["ingest"], ON, gaps="3 records are missing in MLflow").splitlines()
    assert told[-1] == "Tracking incomplete: 3 records are missing in MLflow."
    assert "incomplete" not in run(["ingest"], ON)
