"""Watches through the node, its model process and real topics: what the robot says by itself."""

from __future__ import annotations

import json
import math

import pytest

pytestmark = [pytest.mark.ros, pytest.mark.slow]

# Says how bright the pictures are that it is shown, on the scale that the model sees.
SCRIPT = """
answers:
  - {question: 'riddle', answer: 'Who knows.'}
  - {question: 'wait', answer: 'a long answer, word by word'}
  - {answer: 'Picture {means}'}
latency: {decode_s: 0.01}
limits: {has_logits: false, samples_on_chip: true}
"""
NIGHT, CALM, ALARM = 10, 60, 200
CHOICES = ['Picture -0.94', 'Picture 1.48']
"""What it says of CALM and of ALARM."""


class Guard:
    """A robot that watches, and all that it says."""

    def __init__(self, robot, script=SCRIPT, **parameters):
        from edge_vlm_ros.msg import WatchEvent, WatchStates
        from edge_vlm_ros.srv import ListWatches, Unwatch, Watch
        from rclpy.qos import DurabilityPolicy, QoSProfile

        self.robot, self.client = robot, robot.client
        self.events, self.flags, self.states = [], {}, []
        self._kinds = WatchEvent
        node = self.client.node
        self._latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        node.create_subscription(WatchEvent, 'vlm/event', self.events.append, 100)
        node.create_subscription(WatchStates, 'vlm/watch_states', self._on_states, self._latched)
        self._types = {'watch': Watch, 'unwatch': Unwatch, 'list_watches': ListWatches}
        self._services = {n: node.create_client(t, f'vlm/{n}') for n, t in self._types.items()}
        self.camera = self.client.project(brightness=CALM)
        self.node = self.start(script, **parameters)

    def start(self, script=SCRIPT, **parameters):
        chosen = {'chip': 'scripted', 'model': self.robot.script(script), 'max_age_s': 1.0}
        node = self.robot.vlm({**chosen, **parameters})
        self.client.until_state('ready', 90)
        return node

    def _on_states(self, message):
        self.states[:] = [message]
        for state in message.watches:
            self.listen(state.spec.name)

    def listen(self, name):
        """Hear the Bool of a watch."""
        from std_msgs.msg import Bool

        if name not in self.flags:
            heard = self.flags[name] = []
            self.client.node.create_subscription(
                Bool, f'vlm/watches/{name}', lambda m: heard.append(m.data), self._latched
            )

    def call(self, kind, **fields):
        client = self._services[kind]
        self.client.until(client.service_is_ready, what=f'service {kind}')
        return self.client.result(client.call_async(self._types[kind].Request(**fields)))

    def set(self, name, **fields):
        """Set a watch of what the pictures are, or of what the fields say."""
        from edge_vlm_ros.msg import WatchSpec

        usual = {
            'question': 'What do you see?',
            'choices': CHOICES,
            'when': CHOICES[1:],
            'period_s': 0.2,
        }
        return self.call('watch', watch=WatchSpec(name=name, **{**usual, **fields}))

    def set_mode(self, name, mode):
        from edge_vlm_ros.msg import WatchSpec

        wanted = getattr(WatchSpec, f'MODE_{mode}')
        return self.call('watch', watch=WatchSpec(name=name, mode=wanted))

    def state(self, name):
        """Return the newest state of a watch; None = it is not there."""
        watches = self.states[0].watches if self.states else []
        return next((state for state in watches if state.spec.name == name), None)

    def until(self, name, condition, what):
        def holds():
            state = self.state(name)
            return state is not None and condition(state)

        try:
            self.client.until(holds, what=what)
        except pytest.fail.Exception:
            pytest.fail(f'{what} did not come: {self.state(name)}')
        return self.state(name)

    def said(self, name, kind):
        wanted = getattr(self._kinds, f'KIND_{kind}')
        return [event for event in self.events if event.watch == name and event.kind == wanted]

    def until_event(self, name, kind, number=1):
        self.client.until(
            lambda: len(self.said(name, kind)) >= number, what=f'event {kind} of {name}'
        )
        return self.said(name, kind)[number - 1]


PARAMETERS = {
    'watch_names': ['alarm'],
    'watches.alarm.question': 'What do you see?',
    'watches.alarm.choices': CHOICES,
    'watches.alarm.when': CHOICES[1:],
    'watches.alarm.period_s': 0.2,
}


@pytest.fixture(scope='module')
def guard(robot):
    return Guard(robot, **PARAMETERS)


@pytest.fixture
def calm(guard):
    """The guard, the scene calm, no watch there but the first."""
    guard.camera.is_on = True
    guard.camera.show(CALM)
    for state in guard.call('list_watches').watches:
        if state.spec.name != 'alarm':
            guard.call('unwatch', name=state.spec.name)
    guard.until('alarm', lambda s: s.state == s.STATE_ARMED, 'a calm scene')
    return guard


