"""Closed answers through the pipeline: one of the choices, as probable as the model says."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from edge_vlm_ros.core import (
    BadRequestError,
    ErrorCode,
    FinishReason,
    Question,
    SamplingOptions,
)
from edge_vlm_ros.serving import VlmPipeline
from edge_vlm_ros.serving.loading import load_model
from edge_vlm_ros.text import spell

COLOURS = ('red', 'red and blue', 'blue', 'a red box', 'a red ball', '門', 'not sure')


@pytest.fixture(scope='module')
def pipeline(tiny_spec):
    with VlmPipeline.open(tiny_spec) as opened:
        yield opened


def true_probabilities(spec, text, choices):
    """Run every spelling of every choice from scratch; renormalise among what the trie allows."""
    loaded = load_model(spec)
    engine, family = loaded.engine, loaded.family
    prefix = family.render_prefix([], '')
    prompt = family.render_suffix(text, prefix.next_position)
    stops = sorted(family.stop_tokens)

    def weights_after(path):
        engine.kv.truncate(0)
        for part in (prefix, prompt):
            start = 0
            for tokens in engine.plan_prefill(len(part)):
                engine.prefill(part.slice(start, start + tokens), {})
                start += tokens
        for place, token in enumerate(path):
            engine.decode(token, prompt.next_position + place)
        scores = engine.logits().values.astype(np.float64)
        return np.exp(scores - scores.max())

    found = dict.fromkeys(choices, 0.0)

    def walk(below, path, mass):
        groups = defaultdict(list)
        for spelling in below:
            rest = spelling.tokens[len(path) :]
            groups[rest[0] if rest else None].append(spelling)
        if len(groups) == 1 and None in groups:
            found[choices[below[0].choice]] += mass
            return
        weights = weights_after(path)
        shares = {t: weights[stops].sum() if t is None else weights[t] for t in groups}
        for token, group in groups.items():
            share = mass * shares[token] / sum(shares.values())
            if token is None:
                found[choices[group[0].choice]] += share
            else:
                walk(group, (*path, token), share)

    walk(spell(choices, family.tokenizer, family.encode_answer), (), 1.0)
    loaded.close()
    return found


@pytest.mark.parametrize('text', ['What is there?', 'Which colour?', 'Is it open?'])
@pytest.mark.parametrize('choices', [('yes', 'no'), COLOURS], ids=['yes_no', 'colours'])
def test_the_choice_is_the_models_own_with_its_true_probability(
    pipeline, tiny_spec, text, choices
):
    true = true_probabilities(tiny_spec, text, choices)
    assert sum(true.values()) == pytest.approx(1.0)
    answer = pipeline.ask(Question(text, choices=choices)).answer(60)
    assert answer.success, answer.message
    assert answer.finish_reason is FinishReason.STOP
    assert answer.choice == answer.text == max(true, key=true.get)
    assert answer.choice_probability == pytest.approx(true[answer.choice], abs=2e-3)


def test_a_drawn_choice_has_its_own_probability(pipeline, tiny_spec):
    true = true_probabilities(tiny_spec, 'Which colour?', COLOURS)
    seen = set()
    for seed in range(20):
        sampling = SamplingOptions(temperature=3.0, seed=seed)
        answer = pipeline.ask(Question('Which colour?', choices=COLOURS, sampling=sampling))
        seen.add(answer.answer(60).choice)
        assert answer.answer(60).choice_probability == pytest.approx(
            true[answer.answer(60).choice], abs=1e-3
        )
    assert len(seen) > 1


def test_a_search_leaves_the_conversation_and_the_kv_cache_as_they_should_be(pipeline):
    """A turn after a closed answer is the same with the cache as it is, and from scratch."""
    brief = SamplingOptions(max_tokens=12)

    def talk(session, *, disturbed):
        first = Question('Which colour?', choices=COLOURS, session_id=session)
        choice = pipeline.ask(first).answer(60)
        if disturbed:
            pipeline.ask(Question('zzz', sampling=SamplingOptions(max_tokens=1))).answer(60)
        then = pipeline.ask(Question('Why?', session_id=session, sampling=brief)).answer(60)
        return choice.choice, choice.timings.answer_tokens, then.text, then.timings.prompt_tokens

    assert talk('a', disturbed=False) == talk('b', disturbed=True)
    choice, tokens, _, prompt_tokens = talk('c', disturbed=False)
    assert tokens == len(choice.encode())
    assert prompt_tokens > tokens, 'what was said is in the next prompt'


def test_one_text_comes_at_the_end_as_the_caller_wrote_it(open_scripted):
    pipeline = open_scripted(answers=[{'answer': 'No, it is shut.'}])
    chunks = list(pipeline.ask(Question('Open?', choices=(' yes', ' no '))))
    assert [chunk.delta for chunk in chunks] == [' no ']
    answer = chunks[-1].answer
    assert (answer.choice, answer.choice_probability) == (' no ', 1.0)
    assert answer.timings.answer_tokens == 2


def test_choices_that_the_model_would_not_say_are_noted(open_scripted):
    pipeline = open_scripted(answers=[{'answer': 'It is green.'}])
    answer = pipeline.ask(Question('Which?', choices=('red', 'blue'))).answer(60)
    assert answer.choice in {'red', 'blue'}
    assert answer.choice_probability == pytest.approx(0.5)
    assert 'not what the model would have said by itself' in answer.message
    assert answer.success


@pytest.mark.parametrize(
    ('said', 'choice'), [('Yes, it is.', 'yes'), ('It is.', ''), ('Well.', '')]
)
def test_without_scores_the_choice_is_the_one_that_the_text_names(open_scripted, said, choice):
    pipeline = open_scripted(
        answers=[{'answer': said}], limits={'samples_on_chip': True, 'has_logits': False}
    )
    answer = pipeline.ask(Question('Open?', choices=('yes', 'no'))).answer(60)
    assert (answer.text, answer.choice, answer.choice_probability) == (said, choice, None)
    assert answer.success


def test_scores_are_read_also_where_a_net_chooses(open_scripted):
    pipeline = open_scripted(answers=[{'answer': 'No.'}], limits={'samples_on_chip': True})
    answer = pipeline.ask(Question('Open?', choices=('yes', 'no'))).answer(60)
    assert (answer.choice, answer.choice_probability) == ('no', 1.0)


@pytest.mark.parametrize(
    ('fields', 'says'),
    [
        ({'choices': ('yes', '')}, r'choices\[1\] is blank'),
        ({'choices': (' \t',)}, r'choices\[0\] is blank'),
        ({'choices': ('Yes', 'no', 'yes ')}, r'choices\[0\] and choices\[2\] are the same'),
        ({'choices': ('\uff21', 'a')}, r'choices\[0\] and choices\[1\] are the same'),
        ({'choices': ('a', 'b'), 'stop': ('c',)}, 'stop is for free text'),
        (
            {'choices': ('a', 'b'), 'sampling': SamplingOptions(repetition_penalty=1.1)},
            'repetition_penalty is for free text',
        ),
        ({'stop': ('a', '')}, r'stop\[1\] is empty'),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(open_scripted, fields, says):
    with pytest.raises(BadRequestError, match=says):
        open_scripted().ask(Question('Open?', **fields))


def test_a_choice_for_which_there_is_no_room_is_refused(open_scripted):
    pipeline = open_scripted(limits={'context_tokens': 120})
    answer = pipeline.ask(Question('Open?', choices=('yes', 'n' * 200))).answer(60)
    assert answer.error_code is ErrorCode.PROMPT_TOO_LONG
    assert 'the longest choice 200, and the context holds 120' in answer.message
    assert pipeline.ask(Question('Open?', choices=('yes', 'no'))).answer(60).success


def test_max_tokens_does_not_cut_a_choice(open_scripted):
    pipeline = open_scripted(answers=[{'answer': 'not sure'}])
    one = SamplingOptions(max_tokens=1)
    question = Question('Open?', choices=('no', 'not sure'), sampling=one)
    assert pipeline.ask(question).answer(60).choice == 'not sure'


def test_a_search_can_be_cancelled_and_the_next_question_is_right(open_scripted):
    pipeline = open_scripted(
        answers=[{'question': 'Open', 'answer': 'not sure'}, {'answer': 'Fine.'}],
        latency={'decode_s': 0.2},
    )
    choices = tuple('n' * number for number in range(1, 200))
    stream = pipeline.ask(Question('Open?', choices=choices))
    while not stream.begun_ns:
        pass
    stream.cancel()
    answer = stream.answer(60)
    assert answer.finish_reason is FinishReason.CANCELLED
    assert (answer.text, answer.choice, answer.choice_probability) == ('', '', None)
    assert pipeline.ask(Question('And now?')).answer(60).text == 'Fine.'


def test_scores_that_are_nan_are_the_chips_fault(open_scripted):
    pipeline = open_scripted(faults=[{'at': 'next_token', 'kind': 'nan', 'question': 'Open'}])
    for choices in ((), ('yes', 'no')):
        answer = pipeline.ask(Question('Open?', choices=choices)).answer(60)
        assert answer.error_code is ErrorCode.DEVICE
        assert answer.message.startswith('chip scripted: the best of ')
        assert 'nan' in answer.message
        assert answer.choice_probability is None
    assert pipeline.ask(Question('Hi')).answer(60).text == 'Hi'
