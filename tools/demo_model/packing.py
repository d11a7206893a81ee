"""Prompts as token ids, and dialogues packed behind shared prefixes.

The prompt is InternVL3's ChatML without a system turn: frames first, then the question.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from tools.demo_model.model import Packed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from tools.demo_model.asker import Dialogue

USER = '<|im_start|>user\n'
ASSISTANT = '<|im_end|>\n<|im_start|>assistant\n'
END = '<|im_end|>'


def frames_text(frames: int, tokens: int) -> str:
    """Return the words and places of the frames, up to the question."""
    places = f'<img>{"<IMG_CONTEXT>" * tokens}</img>\n'
    if frames == 1:
        return places
    return ''.join(f'Frame{i + 1}: {places}' for i in range(frames))


class Batch(NamedTuple):
    """Packed dialogues, the ids wanted, and where each came from: (class, row, number, turn)."""

    packed: Packed
    wanted_ids: torch.Tensor
    sources: NDArray[np.int64]


def _id_of(tokenizer: Tokenizer, token: str) -> int:
    found = tokenizer.token_to_id(token)
    assert found is not None, f'the tokenizer lacks {token}'
    return found


class Packer:
    """Turns dialogues into packed ids."""

    def __init__(self, tokenizer: Tokenizer, tokens: int) -> None:
        self._tokenizer = tokenizer
        self._tokens = tokens
        self._known: dict[str, list[int]] = {}
        self._image_id = _id_of(tokenizer, '<IMG_CONTEXT>')
        self.end_id = _id_of(tokenizer, END)

    @classmethod
    def from_folder(cls, folder: Path, tokens: int) -> Packer:
        """Return a packer with the tokenizer of a folder."""
        from tokenizers import Tokenizer

        return cls(Tokenizer.from_file(str(folder / 'tokenizer.json')), tokens)

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text; remembered."""
        known = self._known.get(text)
        if known is None:
            known = self._tokenizer.encode(text, add_special_tokens=False).ids
            if len(self._known) < 200_000:
                self._known[text] = known
        return known

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of ids."""
        return self._tokenizer.decode(list(ids))

    def prefix(self, frames: int) -> list[int]:
        """Return the ids before the question; 0 frames for text alone."""
        return self.ids(USER + (frames_text(frames, self._tokens) if frames else ''))

    def segment(self, dialogue: Dialogue) -> tuple[list[int], list[int]]:
        """Return ids, and for each the turn whose answer it belongs to (0: none)."""
        ids: list[int] = []
        turns: list[int] = []
        for turn, (question, answer) in enumerate(dialogue, 1):
            asked = self.ids(('\n' + USER if turn > 1 else '') + question + ASSISTANT)
            said = self.ids(answer + END)
            ids += asked + said
            turns += [0] * len(asked) + [turn] * len(said)
        return ids, turns

    def pack(self, frames: int, classes: Sequence[Sequence[Sequence[Dialogue]]]) -> Batch:
        """Pack dialogues: for each length class, for each row, the same number of dialogues."""
        prefix = self.prefix(frames)
        rows = len(classes[0])
        at = rows * len(prefix)
        segments, places, wanted, sources = [], [], [], []
        for number, per_row in enumerate(classes):
            cut = [[self.segment(d) for d in row] for row in per_row]
            count = len(cut[0])
            longest = max(len(ids) for row in cut for ids, _ in row)
            ids = np.zeros((rows, count, longest), np.int64)
            turns = np.zeros_like(ids)
            for r, row in enumerate(cut):
                for k, (one, marks) in enumerate(row):
                    ids[r, k, : len(one)] = one
                    turns[r, k, : len(marks)] = marks
            flat = np.flatnonzero(turns)
            segments.append(torch.from_numpy(ids))
            places.append(flat - 1 + at)
            wanted.append(ids.ravel()[flat])
            row_of, number_of = flat // (count * longest), flat // longest % count
            sources.append(
                np.stack([np.full(len(flat), number), row_of, number_of, turns.ravel()[flat]])
            )
            at += ids.size
        prefix_ids = torch.tensor(prefix)
        packed = Packed(
            prefix_ids,
            torch.nonzero(prefix_ids.eq(self._image_id))[:, 0],
            segments,
            torch.from_numpy(np.concatenate(places)),
        )
        return Batch(packed, torch.from_numpy(np.concatenate(wanted)), np.concatenate(sources, 1))
