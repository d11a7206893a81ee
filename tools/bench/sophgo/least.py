"""The fewest bytes that a decoded token can move between host and chip, contract by contract."""

from __future__ import annotations

from dataclasses import dataclass

from edge_vlm_ros.core import SamplingOptions
from edge_vlm_ros.engines.sophgo.contract import Contract
from edge_vlm_ros.engines.sophgo.heads import LogitsHead

_ID = 4
_FLOAT = 4


@dataclass(frozen=True, slots=True)
class Least:
    """Bytes a token.

    Attributes:
        up: Host to chip.
        down: Chip to host.
        host_chooses: Whether the token is chosen on the host, so that the chip has to be told.
    """

    up: int
    down: int
    host_chooses: bool

    @property
    def total(self) -> int:
        """Both ways."""
        return self.up + self.down


def least_bytes(contract: Contract, sampling: SamplingOptions) -> Least:
    """Derive the minimum from a contract's shapes.

    Up. The position changes with every token and no net counts it up: one int32 a row of
    positions (three rows with M-RoPE). Of the mask, one element opens: the row that the token
    before took. The token's id is there already where a net of the chip chose it; otherwise the
    host sends it. Without embedding nets (--embedding_disk) its embedding row goes up instead.
    K, V, hidden states and a cross-attention mask, which is the same for a whole answer, need not
    move at all.

    Down. The host must know the token, to show it and to stop: its id. Where the chip gives
    candidates, their probabilities and the id of the one drawn; where it gives logits only, or
    asked for more than its candidates, all of them.
    """
    decoder, head = contract.decoder, contract.head
    up = _ID * decoder.position_rows + decoder.half.nbytes
    host_chooses = False
    down = _ID
    if isinstance(head, LogitsHead):
        candidates = _candidates(head, sampling)
        if sampling.temperature > 0 or not head.has_greedy:
            host_chooses = True
            down = _FLOAT * candidates + _ID if candidates else _FLOAT * head.vocab
    if not contract.embeds_on_chip:
        up += decoder.hidden * decoder.half.nbytes
    elif host_chooses:
        up += _ID
    return Least(up, down, host_chooses)


def _candidates(head: LogitsHead, sampling: SamplingOptions) -> int:
    """Return how many candidates the chip gives for these options; 0 = it gives logits."""
    if head.sampler is None or sampling.temperature <= 0:
        return 0
    most = head.sampler.candidates
    return 0 if sampling.top_k > most else sampling.top_k or most
