"""The KV cache of the responses that are generated side by side, and the attention of their newest tokens.

What was read of a prompt is kept once for all its rows, each row keeps only what it has generated. Attention scores of
the two parts go through one softmax, so the result is that of the whole row. Live rows always lie at the front of the
buffers, and about in the order of their age, so that little is read beyond a row's own end.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch  # noqa: TID253

from aft.scoring.attention import Memory

_COLUMNS = 64  # tokens per row that buffers begin with; they are doubled when a row outgrows them
_BLOCKS = 6  # blocks of rows whose attention is computed each up to its own longest row
_SMALLEST = 8  # rows of a block at least

_Buffers = dict[int, list[torch.Tensor]]  # per layer: keys and values [rows or prompts, heads, tokens, size]


@dataclass(frozen=True, slots=True)
class Admission:
    """A prompt whose keys and values begin at `start` of a memory, and the numbers of the responses that follow it."""

    start: int
    length: int
    responses: Sequence[int]


@dataclass(slots=True)
class _Row:
    response: int
    group: int  # number of the prompt
    cell: int  # which of the prompt's rows
    prompt: int  # tokens of the prompt
    born: int  # the clock when it came


class Slots:
    """Room for `capacity` rows, at most `cells` of them after one prompt, that keep `limit` generated tokens at most.

    It is the `spans` of calls of the model with the newest token of every row, [R, 1].
    """

    def __init__(self, capacity: int, cells: int, limit: int, device: torch.device) -> None:
        self.capacity, self.cells, self.limit, self.device = capacity, cells, limit, device
        self.rows: list[_Row] = []
        self.groups = 0
        self.clock = 0
        self.disorder = 0  # row-tokens read in vain since the rows were sorted last
        self.prompts: _Buffers = {}
        self.own: _Buffers = {}
        self.masks: dict[int | None, list[torch.Tensor]] = {}
        self._renumber()

    @property
    def free(self) -> int:
        """Rows that there is room for."""
        return self.capacity - len(self.rows)

    @property
    def position_R(self) -> torch.Tensor:
        """Of the newest token of each row."""
        return self.prompt_R + self.length_R

    def admit(self, memory: Memory, admissions: Sequence[Admission]) -> int:
        """Take in prompts and their rows; the number of the first new row. The last prompt token is the newest yet."""
        first, groups = len(self.rows), self.groups
        for group, admission in enumerate(admissions, start=groups):
            self.rows += [
                _Row(response, group, cell, admission.length, self.clock)
                for cell, response in enumerate(admission.responses)
            ]
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
        needed = self.clock - min(row.born for row in self.rows) + 1
        self.masks.clear()
        for buffers in self.own.values():
            if buffers[0].shape[2] < needed:
                columns = min(2 * buffers[0].shape[2], self.limit)
                buffers[:] = [_grown(buffer, self.capacity, columns) for buffer in buffers]

    def advance(self) -> None:
        """Count the newest tokens among the kept ones; call it after the model."""
        self.clock += 1
        self.length_R += 1

    def retire(self, ended: Sequence[bool]) -> None:
        """Take out rows that have ended, and prompts that no row follows any more; the last ones take their places."""
        order = self._order(_closed([not is_ended for is_ended in ended]))
        longest = max((self.clock - self.rows[i].born for i in order), default=0)
        _move(self.own, order, longest)
        self.rows = [self.rows[i] for i in order]

        used = {row.group for row in self.rows}
        groups = _closed([group in used for group in range(self.groups)])
        _move(self.prompts, groups, max((row.prompt for row in self.rows), default=0))
        number_of = {group: number for number, group in enumerate(groups)}
        for row in self.rows:
            row.group = number_of[row.group]
        self.groups = len(groups)
        self._renumber()

    def _order(self, order: list[int]) -> list[int]:
        """Row numbers as they are, or by age if disorder has by now cost as much as sorting does: read and write."""
        by_age = sorted(order, key=lambda i: self.rows[i].born)
        self.disorder += self._area(order) - self._area(by_age)
        cost = sum(2 * (self.clock - self.rows[i].born) for place, i in enumerate(by_age) if place != i)
        if self.disorder <= cost:
            return order
        self.disorder = 0
        return by_age

    def _area(self, order: Sequence[int]) -> int:
        """Tokens that attention reads in one step of rows in this order, beside the prompts."""
        borns = [self.rows[i].born for i in order]
        return sum((self.clock - min(borns[a:b])) * (b - a) for a, b in _blocks(len(order)))

    def _renumber(self) -> None:
        """Bring what the device must know about the rows up to date."""
        rows = self.rows
        numbers = [[row.response, row.group, row.cell, row.prompt, self.clock - row.born] for row in rows]
        table = torch.tensor(numbers, dtype=torch.long).reshape(-1, 5).T.contiguous().to(self.device)
        self.response_R, self.group_R, self.cell_R, self.prompt_R, self.length_R = table
        self.row_R = torch.arange(len(rows), device=self.device)
        self.longest_prompt = max((row.prompt for row in rows), default=0)
        self.blocks: list[tuple[int, int, int]] = []  # first row, row after the last, birth of the oldest
        for a, b in _blocks(len(rows)):
            oldest = min(row.born for row in rows[a:b])
            joined = self.blocks and self.blocks[-1][2] == oldest
            self.blocks.append((self.blocks.pop()[0] if joined else a, b, oldest))

    def __call__(
        self, module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any
    ) -> torch.Tensor:
        """Outputs [R, 1, heads, size] of queries [R, heads, 1, size]; keys and values [R, G, 1, size] are kept.

        Each of the G heads of keys serves r heads of queries.
        """
        layer: int = module.layer_idx  # type: ignore[assignment]
        keys, values = self.own[layer]
        keys[self.row_R, :, self.length_R] = key[:, :, 0]
        values[self.row_R, :, self.length_R] = value[:, :, 0]
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
        """Of rows, [prompts, G, cells * r, X]: those of a prompt side by side, zeros where a row has ended."""
        _, heads, queries, size = rows_R_G_r_X.shape
        grid = rows_R_G_r_X.new_zeros(self.groups, heads, self.cells, queries, size)
        grid[self.group_R, :, self.cell_R] = rows_R_G_r_X
        return grid.flatten(2, 3)

    def _of_rows(self, grid: torch.Tensor) -> torch.Tensor:
        """The inverse of `_by_prompt`."""
        return grid.unflatten(2, (self.cells, -1))[self.group_R, :, self.cell_R]

    def _masks(self, window: int | None, dtype: torch.dtype) -> list[torch.Tensor]:
        """What is added to the scores of each block, [rows, 1, 1, prompt + own tokens]; the same in all layers."""
        if window not in self.masks:
            self.masks[window] = [self._mask(*block, window, dtype) for block in self.blocks]
        return self.masks[window]

    def _mask(self, a: int, b: int, oldest: int, window: int | None, dtype: torch.dtype) -> torch.Tensor:
        prompt_R_1, length_R_1 = self.prompt_R[a:b, None], self.length_R[a:b, None]
        place_P = torch.arange(self.longest_prompt, device=self.device)
        place_C = torch.arange(self.clock - oldest + 1, device=self.device)
        distance = torch.cat([prompt_R_1 + length_R_1 - place_P, length_R_1 - place_C], dim=1)
        allowed = torch.cat([place_P < prompt_R_1, place_C <= length_R_1], dim=1)
        if window is not None:
            allowed &= distance < window
        return torch.zeros(allowed.shape, dtype=dtype, device=self.device).masked_fill_(~allowed, -torch.inf)[
            :, None, None
        ]


def _blocks(rows: int) -> Iterator[tuple[int, int]]:
    """Blocks of like size: the first row and the row after the last."""
    size = max(_SMALLEST, -(-rows // _BLOCKS))
    return ((a, min(a + size, rows)) for a in range(0, rows, size))


def _closed(live: Sequence[bool]) -> list[int]:
    """Numbers of the live ones, where the last of them have moved into the gaps between the others."""
    count = sum(live)
    movers = (i for i in range(count, len(live)) if live[i])
    return [i if live[i] else next(movers) for i in range(count)]


def _empty(tensor: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """A buffer for tokens [T, heads, size]. Zeros, since what is masked must be finite."""
    return tensor.new_zeros(rows, tensor.shape[1], columns, tensor.shape[2])


def _grown(buffer: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """A copy that has so many rows and columns at least."""
    larger = buffer.new_zeros(
        max(rows, buffer.shape[0]), buffer.shape[1], max(columns, buffer.shape[2]), buffer.shape[3]
    )
    larger[: buffer.shape[0], :, : buffer.shape[2]] = buffer
    return larger


def _move(buffers: _Buffers, order: Sequence[int], columns: int) -> None:
    """Bring rows `order` to the front, up to so many columns; only those that change their places are copied."""
    moved = [(place, i) for place, i in enumerate(order) if place != i]
    all_buffers = [buffer for pair in buffers.values() for buffer in pair]
    if moved and all_buffers:
        places, sources = torch.tensor(moved, device=all_buffers[0].device).T
        for buffer in all_buffers:
            buffer[places, :, :columns] = buffer[sources, :, :columns]
