"""The KV cache of the responses that are generated side by side, and the attention of their newest tokens.

What was read of a prompt is kept once for all its rows, each row keeps only what it has generated. Attention scores of
the two parts go through one softmax, so the result is that of the whole row. Live rows always lie at the front of the
buffers, and about in the order of their age, so that little is read beyond a row's own end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch  # noqa: TID253

from aft.scoring.attention import Memory

_COLUMNS = 16  # tokens per row that buffers begin with, and grow by at least
_BLOCKS = 6  # blocks of rows whose attention is computed each up to its own longest row
_SMALLEST = 8  # rows of a block at least

_Buffers = dict[int, list[torch.Tensor]]  # per layer: keys and values [rows or prompts, heads, tokens, size]


@dataclass(frozen=True, slots=True)
class Admission:
    """A prompt whose keys and values begin at `start` of a memory, and the numbers of the responses that follow it."""

    start: int
    length: int
    responses: Sequence[int]


class Slots:
    """Room for `capacity` rows, at most `cells` of them after one prompt, that keep `limit` generated tokens at most.

    It is the `spans` of calls of the model with the newest token of every row, [R, 1].
    """

    def __init__(self, capacity: int, cells: int, limit: int, device: torch.device) -> None:
        self.capacity, self.cells, self.limit, self.device = capacity, cells, limit, device
        # Of each row its response, the number of its prompt, which of the prompt's rows it is, the prompt's tokens, and
        # the clock when it came; on the CPU.
        self.table_5_R = torch.empty(5, 0, dtype=torch.long)
        self.groups = 0
        self.clock = 0
        self.disorder = 0  # row-tokens read in vain since the rows were sorted last
        self.prompts: _Buffers = {}
        self.own: _Buffers = {}
        self.masks: dict[int | None, list[torch.Tensor]] = {}  # what the layers of a step share, as the next two
        self.places: dict[tuple[int, int], torch.Tensor] = {}
        self.exchanges: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._renumber()

    @property
    def rows(self) -> int:
        """Rows that there are."""
        return self.table_5_R.shape[1]

    @property
    def free(self) -> int:
        """Rows that there is room for."""
        return self.capacity - self.rows

    @property
    def position_R(self) -> torch.Tensor:
        """Of the newest token of each row."""
        return self.prompt_R + self.length_R

    def admit(self, memory: Memory, admissions: Sequence[Admission]) -> int:
        """Take in prompts and their rows; the number of the first new row. The last prompt token is the newest yet."""
        first, groups = self.rows, self.groups
        new = [
            (response, group, cell, admission.length, self.clock)
            for group, admission in enumerate(admissions, start=groups)
            for cell, response in enumerate(admission.responses)
        ]
        self.table_5_R = torch.cat([self.table_5_R, torch.tensor(new).T], dim=1)
        self.groups += len(admissions)
        longest = max(admission.length for admission in admissions)
        start_Q_1 = torch.tensor([[admission.start] for admission in admissions], device=self.device)
        length_Q_1 = torch.tensor([[admission.length] for admission in admissions], device=self.device)
        # Padding repeats a prompt's last token; the mask hides it.
        place_Q_P = start_Q_1 + torch.minimum(torch.arange(longest, device=self.device), length_Q_1 - 1)
        for layer, tensors in memory.items():
            if layer not in self.own:
                self.prompts[layer] = [_empty(tensor, 0, 0) for tensor in tensors]
                self.own[layer] = [_empty(tensor, self.capacity, min(_COLUMNS, self.limit)) for tensor in tensors]
            for number, tensor in enumerate(tensors):
                buffer = self.prompts[layer][number]
                if self.groups > buffer.shape[0] or longest > buffer.shape[2]:
                    buffer = _grown(buffer, max(self.groups, buffer.shape[0] * 3 // 2), longest)
                buffer[groups : self.groups, :, :longest] = tensor[place_Q_P].transpose(1, 2)
                self.prompts[layer][number] = buffer
        self._renumber()
        return first

    def prepare(self) -> None:
        """Make room for one more token of each row; call it before the model."""
        needed = self.clock - min(oldest for _, _, oldest in self.blocks) + 1
        self.masks.clear()
        self.places.clear()
        for buffers in self.own.values():
            columns = buffers[0].shape[2]
            if columns < needed:
                # A processor reads fast what lies close together; a GPU's allocator keeps memory of each size it had.
                more = max(_COLUMNS, columns // 4) if self.device.type == "cpu" else columns
                columns = min(columns + more, self.limit)
                buffers[:] = [_grown(buffer[: self.rows], self.capacity, columns) for buffer in buffers]

    def advance(self) -> None:
        """Count the newest tokens among the kept ones; call it after the model."""
        self.clock += 1
        self.length_R += 1

    def retire(self, ended: Sequence[bool]) -> None:
        """Take out rows that have ended, and prompts that no row follows any more; the last ones take their places."""
        order = self._order(_closed(~torch.tensor(ended)))
        _move(self.own, order)
        self.table_5_R = self.table_5_R[:, order]

        group_R = self.table_5_R[1]
        groups = _closed(torch.zeros(self.groups, dtype=torch.bool).index_fill_(0, group_R, True))
        _move(self.prompts, groups)
        number_of = torch.empty(self.groups, dtype=torch.long).index_copy_(0, groups, torch.arange(len(groups)))
        self.table_5_R[1] = number_of[group_R]
        self.groups = len(groups)
        self._renumber()

    def _order(self, order: torch.Tensor) -> torch.Tensor:
        """Row numbers as they are, or by age if disorder has by now cost as much as sorting does: read and write."""
        born_R = self.table_5_R[4]
        by_age = order[born_R[order].argsort(stable=True)]
        self.disorder += self._area(born_R[order]) - self._area(born_R[by_age])
        cost = 2 * (self.clock - born_R[by_age])[by_age != torch.arange(len(by_age))].sum().item()
        if self.disorder <= cost:
            return order
        self.disorder = 0
        return by_age

    def _area(self, born_R: torch.Tensor) -> int:
        """Tokens that attention reads in one step of rows in this order, beside the prompts."""
        return sum((self.clock - oldest) * (b - a) for a, b, oldest in _blocks(born_R))

    def _renumber(self) -> None:
        """Bring what the device must know about the rows up to date."""
        self.exchanges.clear()
        born_R = self.table_5_R[4]
        self.blocks = _blocks(born_R)
        self.longest_prompt = max(self.table_5_R[3].tolist(), default=0)
        table = torch.cat([self.table_5_R[:4], self.clock - born_R[None]]).to(self.device)
        self.response_R, self.group_R, self.cell_R, self.prompt_R, self.length_R = table
        self.row_R = torch.arange(self.rows, device=self.device)

    def __call__(
        self, module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any
    ) -> torch.Tensor:
        """Outputs [R, 1, heads, size] of queries [R, heads, 1, size]; keys and values [R, G, 1, size] are kept.

        Each of the G heads of keys serves r heads of queries.
        """
        layer: int = module.layer_idx  # type: ignore[assignment]
        keys, values = self.own[layer]
        place = self._places(key.shape[1], keys.shape[2])
        keys.view(-1, keys.shape[-1]).index_copy_(0, place, key.reshape(-1, key.shape[-1]))
        values.view(-1, values.shape[-1]).index_copy_(0, place, value.reshape(-1, value.shape[-1]))
        scaling = options.get("scaling") or query.shape[-1] ** -0.5
        query_R_G_r_D = query.reshape(len(query), key.shape[1], -1, query.shape[-1]) * scaling
        prompt_keys, prompt_values = (buffer[: self.groups, :, : self.longest_prompt] for buffer in self.prompts[layer])
        scores_R_G_r_P = self._of_rows(torch.matmul(self._by_prompt(query_R_G_r_D), prompt_keys.transpose(2, 3)))
        masks = self._masks(options.get("sliding_window"), query.dtype)
        weights, outputs = [], []
        for (a, b, oldest), mask in zip(self.blocks, masks, strict=True):
            longest = self.clock - oldest + 1
            scores = torch.matmul(query_R_G_r_D[a:b], keys[a:b, :, :longest].transpose(2, 3))
            both = torch.cat([scores_R_G_r_P[a:b], scores], dim=-1).add_(mask)
            both = both.softmax(dim=-1, dtype=torch.promote_types(both.dtype, torch.float32)).to(query.dtype)
            weights.append(both[..., : self.longest_prompt])
            outputs.append(torch.matmul(both[..., self.longest_prompt :], values[a:b, :, :longest]))
        from_prompts = self._of_rows(torch.matmul(self._by_prompt(torch.cat(weights)), prompt_values))
        return (torch.cat(outputs) + from_prompts).reshape(len(query), 1, query.shape[1], -1)

    def _by_prompt(self, rows_R_G_r_X: torch.Tensor) -> torch.Tensor:
        """Of rows, [prompts, G, cells * r, X]: those of a prompt side by side, any row's where one has ended."""
        _, heads, queries, size = rows_R_G_r_X.shape
        there, _ = self._exchange(heads)
        grid = rows_R_G_r_X.reshape(-1, queries * size).index_select(0, there)
        return grid.view(self.groups, heads, self.cells * queries, size)

    def _of_rows(self, grid: torch.Tensor) -> torch.Tensor:
        """The inverse of `_by_prompt`."""
        _, heads, queries, size = grid.shape
        _, back = self._exchange(heads)
        rows = grid.view(-1, queries // self.cells * size).index_select(0, back)
        return rows.view(self.rows, heads, -1, size)

    def _exchange(self, heads: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Of each prompt, head and cell its place among rows and heads, and the inverse."""
        if heads not in self.exchanges:
            head_H = torch.arange(heads, device=self.device)
            back_R_H = (self.group_R[:, None] * heads + head_H) * self.cells + self.cell_R[:, None]
            there = back_R_H.new_zeros(self.groups * heads * self.cells)
            there[back_R_H] = self.row_R[:, None] * heads + head_H
            self.exchanges[heads] = there, back_R_H.flatten()
        return self.exchanges[heads]

    def _places(self, heads: int, columns: int) -> torch.Tensor:
        """Where among rows, heads and columns the newest tokens are kept; the same in all layers."""
        if (heads, columns) not in self.places:
            head_H = torch.arange(heads, device=self.device)
            place_R_H = (self.row_R[:, None] * heads + head_H) * columns + self.length_R[:, None]
            self.places[heads, columns] = place_R_H.flatten()
        return self.places[heads, columns]

    def _masks(self, window: int | None, dtype: torch.dtype) -> list[torch.Tensor]:
        """What is added to the scores of each block, [rows, 1, 1, prompt + own tokens]; the same in all layers."""
        if window not in self.masks:
            self.masks[window] = [self._mask(*block, window, dtype) for block in self.blocks]
        return self.masks[window]

    def _mask(self, a: int, b: int, oldest: int, window: int | None, dtype: torch.dtype) -> torch.Tensor:
        prompt_R_1, length_R_1 = self.prompt_R[a:b, None], self.length_R[a:b, None]
        place_P = torch.arange(self.longest_prompt, device=self.device)
        place_C = torch.arange(self.clock - oldest + 1, device=self.device)
        hidden = torch.cat([place_P >= prompt_R_1, place_C > length_R_1], dim=1)
        if window is not None:
            distance = torch.cat([prompt_R_1 + length_R_1 - place_P, length_R_1 - place_C], dim=1)
            hidden |= distance >= window
        zero = torch.zeros(hidden.shape, dtype=dtype, device=self.device)
        return zero.masked_fill_(hidden, -torch.inf)[:, None, None]


def _blocks(born_R: torch.Tensor) -> list[tuple[int, int, int]]:
    """Blocks of like size: the first row, the row after the last, and the birth of the oldest; equal ones are one."""
    borns = born_R.tolist()
    size = max(_SMALLEST, -(-len(borns) // _BLOCKS))
    blocks: list[tuple[int, int, int]] = []
    for a in range(0, len(borns), size):
        b = min(a + size, len(borns))
        oldest = min(borns[a:b])
        joined = blocks and blocks[-1][2] == oldest
        blocks.append((blocks.pop()[0] if joined else a, b, oldest))
    return blocks


def _closed(live: torch.Tensor) -> torch.Tensor:
    """Numbers of the live ones, where the last of them have moved into the gaps between the others."""
    count = int(live.sum())
    numbers = torch.arange(count)
    numbers[~live[:count]] = live[count:].nonzero().squeeze(1) + count
    return numbers


def _empty(tensor: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """A buffer for tokens [T, heads, size]. Zeros, since what is masked must be finite."""
    return tensor.new_zeros(rows, tensor.shape[1], columns, tensor.shape[2])


def _grown(buffer: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """A copy that has so many rows and columns at least; zeros where it goes beyond."""
    old_rows, heads, old_columns, size = buffer.shape
    larger = buffer.new_empty(max(rows, old_rows), heads, max(columns, old_columns), size)
    larger[:old_rows, :, :old_columns] = buffer
    larger[:old_rows, :, old_columns:] = 0
    larger[old_rows:] = 0
    return larger


def _move(buffers: _Buffers, order: torch.Tensor) -> None:
    """Bring rows `order` to the front; only those that change their places are copied."""
    moved = (order != torch.arange(len(order))).nonzero().squeeze(1)
    all_buffers = [buffer for pair in buffers.values() for buffer in pair]
    if len(moved) and all_buffers:
        places, sources = torch.stack([moved, order[moved]]).to(all_buffers[0].device)
        for buffer in all_buffers:
            buffer.index_copy_(0, places, buffer.index_select(0, sources))
