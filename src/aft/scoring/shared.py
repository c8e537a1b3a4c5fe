"""The fast paths: the prompt of a group is read once, and all its responses attend to what was read.

`shared_sums` scores a batch of groups in one graph, or with a graph for those responses only that get a gradient.
`two_pass_backward` gives the same gradient with the memory of the prompts and a few responses: the loss sees nothing
but one number per response, so the numbers are made first, without a graph, and each response's share of the gradient
afterwards, weighted by the loss's derivative. Both equal `naive.token_logprobs` up to rounding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import torch  # noqa: TID253

from aft.scoring.attention import Memory, Span, SpanAttention, packed_rows
from aft.scoring.groups import Group, pack
from aft.scoring.head import predicted_logprobs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LossOfSums = Callable[[torch.Tensor], torch.Tensor]  # sums of log-probabilities [R] to a scalar


def shared_sums(
    model: "PreTrainedModel",
    groups: Sequence[Group],
    needs_gradient_R: Sequence[bool] | None = None,
    token_budget: int | None = None,
) -> torch.Tensor:
    """Sums [R] of the log-probabilities of each response's tokens, float32, in the order of the groups.

    Responses that need no gradient are scored without a graph, on the detached keys and values of their prompts and at
    most `token_budget` tokens at a time (None: all at once, and all need a gradient). The model must be in the mode of
    `packed_rows` until the backward pass is done.
    """
    work = _Distinct.of(groups, model.device)
    needed = work.any_of(needs_gradient_R) if torch.is_grad_enabled() else [token_budget is None] * len(work.responses)
    inside = [d for d, wanted in enumerate(needed) if wanted]
    outside = [d for d, wanted in enumerate(needed) if not wanted]
    inside_D, memory = _read(model, work, inside, keep=bool(outside))
    outside_D = inside_D.detach()  # holds the first tokens of all responses
    with torch.no_grad():
        for chunk in work.chunks(outside, token_budget):
            outside_D = outside_D + _read(model, work, chunk, _detached(memory))[0]
    needed_D = torch.tensor(needed, device=model.device)
    return torch.where(needed_D, inside_D, outside_D).index_select(0, work.index_R)


def two_pass_backward(
    model: "PreTrainedModel",
    groups: Sequence[Group],
    loss_of: LossOfSums,
    token_budget: int,
    backward: Callable[[torch.Tensor], object] = torch.Tensor.backward,
) -> torch.Tensor:
    """Add the gradient of `loss_of(sums)` to the parameters, in the memory of the prompts and `token_budget` tokens.

    Returns the loss, detached. Exact with dropout, too: the second pass repeats the random numbers of the first. The
    model must be in the mode of `packed_rows`.
    """
    work = _Distinct.of(groups, model.device)
    first_D, memory = _read(model, work, [], keep=True)  # the first token of a response follows from its prompt
    chunks = work.chunks(range(len(work.responses)), token_budget - work.prompt_tokens)
    states = []
    sums_D = first_D.detach()
    with torch.no_grad():
        fixed = _detached(memory)
        for chunk in chunks:
            states.append(_random_state(model.device))
            sums_D = sums_D + _read(model, work, chunk, fixed)[0]

    sums_D.requires_grad_()
    with torch.enable_grad():
        loss = loss_of(sums_D.index_select(0, work.index_R))
    (weight_D,) = torch.autograd.grad(loss, sums_D)

    leaves = {layer: (k.detach().requires_grad_(), v.detach().requires_grad_()) for layer, (k, v) in memory.items()}
    after = _random_state(model.device)
    for chunk, state in zip(chunks, states, strict=True):
        if weight_D[chunk].any():
            _set_random_state(model.device, state)
            rest_D, _ = _read(model, work, chunk, leaves)
            if rest_D.requires_grad:  # not if all responses of the chunk are a single token
                backward((weight_D * rest_D).sum())
    _set_random_state(model.device, after)

    onwards = (weight_D * first_D).sum()
    for layer, kept in memory.items():
        for tensor, leaf in zip(kept, leaves[layer], strict=True):
            if leaf.grad is not None:
                onwards = onwards + (tensor * leaf.grad).sum()
    backward(onwards)
    return loss.detach()


@dataclass(frozen=True, slots=True)
class _Distinct:
    """What is to be read for some groups: their prompts, and each response that differs from the group's others."""

    prompts: list[list[int]]
    starts: list[int]  # of each prompt among the tokens of all prompts
    responses: list[tuple[int, list[int]]]  # number of the prompt, tokens; D of them
    index_R: torch.Tensor  # which of them each response of the groups is

    @classmethod
    def of(cls, groups: Sequence[Group], device: torch.device) -> "_Distinct":
        prompts = [list(group.prompt) for group in groups]
        starts = [0, *accumulate(map(len, prompts))][:-1]
        numbers: dict[tuple[int, tuple[int, ...]], int] = {}
        index = [
            numbers.setdefault((g, tuple(response)), len(numbers))
            for g, group in enumerate(groups)
            for response in group.responses
        ]
        responses = [(g, list(tokens)) for g, tokens in numbers]
        return cls(prompts, starts, responses, torch.tensor(index, dtype=torch.long, device=device))

    @property
    def prompt_tokens(self) -> int:
        return sum(map(len, self.prompts))

    def any_of(self, wanted_R: Sequence[bool] | None) -> list[bool]:
        """Whether any of the equal responses [D] is wanted."""
        wanted_D = [wanted_R is None] * len(self.responses)
        for number, wanted in zip(self.index_R.tolist(), wanted_R or (), strict=wanted_R is not None):
            wanted_D[number] = wanted_D[number] or wanted
        return wanted_D

    def chunks(self, numbers: Sequence[int], budget: int | None) -> list[list[int]]:
        """Responses of like length together, at most `budget` tokens at a time; those of one token need no reading."""
        rest = sorted((d for d in numbers if len(self.responses[d][1]) > 1), key=lambda d: len(self.responses[d][1]))
        costs = [len(self.responses[d][1]) - 1 for d in rest]
        return [[rest[i] for i in some] for some in pack(costs, sum(costs) if budget is None else budget)]


