"""config/sros2_policy.xml names what the nodes open on the graph: all of it, and nothing else."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
POLICY = ROOT / 'config' / 'sros2_policy.xml'
HIDDEN_SERVICES = ('send_goal', 'cancel_goal', 'get_result')
HIDDEN_TOPICS = ('feedback', 'status')
RULES = {'publish', 'subscribe', 'reply', 'request', 'execute', 'call'}


def profile_of(node):
    (profile,) = [p for p in ET.parse(POLICY).iter('profile') if p.get('node') == node]
    return profile


def resolved(name, namespace, node):
    """Return a name as sros2 resolves it (its permissions.xsl)."""
    base = namespace.rstrip('/')
    if name.startswith('/'):
        return name
    return f'{base}/{node}{name[1:]}' if name.startswith('~') else f'{base}/{name}'


def named(node, namespace='/'):
    """Return what the policy allows: kind of thing and its full name."""
    found = set()
    for rules in profile_of(node):
        (rule,) = RULES & set(rules.attrib)
        assert rules.get(rule) == 'ALLOW'
        for child in rules:
            name = resolved(child.text, namespace, node)
            if rule == 'execute':
                found |= {('reply', f'{name}/_action/{part}') for part in HIDDEN_SERVICES}
                found |= {('publish', f'{name}/_action/{part}') for part in HIDDEN_TOPICS}
            else:
                found.add((rule, name))
    return found


def opened(client, node, namespace='/'):
    """Return what a node has opened, as the graph shows it."""
    watcher = client.node
    by_kind = {
        'publish': watcher.get_publisher_names_and_types_by_node,
        'subscribe': watcher.get_subscriber_names_and_types_by_node,
        'reply': watcher.get_service_names_and_types_by_node,
        'request': watcher.get_client_names_and_types_by_node,
    }
    if (node, namespace) not in watcher.get_node_names_and_namespaces():
        return set()
    return {(kind, name) for kind, ask in by_kind.items() for name, _ in ask(node, namespace)}


def watch(client, node, namespace='/'):
    """Wait until the graph has all that the policy names; return what more there is."""
    expected = named(node, namespace)
    seen = []

    def is_complete():
        seen[:] = [opened(client, node, namespace)]
        return expected <= seen[0]

    try:
        client.until(is_complete)
    except pytest.fail.Exception:
        pytest.fail(f'{node} never opened {sorted(expected - seen[0])}')
    client.spin(1.0)
    return opened(client, node, namespace) - expected


SCRIPT = 'answers: [{answer: yes}]'


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.parametrize('namespace', ['/', '/robot1'])
def test_the_policy_names_exactly_what_the_vlm_node_opens(other_robot, namespace):
    client = other_robot.client
    other_robot.vlm(
        {
            'chip': 'scripted',
            'model': other_robot.script(SCRIPT),
            'use_sim_time': 'true',
            'ahead_mode': 'prefill',
            'camera_names': '[camera, close]',
            'cameras.camera.topic': 'image_raw',
            'cameras.close.topic': 'image_raw/compressed',
            'cameras.close.transport': 'compressed',
        },
        [f'__ns:={namespace}'],
    )
    assert watch(client, 'vlm', namespace) == set()


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.parametrize('namespace', ['/', '/robot1'])
def test_the_policy_names_exactly_what_the_camera_node_opens(other_robot, namespace):
    client = other_robot.client
    parameters = {'transport': 'both', 'use_sim_time': 'true'}
    other_robot.camera(parameters, [f'__ns:={namespace}'])
    assert watch(client, 'camera', namespace) == set()


def test_the_policy_has_the_format_that_ros2_security_reads():
    """What its schema (ros2/sros2, policy.xsd) asks for, as far as it matters here."""
    root = ET.parse(POLICY).getroot()
    assert (root.tag, root.attrib) == ('policy', {'version': '0.2.0'})
    assert [enclave.get('path') for enclave in root.iter('enclave')] == ['/vlm', '/camera']
    for profile in root.iter('profile'):
        assert set(profile.attrib) == {'ns', 'node'}
        assert {rules.tag for rules in profile} <= {'topics', 'services', 'actions'}
        for rules in profile:
            names = [child.text for child in rules]
            assert {child.tag for child in rules} == {rules.tag[:-1]}
            assert len(set(names)) == len(names)
