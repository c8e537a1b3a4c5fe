"""Log-probabilities of targets: by hand, their gradient, and in chunks as at once."""

import copy
import math

import pytest
import torch

from aft.scoring import head
from aft.scoring.attention import Span, SpanAttention, packed_rows
from aft.scoring.head import pick_logprobs, predicted_logprobs

TOKENS = [3, 14, 15, 9, 2, 6, 5, 35]


def test_by_hand():
    """Logits log 1, log 2, log 5: P = 1/8, 2/8, 5/8. Gradient of log P(2nd): (0, 1, 0) - P; upstream 3 triples it."""
    logits = torch.tensor([[1.0, 2.0, 5.0], [1.0, 2.0, 5.0]]).log().requires_grad_()
    found = pick_logprobs(logits, torch.tensor([1, 2]))
    torch.testing.assert_close(found, torch.tensor([math.log(2 / 8), math.log(5 / 8)]))
    (gradient,) = torch.autograd.grad(found @ torch.tensor([3.0, -1.0]), logits)
    torch.testing.assert_close(gradient, torch.tensor([[-3 / 8, 3 - 6 / 8, -15 / 8], [1 / 8, 2 / 8, -1 + 5 / 8]]))


def test_its_gradient_is_that_of_the_function():
    """Finite differences in float64."""
    torch.manual_seed(0)
    logits = torch.randn(5, 7, dtype=torch.float64).mul(3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: pick_logprobs(x, torch.tensor([0, 6, 2, 2, 3])), (logits,))


def test_large_logits_overflow_nothing():
    """exp(1000) is infinite; log P is -log(1 + e^-1000) = 0 and -1000 all the same."""
    logits = torch.tensor([[1000.0, 0.0], [1000.0, 0.0]], requires_grad=True)
    found = pick_logprobs(logits, torch.tensor([0, 1]))
    assert found.tolist() == [0.0, -1000.0]
    found.sum().backward()
    assert logits.grad is not None and logits.grad.tolist() == [[0.0, 0.0], [-1.0, 1.0]]


@pytest.mark.parametrize(
    ("given", "made"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)],
)
def test_half_precision_is_summed_in_float32(given, made):
    """A thousand equal logits: P = 1/1000 each, which bfloat16 would round to 3 digits; the gradient has its type."""
    logits = torch.zeros(1, 1000, dtype=given, requires_grad=True)
    found = pick_logprobs(logits, torch.tensor([7]))
    assert found.dtype == made and found.item() == pytest.approx(-math.log(1000), rel=1e-6)
    found.sum().backward()
    assert logits.grad is not None and logits.grad.dtype == given
    assert logits.grad[0, 7].item() == pytest.approx(0.999, rel=4e-3)


# --- in a model -------------------------------------------------------------------------------------------------------


