"""What other launchers leave in the environment decides nothing of what is trained, sampled or scored."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from aft.errors import SettingsError
from aft.models import environment
from aft.models.directory import ModelDirectory
from aft.models.environment import cleared
from aft.training.examples import Example
from aft.training.job import Job
from aft.training.run import TrainedModel, train
from aft.training.settings import Launch, Objective, TrainingSettings

SETTINGS = TrainingSettings(epochs=2, learning_rate=1e-3, batch_size=2, warmup=0.0)
EXAMPLES = [Example(f"q{i}", [0, 5, 6 + i], [[7, 8 + i, 1]], [[9, 1], [10, i + 4, 1]], [0, 1]) for i in range(4)]
STRAYS = [
    {"ACCELERATE_MIXED_PRECISION": "bf16"},
    {"ACCELERATE_MIXED_PRECISION": "fp16"},
    {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "2"},
    {"ACCELERATE_DYNAMO_BACKEND": "eager"},
    {"ACCELERATE_TORCH_DEVICE": "meta"},
    {"ACCELERATE_USE_DEEPSPEED": "true"},
    {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"},
    {"ACCELERATE_USE_PARALLELISM_CONFIG": "true", "PARALLELISM_CONFIG_DP_SHARD_SIZE": "2"},
    {"ACCELERATE_USE_MEGATRON_LM": "true"},
    {"FORK_LAUNCHED": "1", "LOCAL_RANK": "0"},
    {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "1"},
    {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"},
    {"PMI_SIZE": "2"},
    {"TORCHELASTIC_RUN_ID": "none"},
]


def run(start: ModelDirectory, workspace: Path, launch: Launch | None = None) -> TrainedModel:
    objective = Objective(term="aft", constraint="boundary")
    return train(start, Job(EXAMPLES, SETTINGS, objective, 0, "train aft"), workspace, launch=launch or Launch())


@pytest.fixture(autouse=True)
def nothing_told() -> None:
    """What another test has told is told again."""
    environment._tell.cache_clear()


@pytest.fixture(scope="module")
def plain(pocket_directory: ModelDirectory, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    return run(pocket_directory, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("strays", STRAYS, ids=" ".join)
def test_variables_of_other_launchers_do_not_count(
    strays: dict[str, str],
    plain: TrainedModel,
    pocket_directory: ModelDirectory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The same key, the same weights; one line tells which there were, and afterwards they are there again."""
    for name, value in strays.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    trained = run(pocket_directory, tmp_path)
    assert trained.directory.path.name == plain.directory.path.name
    assert trained.directory.fingerprint == plain.directory.fingerprint
    assert [row["loss"] for row in trained.curve] == [row["loss"] for row in plain.curve]
    with cleared():  # as each answer and score does, too
        pass
    told = [message for message in caplog.messages if "environment" in message]
    assert told == [f"Models are loaded and trained without these environment variables: {', '.join(sorted(strays))}."]
    assert dict(os.environ) == before


def test_of_several_processes_none_reads_them(
    plain: TrainedModel, pocket_directory: ModelDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for what torch's launcher sets for each of them."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "src"))
    for name, value in {"ACCELERATE_MIXED_PRECISION": "bf16", "PMI_SIZE": "7", "LOCAL_RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    trained = run(pocket_directory, tmp_path, Launch(processes=2))
    losses = [row["loss"] for row in trained.curve]
    assert losses == pytest.approx([row["loss"] for row in plain.curve], rel=1e-6)


@pytest.mark.parametrize("use", [run, lambda model, _: model.model()], ids=["train", "load"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NVIDIA_TF32_OVERRIDE", "1"),
        ("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "1"),
        ("ONEDNN_DEFAULT_FPMATH_MODE", "BF16"),
        ("DNNL_DEFAULT_FPMATH_MODE", "any"),
    ],
)
def test_what_is_read_too_early_to_be_cleared_is_refused(
    name: str,
    value: str,
    use: Callable[[ModelDirectory, Path], object],
    pocket_directory: ModelDirectory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever samples or scores loads a model."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"The environment variable {name} is {value}, .*: unset it, "):
        use(pocket_directory, tmp_path)


def test_loading_reads_none_of_them(pocket_directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for what torch's launcher sets, which may have started the process that loads."""
    strays = ("ACCELERATE_USE_FSDP", "FSDP_CPU_RAM_EFFICIENT_LOADING")
    for name in (*strays, "LOCAL_RANK"):
        monkeypatch.setenv(name, "1")
    seen: list[list[str]] = []
    load = AutoModelForCausalLM.from_pretrained

    def looking(*given: Any, **options: Any) -> Any:
        seen.append([name for name in (*strays, "LOCAL_RANK") if name in os.environ])
        return load(*given, **options)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", looking)
    pocket_directory.model()
    assert seen == [["LOCAL_RANK"]] and all(name in os.environ for name in strays)


@pytest.mark.parametrize("harmless", [{}, {"NVIDIA_TF32_OVERRIDE": "0"}, {"DNNL_DEFAULT_FPMATH_MODE": "strict"}])
def test_what_changes_nothing_is_not_mentioned(
    harmless: dict[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in harmless.items():
        monkeypatch.setenv(name, value)
    with cleared():
        os.environ["SET_MEANWHILE"] = "1"
    assert not caplog.messages and "SET_MEANWHILE" not in os.environ


def test_the_environment_comes_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    seen: list[Any] = []
    with pytest.raises(KeyError), cleared():
        seen.append(os.environ.get("ACCELERATE_USE_CPU"))
        raise KeyError
    assert seen == [None] and os.environ["ACCELERATE_USE_CPU"] == "true"
