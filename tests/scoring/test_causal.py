"""What sees the token that it is asked for is neither scored nor trained nor sampled from."""

from typing import Any

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, BertConfig, ElectraConfig, MambaConfig, RobertaConfig, XLNetConfig

from aft.errors import ModelError
from aft.models.directory import ModelDirectory, open_model
from aft.models.publish import save_model
from aft.sampling.engine import Request, generate
from aft.sampling.settings import SamplingSettings
from aft.scoring.paths import choose_path
from aft.scoring.responses import score_responses
from aft.scoring.tokens import token_logprobs
from aft.training.examples import Example
from aft.training.job import Job
from aft.training.run import train
from aft.training.settings import Objective, TrainingSettings

SHAPE: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def model_of(config: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("wanted", ["auto", "naive", "shared"])
@pytest.mark.parametrize(
    "config",
    [
        BertConfig(vocab_size=64, **SHAPE),
        RobertaConfig(vocab_size=64, **SHAPE),
        ElectraConfig(vocab_size=64, embedding_size=16, **SHAPE),
        XLNetConfig(vocab_size=64, d_model=16, n_layer=1, n_head=2, d_inner=16),
    ],
    ids=lambda config: config.model_type,
)
def test_an_encoder_is_refused(config: Any, wanted: Any) -> None:
    """Random and hardly decided as it is, earlier log-probabilities move by a thousandth of what the last one does."""
    model = model_of(config)
    with pytest.raises(ModelError, match=rf"{type(model).__name__} is no causal language model: .* tokens after it"):
        choose_path(model, wanted)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "config",
    [
        BertConfig(vocab_size=64, is_decoder=True, initializer_range=0.5, **SHAPE),
        MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, state_size=4),
    ],
    ids=lambda config: config.model_type,
)
def test_whatever_is_causal_is_taken(config: Any, dtype: torch.dtype) -> None:
    assert choose_path(model_of(config).to(dtype), "naive") == "naive"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory, pocket_tokenizer: Any) -> ModelDirectory:
    """An encoder on disk, with the pocket tokenizer, that `AutoModelForCausalLM` loads without an error."""
    directory = tmp_path_factory.mktemp("encoder")
    save_model(model_of(BertConfig(vocab_size=len(pocket_tokenizer), **SHAPE)), pocket_tokenizer, directory)
    return open_model(directory)


def test_training_scoring_and_sampling_refuse_it(encoder: ModelDirectory, pocket_questions: Any, tmp_path: Any) -> None:
    """Before the first step, the first score and the first token."""
    with pytest.raises(ModelError, match="no causal language model"):
        settings = TrainingSettings(epochs=1, learning_rate=1e-3, batch_size=1, scoring="naive")
        train(
            encoder, Job([Example("q", [0, 5], [[6, 1]])], settings, Objective(), 0, "train vft"), tmp_path / "models"
        )
    rows = pd.DataFrame({"question_id": [pocket_questions[0].question_id], "sample_index": 0, "token_ids": [[5, 1]]})
    questions = {question.question_id: question for question in pocket_questions}
    with pytest.raises(ModelError, match="no causal language model"):
        score_responses(encoder, rows, questions, "float32", tmp_path / "scores", token_budget=99)
    with pytest.raises(ModelError, match="no causal language model"):
        token_logprobs(encoder, pocket_questions[0], [[5, 1]])
    with pytest.raises(ModelError, match="no causal language model"):
        generate(encoder.model(), [Request("q", [0, 5])], SamplingSettings(samples=1, max_new_tokens=4), 0, 1)
