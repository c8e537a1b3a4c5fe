"""The fast paths: the prompt of a group is read once, and all its responses attend to what was read.

`shared_sums` scores a batch of groups in one graph, or with a graph for those responses only that get a gradient.
`two_pass_backward` gives the same gradient with the memory of the prompts and a few responses: the loss sees nothing
but one number per response, so the numbers are made first, without a graph, and each response's share of the gradient
afterwards, weighted by the loss's derivative. Both equal `naive.token_logprobs` up to rounding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

import torch  # noqa: TID253

from aft.scoring.attention import Memory, Span, SpanAttention, check_packed_rows
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
    needs_gradient_R: Sequence[bool] | None = None,
) -> torch.Tensor:
    """Add the gradient of `loss_of(sums)` to the parameters, in the memory of the prompts and `token_budget` tokens.

    Responses that need no gradient (None: all need one) are left out of the second pass. Returns the loss, detached.
    Exact with dropout, too: the second pass repeats the random numbers of the first. The model must be in the mode of
    `packed_rows`.
    """
    work = _Distinct.of(groups, model.device)
    first_D, memory = _read(model, work, [], keep=True)  # the first token of a response follows from its prompt
    needed = work.any_of(needs_gradient_R)
    inside, outside = (
        work.chunks([d for d, one in enumerate(needed) if one == wanted], token_budget - work.prompt_tokens)
        for wanted in (True, False)
    )
    states = []
    sums_D = first_D.detach()
    with torch.no_grad():
        for chunk in (*inside, *outside):
            states.append(_random_state(model.device))
            sums_D = sums_D + _read(model, work, chunk, _detached(memory))[0]

    sums_D.requires_grad_()
    with torch.enable_grad():
        loss = loss_of(sums_D.index_select(0, work.index_R))
    (weight_D,) = torch.autograd.grad(loss, sums_D)

    leaves = {layer: (k.detach().requires_grad_(), v.detach().requires_grad_()) for layer, (k, v) in memory.items()}
    after, weighs = _random_state(model.device), weight_D.ne(0).tolist()  # one wait for the device, not one a chunk
    for chunk, state in zip(inside, states, strict=False):
        if any(weighs[d] for d in chunk):
            _set_random_state(model.device, state)
            backward((weight_D * _read(model, work, chunk, leaves)[0]).sum())
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
    responses: list[tuple[int, list[int], int]]  # number of the prompt, tokens, how many are not scored; D of them
    members: list[list[int]]  # numbers of each prompt's responses
    index_R: torch.Tensor  # which of them each response of the groups is

    @classmethod
    def of(cls, groups: Sequence[Group], device: torch.device) -> "_Distinct":
        prompts = [list(group.prompt) for group in groups]
        starts = [0, *accumulate(map(len, prompts))][:-1]
        numbers: dict[tuple[int, tuple[int, ...], int], int] = {}
        index = [
            numbers.setdefault((g, tuple(response), first), len(numbers))
            for g, group in enumerate(groups)
            for response, first in group.parts
        ]
        responses = [(g, list(tokens), first) for g, tokens, first in numbers]
        members: list[list[int]] = [[] for _ in prompts]
        for d, (g, _, _) in enumerate(responses):
            members[g].append(d)
        return cls(prompts, starts, responses, members, torch.tensor(index, dtype=torch.long, device=device))

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
    check_packed_rows(model)
    row, starts, read = _Row(), work.starts, set()
    if memory is None:
        starts = []
        for g, (prompt, members) in enumerate(zip(work.prompts, work.members, strict=True)):
            starts.append(row.append(prompt, 0))
            for d in members:
                _, response, first = work.responses[d]
                row.predict(d, starts[g] + len(prompt) - 1, response[first:1])
            if len(members) == 1 and members[0] in chosen and not keep:  # nobody to share with: plain causal attention
                row.append_response(members[0], work, len(prompt))
                read.add(members[0])
            row.spans.append(Span(len(row.tokens) - starts[g]))
    for d in chosen:
        g, response, _ = work.responses[d]
        if d not in read and len(response) > 1:
            row.append_response(d, work, len(work.prompts[g]))
            row.spans.append(Span(len(response) - 1, starts[g], len(work.prompts[g])))
    device = model.device
    attention = SpanAttention(row.spans, device, memory, kept=work.prompt_tokens if keep else 0)
    logprob_N = predicted_logprobs(
        model,
        torch.tensor(row.places, dtype=torch.long, device=device),
        torch.tensor(row.targets, dtype=torch.long, device=device),
        input_ids=torch.tensor([row.tokens], device=device),
        position_ids=torch.tensor([row.positions], device=device),
        use_cache=False,
        spans=attention,
    )
    owner_N = torch.tensor(row.owners, dtype=torch.long, device=device)
    return logprob_N.new_zeros(len(work.responses)).index_add(0, owner_N, logprob_N), attention.memory_out


@dataclass(slots=True)
class _Row:
    """The one row of tokens of a pass, and which tokens its places predict for which response."""

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)

    def append(self, tokens: Sequence[int], position: int) -> int:
        """Add tokens whose first has the given position; where they begin in the row."""
        start = len(self.tokens)
        self.tokens += tokens
        self.positions += range(position, position + len(tokens))
        return start

    def append_response(self, number: int, work: _Distinct, position: int) -> None:
        """Add a response but for its last token, which predicts nothing; it predicts what is scored of its tokens."""
        _, response, unscored = work.responses[number]
        first = max(unscored, 1)  # the prompt predicts the very first one
        start = self.append(response[:-1], position)
        self.predict(number, start + first - 1, response[first:])

    def predict(self, number: int, place: int, targets: Sequence[int]) -> None:
        """From `place` on, each place predicts the next of the targets of a response."""
        self.places += range(place, place + len(targets))
        self.targets += targets
        self.owners += [number] * len(targets)


def _detached(memory: Memory) -> Memory:
    return {layer: (keys.detach(), values.detach()) for layer, (keys, values) in memory.items()}


def _random_state(device: torch.device) -> torch.Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: torch.Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
