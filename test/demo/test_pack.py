"""The held-out pack: its questions follow from its seeds, by the rules of the demo world."""

from pathlib import Path

from tools.demo_model.pack import draw

QUESTIONS = Path(__file__).parent / 'data' / 'questions.json'


def test_the_seeds_give_the_shipped_questions_and_answers():
    assert draw().as_json() == QUESTIONS.read_text(encoding='utf-8')
