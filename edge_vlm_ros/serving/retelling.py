"""Conversations that began elsewhere, written as this model would have them. The chip's thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_vlm_ros.core import BadImageError
from edge_vlm_ros.serving.conversation import Conversation, PastTurn
from edge_vlm_ros.serving.shown_frames import grouping, thin_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_vlm_ros.core import EarlierTurn
    from edge_vlm_ros.families.base import ModelFamily
    from edge_vlm_ros.serving.feature_store import FeatureStore
    from edge_vlm_ros.serving.shown_frames import FrameGroup, ShownFrames


def retold(
    turns: Sequence[EarlierTurn], family: ModelFamily, store: FeatureStore, most: int
) -> Conversation:
    """Write a conversation of which this model did not speak every turn, in its own words.

    Frames of earlier turns that cannot be decoded are left out of them.

    Args:
        turns: All of it, oldest first; at least one.
        family: The model's.
        store: Says what frames become.
        most: Images in one prompt at most; 0 = any number.
    """
    conversation = Conversation(turns[0].system_prompt)
    for turn in turns:
        groups = grouping(family)(turn.frames, turn.shown_as)
        shown = [_shown(group, store) for group in thin_out(groups, most or len(groups))]
        frames = tuple(frame for frame in shown if frame is not None)
        answer = tuple(family.encode_answer(turn.answer.strip()))
        conversation = conversation.with_past(family, PastTurn(turn.text, frames, answer))
    return conversation


def _shown(group: FrameGroup, store: FeatureStore) -> ShownFrames | None:
    """Return what a prompt needs to know of a group, which may never be encoded."""
    if store.has(group.key) or store.pixels(group.key):
        return store.shown(group)
    try:
        store.prepare(group)
    except BadImageError:
        return None
    shown = store.shown(group)
    store.forget([group.key])  # Made again if it is encoded: the scheduler knows not.
    return shown