def read(model, places, targets):
    """log P of targets at places of one row of tokens; how many places the head was given at a time."""
    seen = []
    head.has_plain_head(model)  # the trial comes before the count
    hook = model.get_output_embeddings().register_forward_hook(lambda *given: seen.append(given[2][..., 0].numel()))
    tokens = torch.tensor([TOKENS])
    try:
        with packed_rows(model):
            found = predicted_logprobs(
                model,
                torch.tensor(places),
                torch.tensor(targets),
                input_ids=tokens,
                position_ids=torch.arange(len(TOKENS))[None],
                use_cache=False,
                spans=SpanAttention([Span(len(TOKENS))], tokens.device),
            )
            forward = list(seen)
            gradients = {}
            if found.requires_grad:
                model.zero_grad()
                (found @ torch.arange(1.0, len(places) + 1)).backward()
                gradients = {name: weights.grad.clone() for name, weights in model.named_parameters()}
    finally:
        hook.remove()
    return found.detach(), gradients, forward


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_chunks_equal_the_whole(tiny_model, kind, monkeypatch):
    """Seven places at once or in chunks of 3, 3 and 1, places in any order and one of them twice."""
    model = copy.deepcopy(tiny_model(kind))
    places, targets = [6, 0, 1, 3, 3, 2, 5], [1, 2, 3, 4, 5, 6, 7]
    whole, gradients, seen = read(model, places, targets)
    assert seen == [7], "nowhere else"
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([TOKENS])).logits[0]
    torch.testing.assert_close(whole, logits.log_softmax(1)[places, targets], rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(head, "_MOST_LOGITS", 3 * 64 + 63)
    chunked, their_gradients, seen = read(model, places, targets)
    assert seen == [3, 3, 1]
    torch.testing.assert_close(chunked, whole, rtol=1e-6, atol=1e-6)
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(their_gradients[name], gradient, rtol=0, atol=2e-6 * largest)


def test_the_logits_of_chunks_are_not_kept(tiny_model, monkeypatch):
    """Between the passes no tensor of three rows of 64 logits is saved; each is made again on the way back."""
    model = copy.deepcopy(tiny_model("llama"))
    saved: list[tuple[int, ...]] = []
    seen: list[int] = []
    assert head.has_plain_head(model)  # the trial comes before the count
    model.lm_head.register_forward_hook(lambda *given: seen.append(given[2].shape[0]))

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tuple(tensor.shape))
        return tensor

    monkeypatch.setattr(head, "_MOST_LOGITS", 3 * 64)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        found = predicted_logprobs(
            model, torch.arange(7), torch.tensor(TOKENS[1:]), input_ids=torch.tensor([TOKENS]), use_cache=False
        )
    assert saved and (3, 64) not in saved and seen == [3, 3, 1]
    found.sum().backward()
    assert sorted(seen) == [1, 1, 3, 3, 3, 3]


def test_one_row_of_logits_is_always_held(tiny_model, monkeypatch):
    monkeypatch.setattr(head, "_MOST_LOGITS", 1)
    assert read(copy.deepcopy(tiny_model("llama")), [0, 1], [2, 3])[2] == [1, 1]


@pytest.mark.parametrize(("factor", "given"), [(0.5, [5]), (1.0, [2, 2, 1])])
def test_logits_that_are_changed_afterwards_are_not_chunked(tiny_model, monkeypatch, factor, given):
    """The chunks would leave out what a model does to its head's output, whatever it calls it: it is tried out."""
    model = copy.deepcopy(tiny_model("llama"))

    def change(module, inputs, output):
        output.logits = factor * output.logits
        return output

    model.register_forward_hook(change)
    monkeypatch.setattr(head, "_MOST_LOGITS", 2 * 64)
    assert read(model, [0, 1, 2, 3, 4], [5, 6, 7, 8, 9])[2] == given


def test_a_decoder_of_another_kind_is_not_taken_apart(tiny_model, monkeypatch):
    model = copy.deepcopy(tiny_model("llama"))
    monkeypatch.setattr(type(model), "get_decoder", lambda self: self.lm_head)
    monkeypatch.setattr(head, "_MOST_LOGITS", 2 * 64)
    assert read(model, [0, 1, 2], [5, 6, 7])[2] == [3]


def test_soft_capped_logits_are_those_of_the_model(monkeypatch):
    """Gemma 2 with logits capped at 2: without the cap its log-probabilities are others."""
    from transformers import AutoModelForCausalLM, Gemma2Config

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        Gemma2Config(
            **{"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "head_dim": 8},
            **{"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.5, "pad_token_id": 0},
            final_logit_softcapping=2.0,
        )
    )
    monkeypatch.setattr(head, "_MOST_LOGITS", 2 * 64)
    tokens, places, targets = torch.tensor([TOKENS]), torch.arange(7), torch.tensor(TOKENS[1:])
    with torch.no_grad():
        found = predicted_logprobs(model, places, targets, input_ids=tokens)
        logits = model(input_ids=tokens).logits[0]
        assert logits.abs().max() <= 2 < model.lm_head(model.model(tokens).last_hidden_state).abs().max()
    torch.testing.assert_close(found, logits.log_softmax(1)[places, targets])
