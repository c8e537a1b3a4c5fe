"""The architecture and the tokenizer of the pocket base model: small, in plain Hugging Face classes, random weights."""

from typing import TYPE_CHECKING, Annotated

from aft.bounds import Seed, counted
from aft.checked import checked
from aft.errors import SettingsError
from aft.tasks import pocket

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

_TOKEN = r" ?[A-Za-z]+| ?[0-9]|\n| ?[^\sA-Za-z0-9]"
BEGIN, END, PAD, UNKNOWN = "<s>", "</s>", "<pad>", "<unk>"


_Size = Annotated[int, counted(most=65536)]


@checked
class Architecture:
    """The size of the pocket base model."""

    hidden_size: _Size = 64
    intermediate_size: _Size = 160  # of the feed-forward part of a layer
    layers: _Size = 3
    heads: _Size = 2
    seed: Seed = 0  # of the initial weights

    def __post_init__(self) -> None:
        if self.hidden_size % (2 * self.heads):
            raise SettingsError("The pocket model needs a hidden_size that 2 x heads divides.")


def build_tokenizer() -> "PreTrainedTokenizerFast":
    """A word-level tokenizer in which every digit is a token and decoding gives back the exact text."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokens = [BEGIN, END, PAD, UNKNOWN, *pocket.vocabulary()]
    tokenizer = Tokenizer(models.WordLevel({t: i for i, t in enumerate(tokens)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_TOKEN), behavior="isolated")  # type: ignore[assignment]
    tokenizer.decoder = decoders.Fuse()  # type: ignore[assignment]
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, tokens.index(BEGIN))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BEGIN, eos_token=END, pad_token=PAD, unk_token=UNKNOWN
    )


def build_model(architecture: Architecture, vocabulary_size: int) -> "LlamaForCausalLM":
    """A Llama decoder with random weights that follow from the seed; tied embeddings, float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=architecture.hidden_size,
        intermediate_size=architecture.intermediate_size,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        num_key_value_heads=architecture.heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        # So narrow a model hardly moves from weights of 0.02, and its texts are far shorter than 10,000 tokens.
        initializer_range=0.15,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(architecture.seed)  # torch.manual_seed would seed accelerators too
        return LlamaForCausalLM(config)
