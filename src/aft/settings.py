"""Kedro's settings of the project: hooks, and how configuration is found and merged."""

import logging
import os
import warnings

from aft.config_loader import RecipeConfigLoader
from aft.context import Context
from aft.hooks.check_caches import CheckCachesHook
from aft.hooks.check_inputs import CheckInputsHook
from aft.hooks.check_parameters import CheckParametersHook
from aft.hooks.mlflow_process import RecordProcess
from aft.hooks.mlflow_tracking import MlflowTrackingHook
from aft.hooks.refused_start import RefusedStartHook
from aft.hooks.run_lock import RunLockHook
from aft.hooks.run_summary import RunSummaryHook
from aft.hooks.side_by_side import SideBySideHook
from aft.machine import collect_seldom

collect_seldom()
# No telemetry of any dependency. (Kedro's own is switched off by the file .telemetry, which is read even earlier.)
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# Threads that wait must not spin: on a machine that does other things, too, torch would be several times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# A parallel tokenizer before a fork only warns; one process is all that these pipelines use.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# PEFT asks a model of Transformers under an old name. The processes that train, and those of studies, inherit this.
_OLD_NAME = "`is_gradient_checkpointing` is deprecated"
warnings.filterwarnings("ignore", message=_OLD_NAME, category=FutureWarning)
if _OLD_NAME not in (_given := os.environ.get("PYTHONWARNINGS", "")):
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, (f"ignore:{_OLD_NAME}:FutureWarning", _given)))
warnings.filterwarnings("ignore", message=r".*register_new_resolver\(\) is deprecated.*")

# Kedro advises to repeat a command that failed at its first node; the next line of the log says what is wrong.
logging.getLogger("kedro.runner.sequential_runner").addFilter(lambda line: "No nodes ran" not in line.getMessage())

# Hooks run last to first: wrong parameters are refused before a run is recorded.
_TRACKING = MlflowTrackingHook(RecordProcess().open_record)
_CHECKS = (CheckInputsHook(), CheckCachesHook(), CheckParametersHook())
_HOLDERS = (SideBySideHook(), RunLockHook())
HOOKS = (_TRACKING, RunSummaryHook(_TRACKING), *_HOLDERS, *_CHECKS, RefusedStartHook(*_HOLDERS))

# It would read our mlflow.yml and refuse its keys. Releases differ in how their distribution spells the name.
DISABLE_HOOKS_FOR_PLUGINS = ("kedro-mlflow", "kedro_mlflow")

CONTEXT_CLASS = Context
CONFIG_LOADER_CLASS = RecipeConfigLoader
_KINDS = ("parameters", "mlflow", "globals", "catalog", "studies", "credentials")
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "base",  # the loader reads `local` over every recipe
    "merge_strategy": dict.fromkeys(_KINDS, "soft"),
    "config_patterns": {"mlflow": ["mlflow*", "mlflow*/**"], "studies": ["studies*", "studies*/**"]},
}
