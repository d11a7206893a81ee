"""When an answer ends, and what of it may be shown."""

from hypothesis import given
from hypothesis import strategies as st

from edge_vlm_ros.core import FinishReason
from edge_vlm_ros.text import StopRule

STOPS = st.lists(st.text('ab#', min_size=1, max_size=4), max_size=3)


def shown(rule, pieces):
    return ''.join([*map(rule.show, pieces), rule.finish()])


def first_stop(text, stops):
    """The plain rule: look for the shortest beginning of the text that ends in a stop string."""
    for end in range(len(text) + 1):
        lengths = [len(stop) for stop in stops if text[:end].endswith(stop)]
        if lengths:
            return text[: end - max(lengths)]
    return None


@given(pieces=st.lists(st.text('ab# ', max_size=5), max_size=10), stops=STOPS)
def test_however_the_text_is_cut_it_ends_before_the_first_stop_string(pieces, stops):
    rule = StopRule((), stop_strings=stops)
    text = ''.join(pieces)
    expected = first_stop(text, stops)
    assert shown(rule, pieces) == (text if expected is None else expected)
    stopped = rule.reason is FinishReason.STOP_STRING
    assert stopped == (expected is not None)


@given(pieces=st.lists(st.text('ab# ', max_size=5), max_size=10), stops=STOPS)
def test_what_is_held_back_could_still_become_a_stop_string(pieces, stops):
    rule = StopRule((), stop_strings=stops)
    given_out = ''
    for n, piece in enumerate(pieces):
        given_out += rule.show(piece)
        if rule.reason is not FinishReason.NONE:
            return
        held = ''.join(pieces[: n + 1])[len(given_out) :]
        assert not held or any(len(held) < len(stop) and stop.startswith(held) for stop in stops)


def test_text_without_stop_strings_is_never_held_back():
    rule = StopRule({7})
    assert rule.show('any text') == 'any text'
    assert rule.finish() == ''


def test_nothing_is_shown_after_a_stop_string():
    rule = StopRule((), stop_strings=['###'])
    assert rule.show('a#') == 'a'
    assert rule.show('##b') == ''
    assert rule.show('more') == ''
    assert rule.finish() == ''
    assert rule.reason is FinishReason.STOP_STRING


def test_a_stop_token_ends_the_answer_and_does_not_count():
    rule = StopRule({7, 8}, max_tokens=2)
    assert rule.accept(1)
    assert not rule.accept(8)
    assert rule.reason is FinishReason.STOP


def test_the_last_token_allowed_still_belongs_to_the_answer():
    rule = StopRule({7}, max_tokens=2)
    assert rule.accept(1)
    assert rule.reason is FinishReason.NONE
    assert rule.accept(2)
    assert rule.reason is FinishReason.LENGTH
    assert not rule.accept(3)


def test_no_bound_means_no_bound():
    rule = StopRule({7}, max_tokens=0)
    assert all(rule.accept(1) for _ in range(1000))


def test_an_empty_stop_string_stops_nothing():
    rule = StopRule((), stop_strings=[''])
    assert rule.show('text') == 'text'
    assert rule.reason is FinishReason.NONE
