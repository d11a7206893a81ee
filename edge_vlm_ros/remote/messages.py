"""A question and what was said before it, as a request to a server.

Only what every server takes is always sent; transformers' server refuses fields it does not know.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from edge_vlm_ros.core import BadRequestError, ErrorCode, Question, SamplingOptions
from edge_vlm_ros.remote.images import SentImage
from edge_vlm_ros.remote.options import RemoteOptions

TOP_LOGPROBS = 20
"""As many as OpenAI and vLLM (max_logprobs) allow at most."""


@dataclass(frozen=True, slots=True)
class SentTurn:
    """One turn of a conversation as it is sent.

    Attributes:
        text: What is asked.
        images: Shown before it, oldest first.
        choices: Answers to choose from, where the model is to be told.
        answer: What was answered; None = that is what is asked for.
    """

    text: str
    images: tuple[SentImage, ...] = ()
    choices: tuple[str, ...] = ()
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class SentTalk:
    """A question and what it follows on, as they are sent.

    Attributes:
        system_prompt: '' = the model's own.
        turns: Oldest first; the last one is asked.
    """

    system_prompt: str
    turns: tuple[SentTurn, ...]

    @property
    def least_tokens(self) -> int:
        """How many tokens it makes at least: one for each word, one for each image.

        Tokenizers split at blanks first, so that no token holds two words.
        """
        texts = [self.system_prompt]
        for turn in self.turns:
            texts += [asked_text(turn.text, turn.choices), turn.answer or '']
        images = sum(len(turn.images) for turn in self.turns)
        return images + sum(len(text.split()) for text in texts)


def write_request(model: str, talk: SentTalk, question: Question, options: RemoteOptions) -> bytes:
    """Write the body of a request, JSON.

    Args:
        model: As the server calls it.
        talk: What is said.
        question: How it is to be answered.
        options: What the servers take.
    """
    sampling = question.sampling
    body: dict[str, Any] = {
        'model': model,
        'messages': [*_system(talk.system_prompt), *_messages(talk.turns)],
        'stream': True,
        'stream_options': {'include_usage': True},
        'max_tokens': sampling.max_tokens or options.answer_tokens,
        'temperature': sampling.temperature,
        **_sampling_fields(sampling, options),
        **_choice_fields(question.choices, options),
        **options.extra_fields(),
    }
    return json.dumps(body, ensure_ascii=False).encode('utf-8', 'replace')


def check_sampling(sampling: SamplingOptions, options: RemoteOptions) -> None:
    """Refuse by name what the servers are not known to take.

    Raises:
        BadRequestError: A field that option `sampling` does not name (UNSUPPORTED_OPTION).
    """
    takes = options.sampling_fields
    wanted = {
        'seed': sampling.seed > 0,
        'top_p': sampling.top_p < 1,
        'top_k': sampling.top_k > 0,
        'repetition_penalty': sampling.repetition_penalty != 1,
    }
    if 'repeat_penalty' in takes:  # llama.cpp's name for it.
        wanted['repetition_penalty'] = False
    refused = [name for name, is_wanted in wanted.items() if is_wanted and name not in takes]
    if refused:
        raise BadRequestError(
            f'the servers are not known to take {" and ".join(refused)}; option sampling says '
            f'which of these they take: {", ".join(sorted(takes)) or "none"}',
            ErrorCode.UNSUPPORTED_OPTION,
        )


def asked_text(text: str, choices: Sequence[str]) -> str:
    """Return a question's text as it is sent: the model is told what it may choose from."""
    if not choices:
        return text
    return f'{text}\nAnswer with exactly one of these, and nothing else: {"; ".join(choices)}'


def _system(system_prompt: str) -> list[dict[str, Any]]:
    return [{'role': 'system', 'content': system_prompt}] if system_prompt else []


def _messages(turns: Iterable[SentTurn]) -> Iterable[dict[str, Any]]:
    for turn in turns:
        text = asked_text(turn.text, turn.choices)
        images = [{'type': 'image_url', 'image_url': {'url': i.url}} for i in turn.images]
        content = [*images, {'type': 'text', 'text': text}] if images else text
        yield {'role': 'user', 'content': content}
        if turn.answer is not None:
            yield {'role': 'assistant', 'content': turn.answer}


def _sampling_fields(sampling: SamplingOptions, options: RemoteOptions) -> dict[str, Any]:
    takes = options.sampling_fields
    fields: dict[str, Any] = {}
    if sampling.seed > 0 or (sampling.temperature > 0 and 'seed' in takes):
        fields['seed'] = sampling.seed
    if sampling.top_p < 1:
        fields['top_p'] = sampling.top_p
    if sampling.top_k > 0:
        fields['top_k'] = sampling.top_k
    if sampling.repetition_penalty != 1:
        name = 'repeat_penalty' if 'repeat_penalty' in takes else 'repetition_penalty'
        fields[name] = sampling.repetition_penalty
    return fields


def _choice_fields(choices: Sequence[str], options: RemoteOptions) -> dict[str, Any]:
    if not choices:
        return {}
    scores = {'logprobs': True, 'top_logprobs': TOP_LOGPROBS} if options.logprobs else {}
    bound: dict[str, Any] = {}
    if options.choices == 'grammar':
        bound['grammar'] = 'root ::= ' + ' | '.join(map(_gbnf, choices))
    elif options.choices == 'structured_outputs':
        bound['structured_outputs'] = {'choice': list(choices)}
    elif options.choices == 'regex':
        bound['regex'] = '(' + '|'.join(map(re.escape, choices)) + ')'
    return {**scores, **bound}


def _gbnf(text: str) -> str:
    """Write a text as a literal of llama.cpp's grammars (grammars/README.md): as in JSON."""
    return json.dumps(text, ensure_ascii=False)
