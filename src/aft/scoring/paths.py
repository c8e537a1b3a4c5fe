"""Which path scores a batch of groups: chosen from the model, the groups and a budget of tokens, and named in the log.

- `naive`: prompt + response once for every response, padded; for any model.
- `shared`: every prompt once and no padding (packing), in one graph; the fastest where the groups fit into the budget.
- `two_pass`: the same gradient in bounded memory, for a group that does not fit: about a third more work.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Literal

import torch  # noqa: TID253

from aft.errors import ModelError
from aft.scoring.attention import packed_rows
from aft.scoring.causal import check_causal
from aft.scoring.groups import Group, pack
from aft.scoring.head import evaluating, has_plain_head
from aft.scoring.naive import token_logprobs
from aft.scoring.shared import LossOfSums, shared_sums, two_pass_backward

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

Path = Literal["naive", "shared", "two_pass"]
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}  # of a response's log-probability; a tenth of it per nat beside
_MOST_LOGITS = 2**26  # that the naive path holds at a time without a graph: 256 MiB in float32, and a few copies
_LENGTH_DEPENDENT = ("'dynamic'", "'longrope'")  # kinds of rotary positions, among the settings of one or more layers
_LONG = 256  # a window of attention up to this many tokens is tried out


def choose_path(model: "PreTrainedModel", wanted: Literal["auto", "naive", "shared", "two_pass"]) -> Path:
    """The path for a model: the wanted one or, for `auto`, shared prompts where they are exact, else the naive path.

    The model is tried out here, once, and not in the middle of a step. Raises `ModelError` naming the model and the
    reason if it is not causal, or if the wanted path would not be exact for it.
    """
    check_causal(model)
    if wanted == "naive":
        return "naive"
    reason = why_not_packed(model)
    if reason is None:
        has_plain_head(model)
        return "shared" if wanted == "auto" else wanted
    if wanted != "auto":
        raise ModelError(
            f"{type(model).__name__} cannot be scored on the path '{wanted}': {reason}; set scoring to auto."
        )
    logger.warning("%s is scored on the naive path, prompt by prompt: %s.", type(model).__name__, reason)
    return "naive"


def why_not_packed(model: "PreTrainedModel") -> str | None:
    """Why packed rows would not be exact for a model: what it says of itself, or a trial against the naive path."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if kinds:
        return f"it has layers of the kind {', '.join(sorted(kinds))}"
    if not getattr(model, "_supports_attention_backend", False):
        return "its attention cannot be given from outside"
    if not getattr(model, "_supports_sdpa", False):
        return "its attention is more than scaled dot products"
    if any(kind in str(getattr(config, "rope_parameters", None)) for kind in _LENGTH_DEPENDENT):
        return "its rotary positions depend on the length of the input"
    with evaluating(model):
        return _try_out(model, config.vocab_size, getattr(config, "sliding_window", None) or 0)


@torch.no_grad()
def _try_out(model: "PreTrainedModel", vocabulary: int, window: int) -> str | None:
    """Score two small groups on both paths; prompts outgrow a short window, so that it matters."""
    ids = torch.arange(17, 17 + 4 * _LONG) * 7919 % vocabulary  # neither equal nor in order
    long = window + 7 if window <= _LONG else 7
    groups = [
        Group(ids[:long].tolist(), [ids[3:8].tolist(), ids[5:6].tolist()]),
        Group(ids[9:12].tolist(), [ids[2:4].tolist()]),
    ]
    try:
        with packed_rows(model):
            together = shared_sums(model, groups)
            one_by_one = shared_sums(model, groups, token_budget=1)  # on the keys and values that the prompts left
    except Exception as error:  # whatever a model that was not made for this may raise
        return f"its attention fails on packed rows ({type(error).__name__})"
    expected = _naive_sums(model, groups)
    gap_R = torch.maximum((together - expected).abs(), (one_by_one - expected).abs())
    # Half precision rounds the more the longer the way through the model; a wrong path is off by far more.
    nats_R = expected.abs()
    exact = _TOLERANCE.get(model.dtype)
    allowed_R = 0.1 + 0.03 * nats_R if exact is None else exact * (1 + 0.1 * nats_R)
    return None if (gap_R <= allowed_R).all() else f"log-probabilities differ by {gap_R.max():.2g} on a trial"


