"""What the node says of itself: one word for people, one reason for refused requests."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_vlm_ros.nodes.status import NodeStatus
from edge_vlm_ros.serving import EnginePhase, EngineState, LoadProgress, ModelInfo
from edge_vlm_ros.serving.standing import Standing

LOADING = EngineState(EnginePhase.STARTING, message='loading the model')
READY = EngineState(EnginePhase.READY, ModelInfo(model='demo', chip='cpu'))
STALLED = EngineState(EnginePhase.STALLED, message='no sign of life for 3 s')
UNCONFIGURED = NodeStatus('unconfigured', 'cpu')
INACTIVE = NodeStatus('inactive', 'cpu', model='demo', engine=READY)
ACTIVE = replace(INACTIVE, lifecycle='active')


@pytest.mark.parametrize(
    ('status', 'state', 'refusal'),
    [
        (UNCONFIGURED, 'unconfigured', 'the node is unconfigured'),
        (replace(UNCONFIGURED, failure='no chip'), 'failed: no chip', 'no chip'),
        (INACTIVE, 'inactive', 'the node is inactive'),
        (replace(INACTIVE, engine=LOADING), 'loading', 'the node is inactive'),
        (ACTIVE, 'ready', ''),
        (replace(ACTIVE, engine=LOADING), 'loading', ''),
        (
            replace(ACTIVE, engine=replace(LOADING, loading=LoadProgress(12, 30))),
            'loading: 12 of 30 parts',
            '',
        ),
        (replace(ACTIVE, engine=replace(LOADING, restarts=1)), 'restarting', ''),
        (replace(ACTIVE, engine=STALLED), 'stalled: no sign of life for 3 s', ''),
        (
            replace(ACTIVE, lifecycle='deactivating'),
            'deactivating',
            'the node is deactivating',
        ),
        (NodeStatus('finalized', 'cpu'), 'finalized', 'the node is finalized'),
        (replace(INACTIVE, lifecycle='finalized'), 'finalized', 'the node is finalized'),
    ],
)
def test_a_state_is_a_word_and_requests_are_taken_while_the_node_is_active(status, state, refusal):
    assert (status.state, status.refusal) == (state, refusal)


def test_the_hardware_is_the_chip_and_its_devices():
    assert INACTIVE.hardware == 'cpu'
    assert replace(INACTIVE, chip='bm1684x', device_ids=(0, 2)).hardware == 'bm1684x 0,2'


URL = 'https://gpu-box:8000/v1'
AFAR = EngineState(EnginePhase.READY, ModelInfo(model='large', chip='remote'))
REMOTE = NodeStatus('active', 'remote', model='', engine=AFAR, servers=(URL,))
OUTAGE = {'outage': f'{URL}: refused', 'since_ns': 1_795_937_544_000_000_000}
ALONE = replace(REMOTE, engine=replace(AFAR, standing=Standing(AFAR.info, **OUTAGE)))
SPARE = replace(
    REMOTE, engine=replace(READY, standing=Standing(READY.info, is_spare=True, **OUTAGE))
)


def test_where_images_go_is_said_and_that_no_server_answers_since_when():
    assert REMOTE.state == f'ready: images leave this robot for {URL}'
    since = 'no server since 2026-11-29T07:32:24Z'
    assert ALONE.state == f'unreachable: {since}: {URL}: refused'
    assert SPARE.state == (
        f'ready: {since}, answering with demo on cpu; images leave this robot for {URL} again '
        'when one answers'
    )
    assert [status.refusal for status in (REMOTE, ALONE, SPARE)] == [''] * 3
    local = replace(REMOTE, engine=READY, servers=())
    assert (local.state, local.outage_since) == ('ready', '')


@pytest.mark.ros
def test_diagnostics_say_it_too_and_warn_while_no_server_answers():
    diagnostics = pytest.importorskip('edge_vlm_ros.nodes.diagnostics')

    def found(status):
        message = diagnostics.engine_status('/vlm', status)
        return ord(message.level), message.message, {v.key: v.value for v in message.values}

    level, _, values = found(REMOTE)
    assert (level, values['images_leave_robot'], values['servers']) == (0, 'true', URL)
    assert (values['server_answers'], values['no_server_since']) == ('true', '')
    level, message, values = found(SPARE)
    assert (level, values['server_answers'], values['answering_chip']) == (1, 'false', 'cpu')
    assert (values['model'], values['no_server_because']) == ('demo', f'{URL}: refused')
    assert 'answering with demo on cpu' in message
    assert f'{URL}: refused' in message
    assert found(ALONE)[0] == 1
    assert 'servers' not in found(replace(REMOTE, engine=READY, servers=()))[2]
