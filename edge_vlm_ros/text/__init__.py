"""Text to ids and back: tokenizer, chat template, choosing and stopping, streamed text."""

from edge_vlm_ros.text.chat_template import (
    CHATML,
    CHATML_TIGHT,
    INTERNLM2,
    LLAMA3,
    PHI3,
    SMOLVLM,
    ChatTemplate,
    Piece,
    Special,
    TurnMarkup,
    encode_pieces,
)
from edge_vlm_ros.text.choices import match_choice
from edge_vlm_ros.text.closed_answer import ClosedAnswer
from edge_vlm_ros.text.detokenizer import StreamingDetokenizer
from edge_vlm_ros.text.free_text import FreeText
from edge_vlm_ros.text.places import NamedPlace, PlaceForm, find_places
from edge_vlm_ros.text.sentencepiece import SENTENCEPIECE_FILE
from edge_vlm_ros.text.spelling import Spelling, spell
from edge_vlm_ros.text.stop_rule import StopRule
from edge_vlm_ros.text.token_sampler import TokenSampler
from edge_vlm_ros.text.tokenizer import TOKENIZER_FILE, Tokenizer

__all__ = [
    'CHATML',
    'CHATML_TIGHT',
    'INTERNLM2',
    'LLAMA3',
    'PHI3',
    'SENTENCEPIECE_FILE',
    'SMOLVLM',
    'TOKENIZER_FILE',
    'ChatTemplate',
    'ClosedAnswer',
    'FreeText',
    'NamedPlace',
    'Piece',
    'PlaceForm',
    'Special',
    'Spelling',
    'StopRule',
    'StreamingDetokenizer',
    'TokenSampler',
    'Tokenizer',
    'TurnMarkup',
    'encode_pieces',
    'find_places',
    'match_choice',
    'spell',
]