def _read(
    model: "PreTrainedModel", work: _Distinct, chosen: Sequence[int], memory: Memory | None = None, keep: bool = False
) -> tuple[torch.Tensor, Memory]:
    """One forward pass; sums [D] of the log-probabilities that it predicts, and the prompts' keys and values if kept.

    Without a memory it reads the prompts, which predict the first token of *every* response, and the chosen responses,
    which predict their other tokens; with one, the chosen responses alone.
    """
    tokens: list[int] = []
    positions: list[int] = []
    spans: list[Span] = []
    places: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    if memory is None:
        for prompt in work.prompts:
            tokens += prompt
            positions += range(len(prompt))
            spans.append(Span(len(prompt)))
        places += [work.starts[g] + len(work.prompts[g]) - 1 for g, _ in work.responses]
        targets += [response[0] for _, response in work.responses]
        owners += range(len(work.responses))
    for d in chosen:
        g, response = work.responses[d]
        if len(response) > 1:  # the last token predicts nothing: it need not be read
            before = len(work.prompts[g])
            spans.append(Span(len(response) - 1, work.starts[g], before))
            places += range(len(tokens), len(tokens) + len(response) - 1)
            targets += response[1:]
            owners += [d] * (len(response) - 1)
            tokens += response[:-1]
            positions += range(before, before + len(response) - 1)
    device = model.device
    attention = SpanAttention(spans, device, memory, kept=work.prompt_tokens if keep else 0)
    logprob_N = predicted_logprobs(
        model,
        torch.tensor(places, device=device),
        torch.tensor(targets, device=device),
        input_ids=torch.tensor([tokens], device=device),
        position_ids=torch.tensor([positions], device=device),
        use_cache=False,
        spans=attention,
    )
    sums_D = logprob_N.new_zeros(len(work.responses)).index_add(0, torch.tensor(owners, device=device), logprob_N)
    return sums_D, attention.memory_out


def _detached(memory: Memory) -> Memory:
    return {layer: (keys.detach(), values.detach()) for layer, (keys, values) in memory.items()}


def _random_state(device: torch.device) -> torch.Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: torch.Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


__all__ = ["LossOfSums", "packed_rows", "shared_sums", "two_pass_backward"]
