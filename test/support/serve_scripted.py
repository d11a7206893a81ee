"""A scripted server in a process of its own: `python -m support.serve_scripted [PORT]`.

It answers as the script of `test_vlm_node.py` does, and prints its address.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

from aiohttp import web

from support.scripted_server import (
    MODEL,
    ScriptedServer,
    chunk,
    endless,
    lines,
    parts_of,
    stream,
    texts_of,
    usage,
)

CONTEXT_TOKENS = 4096
CHOICES = 'Answer with exactly one of these, and nothing else: '
LONG = 'one two three four five six seven eight nine ten eleven twelve thirteen fourteen'
_WORD_S = 0.02
_LONG_S = 0.05


async def reply(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """Answer by the words of the question."""
    messages = body['messages']
    question = texts_of(messages[-1])[-1]
    print(f'asked: {question!r}', flush=True)
    texts = [text for message in messages for text in texts_of(message)]
    kinds = [part['type'] for message in messages for part in parts_of(message)]
    images = kinds.count('image_url')
    if 'without end' in question:
        return await endless()(request, body)
    if 'be silent' in question:
        await asyncio.sleep(3600)
    pause_s = _LONG_S if 'long' in question else _WORD_S
    words = _pieces(answer_to(question, images))
    said = words[: body['max_tokens']]
    finish = 'length' if len(said) < len(words) else 'stop'
    parts: list[bytes | float] = []
    for word in said:
        parts += [lines(chunk(word), done=False), pause_s]
    prompt = images + sum(len(text.split()) for text in texts) + 8
    end = lines(chunk(finish=finish), usage(prompt, len(said)))
    return await stream(*parts, end)(request, body)


def answer_to(question: str, images: int) -> str:
    """Return what is said."""
    question, _, choices = question.partition(f'\n{CHOICES}')
    if choices:
        return choices.split('; ')[0]
    if 'long' in question:
        return LONG
    if 'see' in question:
        return f'I see {images} images.'
    return 'Grüße, 世界 🤖!' if 'wörld' in question else f'You asked: {question}'


def _pieces(text: str) -> list[str]:
    """Cut a text at its blanks, which stay before the words."""
    first, *others = text.split(' ')
    return [first, *(f' {word}' for word in others)]


def main() -> None:
    """Serve until it is ended by a signal."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    models = {'data': [{'id': MODEL, 'object': 'model', 'max_model_len': CONTEXT_TOKENS}]}
    with ScriptedServer([reply], models=models, port=port) as server:
        print(f'serving at {server.url} ', flush=True)
        signal.pause()


if __name__ == '__main__':
    main()
