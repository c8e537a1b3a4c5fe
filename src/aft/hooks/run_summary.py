"""The summary at the end of a run: the comparison table, the time of each stage, all output paths."""

import json
import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from shlex import quote
from time import perf_counter
from typing import TYPE_CHECKING, Any

import yaml
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline.node import Node

from aft.alignment.variants import BASELINE
from aft.hooks.mlflow_database import is_sqlite
from aft.hooks.mlflow_tracking import MlflowTrackingHook, read_settings
from aft.hooks.provenance import shown_uri
from aft.models.directory import ModelDirectory
from aft.pipelines.comparisons import dataset, measured, variants_of
from aft.pipelines.recorded import leaves
from aft.reporting.in_words import in_words
from aft.training.run import kept_warnings

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("aft.run")

_COMPARISON, _REPORT, _ANSWERS, _FIGURE = "comparison", "report", "answers", "_figure"  # how names of datasets end
_OWN = "kedro run --env=own --params=base_model.source=MODEL,task.settings.path=FILE"


class RunSummaryHook:
    """Notes what a run writes and how long its stages take, and logs it at the end.

    It is called last, so that what other hooks do is counted for the stage in which they do it.
    """

    def __init__(self, tracking: MlflowTrackingHook) -> None:
        self._tracking = tracking
        self._mlflow_uri: str | None = None
        self._conf: list[str] = []
        self._reset()

    def _reset(self) -> None:
        self._clock = perf_counter()
        self._seconds: dict[str, float] = {}
        self._comparisons: dict[str, pd.DataFrame] = {}  # by the dataset's name
        self._figures_of: dict[str, Mapping[str, float]] = {}
        self._pages: dict[str, list[str]] = {_REPORT: [], _ANSWERS: []}
        self._figures: list[str] = []
        self._models: dict[str, ModelDirectory] = {}

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Note where runs are recorded."""
        settings = read_settings(context)
        project = Path(context.project_path)
        self._mlflow_uri = settings.uri(project) if settings.enabled else None
        conf = Path(context.config_loader.conf_source)
        self._conf = [] if conf == project / "conf" else [f"--conf-source={quote(str(conf))}"]

    @hook_impl(trylast=True)
    def before_pipeline_run(self) -> None:
        """Forget an earlier run and start the clock."""
        self._reset()

    @hook_impl(trylast=True)
    def after_dataset_saved(self, dataset_name: str, data: Any, node: Node) -> None:
        """Note what was written, and count the time since the last event for the node's stage."""
        self._tick(node)
        what, variant = dataset_name.rpartition(".")[-1], measured(dataset_name)
        if what == _COMPARISON:
            self._comparisons[dataset_name] = data
        elif what in self._pages:
            self._pages[what].append(dataset_name)
        elif variant is not None:
            self._figures_of[variant] = data
        elif what.endswith(_FIGURE):
            self._figures.append(dataset_name)
        elif isinstance(data, ModelDirectory):
            self._models[dataset_name] = data

    @hook_impl(trylast=True)
    def after_pipeline_run(self, run_params: dict[str, Any], catalog: CatalogProtocol) -> None:
        """Log the summary as one message."""
        project = Path(run_params["project_path"])
        parameters: dict[str, Any] = catalog.load("parameters") if self._comparisons else {}
        variants = variants_of(parameters.get("align", {}))
        unconstrained = {name for name, variant in variants.items() if variant.family == "unconstrained"}
        warnings = [
            f"{_variant_of(name)}: {told}" for name, model in self._models.items() for told in kept_warnings(model.path)
        ]
        parts = [
            *(
                part
                for table in self._comparisons.values()
                for part in (comparison_lines(table), in_words(table, BASELINE, unconstrained))
            ),
            [f"Warning: {told}" for told in dict.fromkeys(warnings)],
            accuracy_lines(self._measured_alone()),
            stage_lines(self._seconds),
            _aligned(self._places(project, catalog), str.ljust),
            self._next(project, catalog, run_params, parameters["comparisons"]) if self._comparisons else [],
            [f"Tracking incomplete: {self._tracking.gaps}."] if self._tracking.gaps else [],
        ]
        blocks = ["\n".join(lines) for lines in parts if lines]
        logger.info("%s", "\n\n".join(["The run is complete.", *blocks]))

    def _tick(self, node: Node) -> None:
        from aft.pipeline_registry import STAGES

        now = perf_counter()
        stage = next((stage for stage in STAGES if stage in node.tags), "other")
        self._seconds[stage] = self._seconds.get(stage, 0.0) + now - self._clock
        self._clock = now

    def _measured_alone(self) -> dict[str, Mapping[str, float]]:
        """The figures of the variants that were measured, if there is no comparison of them; the baseline first."""
        names = [] if self._comparisons else sorted(self._figures_of, key=lambda name: name != BASELINE)
        return {name: self._figures_of[name] for name in names}

    def _places(self, project: Path, catalog: CatalogProtocol) -> list[list[str]]:
        """Rows of what and where, the paths relative to the project."""
        metrics = [dataset(name, "metrics") for name in self._measured_alone()]
        written = {
            "Report": self._pages[_REPORT],
            "Answers": self._pages[_ANSWERS],
            "Comparison": self._comparisons,
            "Metrics": metrics,
            "Figure": self._figures,
        }
        rows = [[what, _path(catalog, name)] for what, names in written.items() for name in names]
        if self._models:
            rows.append(["Models", os.path.commonpath([_path(catalog, name) for name in self._models])])
        rows = [[what, _relative(where, project)] for what, where in rows]
        if self._mlflow_uri is not None:
            uri = shown_uri(self._mlflow_uri, project)
            rows.append(["MLflow", f"mlflow ui --backend-store-uri {uri}" if is_sqlite(uri) else uri])
        return [*rows, ["Pipeline", "kedro viz run"]]

    def _next(
        self, project: Path, catalog: CatalogProtocol, run_params: Mapping[str, Any], comparisons: Iterable[str]
    ) -> list[str]:
        """What may come after a comparison."""
        pages = [_relative(_path(catalog, name), project) for name in self._pages[_REPORT]]
        others = [one for one in comparisons if not any(f".{one}." in name for name in self._pages[_REPORT])]
        seeds = [seed for table in self._comparisons.values() for told in table["seeds"] for seed in str(told).split()]
        env, given = run_params["env"], dict(leaves(run_params.get("runtime_params") or {}))
        run = " ".join(["kedro run", *([] if env is None else [f"--env={env}"]), *self._conf])
        asked = [f"--pipelines={','.join(run_params['pipeline_names'])}"] if run_params.get("pipeline_names") else []
        return next_lines(run, given, pages, " ".join([run, *asked]), max(map(int, seeds)) + 1, others)


