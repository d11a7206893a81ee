"""The tools of an agent, used by the protocol's own client."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

pytest.importorskip('mcp')

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
answers:
  - {question: door, answer: 'The door is open.'}
  - {question: many, answer: '{images} seen'}
  - {question: 'Is there', answer: 'yes'}
  - {question: 'Never', answer: 'no'}
  - {answer: 'A room.'}
"""
CLIP = ROOT / 'edge_vlm_ros' / 'demo' / 'clips' / 'box_cone_and_rolling_ball.mp4'


def use(words, tool_calls, env=None):
    """Start the server as an agent does, call tools in turn; return the results and the tools."""

    async def session():
        server = StdioServerParameters(
            command=sys.executable,
            args=['-m', 'edge_vlm_ros.cli.main', 'mcp', *words],
            env={**os.environ, 'PYTHONPATH': str(ROOT), **(env or {})},
            cwd=str(ROOT),
        )
        async with stdio_client(server) as streams, ClientSession(*streams) as client:
            await client.initialize()
            tools = await client.list_tools()
            results = [await client.call_tool(name, given) for name, given in tool_calls]
            return results, {tool.name for tool in tools.tools}

    return asyncio.run(asyncio.wait_for(session(), 120))


def told(result):
    assert not result.is_error, result.content
    return result.structured_content


def test_files_are_asked_looked_at_and_watched(tmp_path):
    script = tmp_path / 'script.yaml'
    script.write_text(SCRIPT)
    words = ['--video', CLIP, '--chip', 'scripted', '--model', script]
    calls = [
        ('cameras', {}),
        ('ask', {'question': 'Is the door open?'}),
        ('ask', {'question': 'How many?', 'last_seconds': 1.0}),
        ('ask', {'question': 'Is there a dog?', 'choices': ['yes', 'no']}),
        ('describe', {}),
        ('look', {}),
        ('watch', {'question': 'Is there a dog?', 'period_s': 0.2}),
        ('watch', {'question': 'Never?', 'period_s': 0.2, 'timeout_s': 0.5}),
        ('ask', {'question': 'What?', 'cameras': ['rear']}),
        ('watch', {'question': 'Is there?', 'when': ['maybe']}),
    ]
    results, tools = use(map(str, words), calls)
    assert tools == {'ask', 'cameras', 'describe', 'look', 'watch'}
    cameras, door, _, dog, room, look, seen, unseen, rear, maybe = results
    (camera,) = told(cameras)['cameras']
    assert told(cameras)['state'].startswith('ready')
    answer = told(door)
    assert answer['text'] == 'The door is open.'
    assert [frame['camera'] for frame in answer['frames']] == [camera]
    assert 0 <= answer['frames'][0]['age_s'] < 60
    assert answer['frames'][0]['stamp'] > 0
    assert told(dog)['choice'] == 'yes'
    assert told(room)['text'] == 'A room.'
    assert look.content[0].mime_type == 'image/jpeg'
    assert 'stamp' in look.content[1].text
    assert (told(seen)['event'], told(seen)['looks'], told(seen)['missed']) == (True, 2, 0)
    assert told(seen)['frames'], 'what the event was seen in'
    assert told(unseen)['event'] is False
    assert rear.is_error
    assert f"UNKNOWN_CAMERA: no camera 'rear'; there are: {camera}" in rear.content[0].text
    assert maybe.is_error
    assert "when is of yes, no, not 'maybe'" in maybe.content[0].text


@pytest.mark.ros
def test_a_running_node_is_asked_and_one_that_is_not_there_is_told(spawn, tmp_path, ros_domain):
    script = tmp_path / 'script.yaml'
    script.write_text(SCRIPT)
    node = [sys.executable, '-m', 'edge_vlm_ros.nodes.vlm_main', '--ros-args']
    node += ['-p', 'chip:=scripted', '-p', f'model:={script}']
    nobody, _ = use(['--node', '/robot1/vlm'], [('ask', {'question': 'What?'})])
    assert nobody[0].is_error
    assert 'no vlm node is heard of' in nobody[0].content[0].text
    camera = [sys.executable, '-m', 'edge_vlm_ros.nodes.camera_main', '--ros-args']
    camera += ['-p', f'source:={CLIP}', '-p', 'width:=160', '-p', 'fps:=10.0']
    spawn(camera, cwd=ROOT)
    spawn(node, cwd=ROOT).wait_for_output('ready: ')
    results, _ = use(
        [],
        [
            ('cameras', {}),
            ('ask', {'question': 'Is the door open?'}),
            ('look', {'camera': 'camera'}),
        ],
    )
    cameras, door, look = results
    assert told(cameras)['cameras'] == ['camera']
    assert told(door)['text'] == 'The door is open.'
    assert told(door)['frames'][0]['age_s'] < 60
    assert look.content[0].mime_type == 'image/jpeg'