def nanoseconds(stamp):
    return stamp.sec * 10**9 + stamp.nanosec


def test_a_watch_by_parameter_begins_and_ends_an_event_with_both_stamps(calm):
    calm.camera.show(ALARM)
    begin = calm.until_event('alarm', 'BEGIN')
    assert begin.verdict == CHOICES[1]
    assert math.isnan(begin.probability), 'this engine has no scores'
    assert begin.question == 'What do you see?'
    assert [frame.camera for frame in begin.frames] == ['camera']
    assert begin.header.frame_id == 'lens_optical_frame'
    assert nanoseconds(begin.header.stamp) in calm.camera.stamps
    assert nanoseconds(begin.decided) > nanoseconds(begin.header.stamp)
    calm.client.until(lambda: calm.flags['alarm'][-1:] == [True], what='the latched Bool')
    state = calm.until('alarm', lambda s: s.state == s.STATE_ON, 'state on')
    assert (state.event_on, state.event_id, state.events) == (True, begin.event_id, 1)
    calm.camera.show(CALM)
    end = calm.until_event('alarm', 'END')
    assert end.event_id == begin.event_id
    assert end.duration_s > 0
    calm.client.until(lambda: calm.flags['alarm'][-1] is False, what='the latched Bool')
    assert calm.client.texts == [], 'a look is nothing to be spoken aloud'
    assert calm.client.chunks == []


def test_an_unchanged_scene_is_not_looked_at_and_that_is_counted(calm):
    calm.set('still')
    before = calm.until('still', lambda s: s.unchanged >= 2, 'the gate')
    after = calm.until('still', lambda s: s.unchanged >= before.unchanged + 3, 'the gate')
    assert after.looks == before.looks
    calm.set('restless', every_look=True)
    calm.until('restless', lambda s: s.looks >= 4, 'looks')
    assert calm.state('restless').unchanged == 0


def test_what_is_muted_is_silent_and_speaks_when_it_may(calm):
    assert calm.set('quiet', mode=1).success
    calm.camera.show(ALARM)
    calm.until('quiet', lambda s: s.event_on, 'the event')
    assert [e for e in calm.events if e.watch == 'quiet'] == []
    calm.client.until(lambda: calm.flags.get('quiet') == [False], what='the latched Bool')
    assert calm.set_mode('quiet', 'ON').success
    calm.until_event('quiet', 'BEGIN')
    calm.set_mode('quiet', 'MUTED')
    assert 'muted' in calm.until_event('quiet', 'END').text
    assert calm.set_mode('quiet', 'OFF').state.state == 6
    looks = calm.state('quiet').looks
    calm.camera.show(CALM)
    calm.until('alarm', lambda s: not s.event_on, 'the end for the other')
    assert calm.state('quiet').looks == looks
    assert len([e for e in calm.events if e.watch == 'quiet']) == 2


def test_a_watch_without_camera_or_light_is_blind_and_says_so_at_both_ends(calm):
    begun, seen = len(calm.said('alarm', 'BLIND')), len(calm.said('alarm', 'SIGHT'))
    calm.camera.is_on = False
    blind = calm.until_event('alarm', 'BLIND', begun + 1)
    assert blind.frames == []
    assert 'camera' in blind.text
    state = calm.until('alarm', lambda s: s.state == s.STATE_BLIND, 'blindness')
    assert state.blind_reason == state.BLIND_CAMERA
    assert state.missed_camera >= 3
    assert 0 < state.missed_share < 1
    calm.client.until(lambda: calm.client.level('watch alarm') == 1, what='a warning')
    calm.camera.is_on = True
    calm.until_event('alarm', 'SIGHT', seen + 1)
    calm.camera.show(NIGHT)
    calm.until_event('alarm', 'BLIND', begun + 2)
    state = calm.until('alarm', lambda s: s.state == s.STATE_BLIND, 'blindness')
    assert (state.blind_reason, state.missed_dark >= 3) == (state.BLIND_DARK, True)
    calm.camera.show(CALM)
    calm.until_event('alarm', 'SIGHT', seen + 2)


def test_an_answer_that_is_none_of_the_choices_is_unsure_and_no_event(calm):
    calm.set('riddle', question='riddle', choices=[], when=[])
    state = calm.until('riddle', lambda s: s.unsure >= 3, 'unsure looks')
    assert (state.state, state.verdict, state.event_on) == (state.STATE_UNSURE, '', False)
    assert state.spec.choices == ['yes', 'no']
    assert state.spec.when == ['yes']


