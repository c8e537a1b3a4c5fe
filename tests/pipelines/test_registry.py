"""The shape of the pipelines: what flows where, and what never does."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kedro.io import DataCatalog

from aft.alignment.variants import BASELINE
from aft.config_loader import RecipeConfigLoader
from aft.pipeline_registry import STAGES, register_pipelines
from aft.pipelines.comparisons import dataset
from aft.pipelines.evaluate.report import FIGURES
from aft.settings import CONFIG_LOADER_ARGS

ROOT = Path(__file__).parents[2]
ALIGN = yaml.safe_load((ROOT / "conf/base/parameters_align_train.yml").read_text(encoding="utf-8"))["align"]
VARIANTS = [name for name in ALIGN if name != BASELINE]
RECIPES = sorted(path.parent.name for path in (ROOT / "conf").glob("*/globals.yml"))


@pytest.fixture(scope="module")
def pipelines():
    return register_pipelines()


def test_the_default_is_all_stages_in_order(pipelines):
    assert list(STAGES) == ["ingest", "vft_train", "sample_cots", "label_and_rank", "align_train", "evaluate"]
    nodes = {node.name for node in pipelines["__default__"].nodes}
    assert nodes == {node.name for stage in STAGES for node in pipelines[stage].nodes}


def test_nothing_comes_from_outside_but_raw_questions_and_parameters(pipelines):
    free = set().union(*(pipelines[name].inputs() for name in ("__default__", "ranking", "variants")))
    raw = {"raw_questions", "raw_test_sets"}
    assert {name for name in free if not name.startswith("params:")} - {"parameters"} == raw


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_dataset_is_in_the_catalog_of_every_recipe(pipelines, recipe):
    conf = RecipeConfigLoader(str(ROOT / "conf"), env=recipe, **CONFIG_LOADER_ARGS)
    catalog = DataCatalog.from_config(conf["catalog"])
    datasets = set().union(*(pipelines[name].datasets() for name in ("__default__", "ranking", "variants")))
    missing = [name for name in datasets if not name.startswith("param") and name not in catalog]
    assert missing == []


def test_every_configured_variant_is_trained_and_measured(pipelines):
    made = pipelines["variants"].all_outputs()
    assert {dataset(name, kind) for name in ALIGN for kind in ("model", "metrics", "training_curve")} <= made


@pytest.mark.parametrize("comparison", ["binary", "ranking"])
def test_a_comparison_is_all_stages_for_its_variants(pipelines, comparison):
    configured = yaml.safe_load((ROOT / "conf/base/parameters_evaluate.yml").read_text(encoding="utf-8"))
    made = pipelines[comparison].all_outputs()
    models = {dataset(name, "model") for name in configured["comparisons"][comparison]}
    assert {name for name in made if name.endswith("model")} == models | {"base_model"}
    own = {name for name in made if name.startswith("align.compare.")}
    assert own == {
        f"align.compare.{comparison}.{name}"
        for name in ("comparison", "paired_differences", "report", "answers", *FIGURES)
    }
    assert {tag for node in pipelines[comparison].nodes for tag in node.tags} >= set(STAGES)


def test_the_two_pages_of_a_comparison_lie_where_their_links_lead():
    conf = RecipeConfigLoader(str(ROOT / "conf"), env="smoke", **CONFIG_LOADER_ARGS)
    entries = conf["catalog"]
    report, answers = (
        Path(entries[f"align.compare.{{comparison}}.{name}"]["filepath"]) for name in ("report", "answers")
    )
    assert report.parent == answers.parent
    templates = ROOT / "src/aft/reporting/templates"
    for page, other in ((report, answers), (answers, report)):
        assert f'<a href="{other.name}">' in (templates / f"{page.name}.j2").read_text(encoding="utf-8")


def test_comparisons_share_the_nodes_before_them(pipelines):
    """Questions, VFT and feedback: the same nodes, which write the same files, whichever comparison is made."""

    def shared(name):
        nodes = [node for node in pipelines[name].nodes if not node.name.startswith("align.")]
        return {(node.name, *node.inputs, *node.outputs) for node in nodes}

    before = [shared(name) for name in ("binary", "ranking")]
    assert before[0] == before[1]
    assert {"vft.train_vft", "vft.measure_vft", "sample_cots.sample_cots"} <= {name for name, *_ in before[0]}


def test_namespaces_depend_on_each_other_without_a_cycle_and_kedro_has_nothing_to_warn_of():
    """In a process of its own, since Kedro warns of dots in names once in a process."""
    code = (
        "import warnings; from graphlib import TopologicalSorter\n"
        "from aft.pipeline_registry import register_pipelines\n"
        "with warnings.catch_warnings(record=True) as told:\n"
        "    warnings.simplefilter('always')\n"
        "    pipelines = register_pipelines()\n"
        "print([str(one.message) for one in told if 'register_new_resolver' not in str(one.message)])\n"
        "groups = {name: made.group_nodes_by('namespace') for name, made in pipelines.items()}\n"
        "orders = {name: [*TopologicalSorter({one.name: one.dependencies for one in made}).static_order()]"
        " for name, made in groups.items()}\n"
        "print(orders['__default__'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True, cwd=ROOT)
    assert done.stdout.splitlines() == ["[]", "['ingest', 'vft', 'sample_cots', 'label_and_rank', 'align']"]


def test_pipelines_follow_the_configuration_of_the_last_context():
    """The project's where there is none, a recipe's, the command line's; Kedro-Viz makes its contexts without hooks."""
    code = (
        "from pathlib import Path\n"
        "from kedro.framework.startup import bootstrap_project; bootstrap_project(Path('.'))\n"
        "from kedro.framework.project import pipelines; from kedro.framework.session import KedroSession\n"
        "from kedro_viz.integrations.kedro.data_loader import load_data\n"
        "def told(of):\n"
        "    return next(name.split('.')[2] for name in of['evaluate'].outputs() if name.endswith('.report'))\n"
        "def seen(**given):\n"
        "    KedroSession.create(Path('.'), **given).load_context()\n"
        "    return told(pipelines)\n"
        "print(told(pipelines), seen(env='gsm8k_rank'), seen(env='smoke'),\n"
        "      seen(env='smoke', runtime_params={'compare': 'ranking'}),\n"
        "      told(load_data(Path('.'), env='gsm8k_rank')[1]), told(load_data(Path('.'), env='smoke')[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "binary ranking binary ranking ranking binary"


def test_no_training_node_reads_test_questions_or_what_is_made_from_them(pipelines):
    """Walk up from every model: test questions reach it as content hashes only.

    Validation questions reach the trainings as what the monitor watches (without which the weights are the same, see
    tests/training/test_monitor.py), and no other node.
    """
    models = [dataset(name, "model") for name in ALIGN]
    nodes = pipelines["variants"].to_outputs(*models).nodes
    read = {name for node in nodes for name in node.inputs}
    assert not read & {"test_questions", "other_questions", "assessment_groups"}
    assert "held_out_hashes" in read
    watching = [node.name.rsplit(".", 1)[-1] for node in nodes if "validation_questions" in node.inputs]
    assert sorted(watching) == sorted(f"train_{name}" for name in ALIGN)
    assert not any("generations" in name or "predictions" in name for name in read)


def test_one_namespace_trains_and_evaluates_one_variant(pipelines):
    chosen = pipelines["__default__"].filter(node_namespaces=["align.aft_bc"])
    assert {node.name.rsplit(".", 1)[-1] for node in chosen.nodes} == {
        *("train_aft_bc", "identify_aft_bc", "generate_aft_bc", "predict_aft_bc", "assess_aft_bc", "measure_aft_bc"),
        *("generate_other_aft_bc", "predict_other_aft_bc"),
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_can_be_run_to_its_figures(pipelines, variant):
    """What a study asks for: from nothing to one variant's figures, its training and VFT's included, no other's."""
    nodes = pipelines["variants"].to_outputs(dataset(variant, "metrics")).nodes
    trained = {node.name.rsplit(".", 1)[-1] for node in nodes if ".train_" in node.name}
    assert trained == {"train_vft", f"train_{variant}"}


def test_the_baseline_is_evaluated_as_the_variants_are(pipelines):
    names = {node.name.rsplit(".", 1)[-1] for node in pipelines["evaluate"].nodes}
    assert {f"{verb}_{BASELINE}" for verb in ("generate", "predict", "assess", "measure")} <= names


def test_listing_the_pipelines_imports_nothing_heavy():
    code = (
        "import sys; import aft.settings; from aft.pipeline_registry import register_pipelines; register_pipelines();"
        "print([m for m in ('torch', 'transformers', 'datasets', 'mlflow', 'accelerate', 'matplotlib', 'pandera')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_a_run_is_set_up_without_anything_heavy():
    """Session, parameters and every dataset of the default pipeline: what a run needs before its first node."""
    code = (
        "import sys; from pathlib import Path; from kedro.framework.startup import bootstrap_project;"
        "from kedro.framework.session import KedroSession; bootstrap_project(Path('.'));"
        "from kedro.framework.project import pipelines;"
        "catalog = KedroSession.create(Path('.'), env='smoke').load_context().catalog;"
        "assert all(catalog.get(name) is not None for name in pipelines['__default__'].datasets());"
        "print([m for m in ('torch', 'transformers', 'datasets', 'mlflow', 'accelerate', 'matplotlib', 'scipy')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True, cwd=ROOT)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_every_node_argument_can_be_resolved_by_kedro(caplog, pipelines):
    """Kedro skips the checks of a node whose annotations it cannot resolve, with a warning only."""
    from kedro.validation.type_extractor import TypeExtractor

    TypeExtractor(pipelines).extract_types_from_pipelines()
    assert "Could not extract" not in caplog.text
