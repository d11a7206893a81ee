"""Questions that servers answer, on real sockets."""

from __future__ import annotations

from support.scripted_server import ScriptedServer, words

from edge_vlm_ros.core import FinishReason, Question
from edge_vlm_ros.serving import ModelSpec, open_backend


def open_remote(*servers, **options):
    urls = ','.join(server.url for server in servers)
    return open_backend(
        ModelSpec('remote', options.pop('model', ''), options={'servers': urls, **options})
    )


def test_a_question_is_answered_by_a_server():
    with ScriptedServer([words('I see a cone.')]) as server, open_remote(server) as vlm:
        answer = vlm.ask(Question('What do you see?')).answer(20)
    assert answer.success, answer.message
    assert (answer.text, answer.finish_reason) == ('I see a cone.', FinishReason.STOP)