def test_what_makes_no_sense_is_refused_with_the_field_and_its_limit(calm):
    refusals = {
        'begin_looks is at most begin_of': {'begin_looks': 3, 'begin_of': 2},
        'when names choices': {'when': ['perhaps']},
        'no camera': {'cameras': ['rear']},
        'period_s is from 0.1': {'period_s': -1.0},
        'choices are two or more': {'choices': ['yes']},
        'the question is empty': {'question': ''},
    }
    for words, fields in refusals.items():
        response = calm.set('odd', **fields)
        assert not response.success
        assert words in response.message
    assert not calm.set('../odd').success
    assert calm.state('odd') is None
    assert calm.call('unwatch', name='odd').removed == 0


def test_looks_take_no_room_no_turn_and_no_word_from_whoever_asks(calm):
    calm.set('busy', every_look=True, period_s=0.1)
    calm.until('busy', lambda s: s.looks >= 2, 'looks')
    calm.client.chunks.clear()
    answers = [calm.client.ask_later('wait', request_id=f'r{n}') for n in range(8)]
    for future in answers:
        answer = calm.client.result(future).answer
        assert answer.error_code == 0, answer.message
    assert {chunk.request_id for chunk in calm.client.chunks} == {f'r{n}' for n in range(8)}
    assert calm.client.cancel().cancelled == 0, 'a look is nothing that somebody asked'
    state = calm.until('busy', lambda s: s.missed_busy > 0, 'looks missed')
    assert calm.until('busy', lambda s: s.looks > state.looks, 'looks again').missed_share > 0


def test_deactivated_it_looks_no_more_and_an_event_that_is_on_ends(other_robot):
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    guard = Guard(other_robot, **PARAMETERS)
    guard.camera.show(ALARM)
    guard.until_event('alarm', 'BEGIN')
    change = guard.client.node.create_client(ChangeState, 'vlm/change_state')
    guard.client.until(change.service_is_ready)
    off, on = Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE
    request = ChangeState.Request(transition=Transition(id=off))
    assert guard.client.result(change.call_async(request)).success
    assert 'not active' in guard.until_event('alarm', 'END').text
    guard.until('alarm', lambda s: s.state == s.STATE_OFF, 'state off')
    assert guard.set('late').success
    assert guard.until('late', lambda s: s.state == s.STATE_OFF, 'the new one').looks == 0
    request = ChangeState.Request(transition=Transition(id=on))
    assert guard.client.result(change.call_async(request)).success
    guard.until_event('alarm', 'BEGIN', 2)
    guard.until('late', lambda s: s.looks > 0, 'a look')


def test_what_services_set_and_removed_is_kept_over_a_restart(other_robot, tmp_path):
    file = tmp_path / 'kept' / 'watches.json'
    guard = Guard(other_robot, watch_file=file, **PARAMETERS)
    guard.set('kept', min_probability=0.8, cooldown_s=3.5)
    guard.set_mode('kept', 'MUTED')
    guard.call('unwatch', name='alarm')
    assert json.loads(file.read_text())['removed'] == ['alarm']
    guard.node.stop()
    guard.states.clear()
    node = guard.start(watch_file=file, **PARAMETERS)
    (state,) = guard.call('list_watches').watches
    assert (state.spec.name, state.spec.mode) == ('kept', state.spec.MODE_MUTED)
    assert state.spec.min_probability == pytest.approx(0.8)
    assert state.spec.cooldown_s == 3.5
    assert state.spec.choices == CHOICES
    node.stop()
    file.write_text('{"format": 1, "watches": [{"name": "x", "period_s": "often"}, 3]')
    guard.start(watch_file=file, **PARAMETERS)
    (state,) = guard.call('list_watches').watches
    assert state.spec.name == 'alarm'
    guard.client.until(lambda: guard.client.level('watch file') == 1, what='a warning')
    assert guard.set('new').success
    assert len(json.loads(file.read_text())['watches']) == 1
    assert file.with_name('watches.json.damaged').exists()


def test_with_work_ahead_a_look_costs_the_tokens_of_its_question(other_robot):
    parameters = {**PARAMETERS, 'watches.alarm.every_look': True}
    guard = Guard(other_robot, **parameters, ahead_mode='prefill', **{'ahead.min_period_s': 0.0})

    def counts():
        values = guard.client.status('ahead').values
        return {pair.key: int(pair.value) for pair in values if pair.value.isdigit()}

    guard.client.until(lambda: guard.client.status('ahead') is not None, what='diagnostics')
    guard.until('alarm', lambda s: s.looks > 0, 'a look')
    guard.client.until(lambda: counts()['ready_tokens'] > 0, what='frames made ready')
    state = guard.until(
        'alarm',
        lambda s: s.cached_prompt_tokens >= counts()['ready_tokens'],
        'a look at what is ready',
    )
    assert 0 < state.cached_prompt_tokens < state.prompt_tokens
    assert (counts()['hits'], counts()['misses']) == (0, 0), 'nobody has asked'