def plan(groups: Sequence[Group], path: Path, token_budget: int) -> list[tuple[Path, list[int]]]:
    """Which groups go through the model together, by their numbers, and on which path.

    `token_budget` bounds the tokens that a pass reads with its graph. A single group beyond it is scored in two passes;
    only on the naive path, which has no such way, it goes through at once.
    """
    if path == "naive":
        costs = [sum(len(group.prompt) + len(response) for response in group.responses) for group in groups]
        return [("naive", numbers) for numbers in pack(costs, token_budget)]
    if path == "two_pass":  # half of the budget for prompts, the rest for responses that come one after the other
        return [("two_pass", numbers) for numbers in pack([len(g.prompt) for g in groups], token_budget // 2)]
    costs = [group.cost for group in groups]
    return [
        ("two_pass" if len(numbers) == 1 and costs[numbers[0]] > token_budget else "shared", numbers)
        for numbers in pack(costs, token_budget)
    ]


def padding(groups: Sequence[Group], planned: Sequence[tuple[Path, list[int]]]) -> float:
    """Share of padding in what the model's layers are given: none on shared prompts, whose tokens are packed."""
    real = given = 0
    for path, numbers in planned:
        if path == "naive":
            lengths = [len(groups[n].prompt) + len(response) for n in numbers for response in groups[n].responses]
            real, given = real + sum(lengths), given + len(lengths) * max(lengths, default=0)
    return 1 - real / given if given else 0.0


def mode(model: "PreTrainedModel", path: Path) -> AbstractContextManager[None]:
    """Context manager that installs the attention this path needs; backward passes run inside it, too."""
    return nullcontext() if path == "naive" else packed_rows(model)


def backward(
    model: "PreTrainedModel",
    path: Path,
    groups: Sequence[Group],
    needs_gradient_R: Sequence[bool] | None,
    loss_of: LossOfSums,
    token_budget: int,
    run_backward: Callable[[torch.Tensor], object] = torch.Tensor.backward,
) -> torch.Tensor:
    """Add the gradient of `loss_of(sums [R] of log-probabilities)` to the parameters; the loss, detached.

    `needs_gradient_R` says for which responses the loss has a gradient at all (None: for all); only the time depends on
    it. The model must be in the `mode` of the path.
    """
    if path == "two_pass":
        return two_pass_backward(model, groups, loss_of, token_budget, run_backward, needs_gradient_R)
    sums_R = (
        _naive_sums(model, groups) if path == "naive" else shared_sums(model, groups, needs_gradient_R, token_budget)
    )
    loss = loss_of(sums_R)
    run_backward(loss)
    return loss.detach()


def score(model: "PreTrainedModel", path: Path, groups: Sequence[Group], token_budget: int) -> torch.Tensor:
    """Scores s [R] (Eq. 2), the mean log-probability of each response's tokens, in the groups' order; no graph."""
    lengths = [length for group in groups for length in group.lengths]
    sums = []
    with torch.no_grad(), mode(model, path):
        for how, numbers in plan(groups, path, token_budget):
            some = [groups[number] for number in numbers]
            most = token_budget if how == "two_pass" else None
            sums.append(_naive_sums(model, some) if how == "naive" else shared_sums(model, some, None, most))
    return torch.cat(sums) / torch.tensor(lengths, device=model.device)


def _naive_sums(model: "PreTrainedModel", groups: Sequence[Group]) -> torch.Tensor:
    prompts = [[*group.prompt, *response[:first]] for group in groups for response, first in group.parts]
    responses = [response[first:] for group in groups for response, first in group.parts]
    rows = len(responses)
    if not torch.is_grad_enabled():
        longest = max(len(prompt) + len(response) for prompt, response in zip(prompts, responses, strict=True))
        rows = max(1, _MOST_LOGITS // (longest * model.config.get_text_config().vocab_size))
    return torch.cat(
        [
            token_logprobs(model, prompts[first : first + rows], responses[first : first + rows]).sums_R
            for first in range(0, len(responses), rows)
        ]
    )