def _variant_of(model: str) -> str:
    """The variant whose model a dataset is: `align.aft.model`, or `vft_model`."""
    return model.removesuffix("model").rstrip("._").rpartition(".")[-1]


def comparison_lines(comparison: "pd.DataFrame") -> list[str]:
    """The comparison as an aligned table: shares in percent, intervals in brackets, k as large as was measured."""
    measured = [int(name.removeprefix("maj_at_")) for name in comparison.columns if name.startswith("maj_at_")]
    means = [name for name in comparison.columns if re.fullmatch("mean_at_[0-9]+", name)]
    shares = {f"{name.replace('_at_', '@')} %": name for name in means}
    if measured:
        k = max(measured)
        shares |= {f"maj@{k} %": f"maj_at_{k}", f"pass@{k} %": f"pass_at_{k}"}
    shares["assessment %"] = "assessment_accuracy"
    rows = [["variant", "seeds", "accuracy % [interval]", f"minus {BASELINE} [interval]", *shares, "perplexity"]]
    for row in comparison.to_dict("records"):
        accuracy = f"{_percent(row['accuracy'])} [{_percent(row['low'])}, {_percent(row['high'])}]"
        ends = (_percent(row[end], "+") for end in ("difference_low", "difference_high"))
        difference = f"{_percent(row['difference'], '+')} [{', '.join(ends)}]" if row["variant"] != BASELINE else "-"
        figures = [_percent(row[column]) for column in shares.values()]
        perplexity = _number(row["perplexity_of_positives"], ".2f")
        rows.append([str(row["variant"]), str(row["seeds"]), accuracy, difference, *figures, perplexity])
    return _aligned(rows, str.rjust)


def accuracy_lines(measured: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The accuracy of each variant of this seed in percent, with its interval; nothing if none was measured."""
    rows = []
    for variant, figures in measured.items():
        accuracy, *ends = (_percent(figures[f"accuracy{end}"]) for end in ("", "_low", "_high"))
        rows.append([variant, f"{accuracy} [{', '.join(ends)}]"])
    return _aligned([["variant", "accuracy % [interval]"], *rows], str.rjust) if rows else []


def stage_lines(seconds: Mapping[str, float]) -> list[str]:
    """How long each stage took, in the order of the registry."""
    from aft.pipeline_registry import STAGES

    return _aligned([[stage, _duration(seconds[stage])] for stage in STAGES if stage in seconds], str.rjust)


def next_lines(
    run: str, given: Mapping[str, Any], pages: Sequence[str], again: str, seed: int, others: Sequence[str]
) -> list[str]:
    """How to see the pages, and what to try next: this run `again` with another seed, or with the command `run` the
    first of the other comparisons.

    Both repeat the parameters that were `given`, by dotted keys: these name the task, the label, the responses.
    """
    rows = [
        *(["See the report", f"python -m webbrowser {page}"] for page in pages),
        ["Another seed", f"{again}{_params({**given, 'seed': seed})}"],
        *(["Another comparison", f"{run} --pipelines={name}{_params(given)}"] for name in others[:1]),
        ["Your own questions", _OWN],
    ]
    return _aligned(rows, str.ljust)


def _params(given: Mapping[str, Any]) -> str:
    """The option that gives these parameters, as a shell reads it; nothing if there are none."""
    told = {name: value if _is_text(value) else json.dumps(value) for name, value in given.items()}
    return f" --params={quote(','.join(f'{name}={text}' for name, text in told.items()))}" if told else ""


def _is_text(value: Any) -> bool:
    """Whether a value is a text that is read as one where it stands without quotes, as 1.10 is not."""
    try:
        return isinstance(value, str) and yaml.safe_load(value) == value
    except yaml.YAMLError:
        return True


def _aligned(rows: list[list[str]], justify: Callable[[str, int], str]) -> list[str]:
    """Rows as lines of columns, the first one to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(justify, row[1:], widths[1:])]).rstrip() for row in rows]


def _percent(share: float, sign: str = "") -> str:
    return _number(100 * share, f"{sign}.1f")


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _path(catalog: CatalogProtocol, name: str) -> str:
    return str(catalog[name]._filepath)  # type: ignore[attr-defined]


def _relative(path: str, project: Path) -> str:
    return str(Path(path).relative_to(project)) if Path(path).is_relative_to(project) else path
