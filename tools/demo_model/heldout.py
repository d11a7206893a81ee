"""The held-out side of the demo world: wordings, outside questions and seeds never trained on."""

# ruff: noqa: SIM905  (word lists read best as words)
from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Final

from tools.demo_model.asker import Asker
from tools.demo_model.outside import fill
from tools.demo_model.wordings import Wordings

STILL_SEED: Final = 900_001
CLIP_SEED: Final = 900_002
LOOK_SEED: Final = 900_003
QUESTION_SEED: Final = 900_004
PACK_SEED: Final = 910_000

WORDINGS: Final[Wordings] = {
    'describe': ('Describe what is in front of you.', 'What can you see?', 'Describe everything.'),
    'count': ('How many things are there?', 'How many objects are in front of you?'),
    'count_colour': ('How many {c} things are there?', 'How many things are {c}?'),
    'count_shape': ('How many {S} can you see?', 'How many {S} are here?'),
    'existence': ('Can you see a {o} here?', 'Is there a {o} in the picture?'),
    'existence_colour': ('Is there a {c} thing?', 'Is there something {c}?'),
    'colour': ('Which color does the {s} have?', 'Say the color of the {s}.'),
    'identity': ('What shape is the {c} object?', 'Tell me what the {c} object is.'),
    'place': ('Where can you see the {o}?', 'On which side do you see the {o}?'),
    'relation': ('What can you see to the {d} of the {o}?', 'Which object is {d} of the {o}?'),
    'nearest': ('Which thing is closest to you?', 'What is the nearest thing?'),
    'path': ('Is the way forward free?', 'Can you drive straight ahead?'),
    'motion': ('What is moving here?', 'Which object moves?'),
    'then_colour': ('And which color does it have?', 'And what is its color?'),
    'then_place': ('And where do you see it?', 'On which side is it?'),
}

OUTSIDE_WORDS: Final[Mapping[str, Sequence[str]]] = {
    'land': 'Portugal Finland Vietnam Nigeria Iceland Denmark Morocco Austria Hungary'.split(),
    'name': 'Kepler Aristotle Rembrandt Churchill Mandela Vivaldi Curie Hemingway Julia'.split(),
    'beast': 'penguin kangaroo crocodile dolphin giraffe squirrel donkey turtle owl'.split(),
    'ware': 'guitar umbrella fridge toaster wallet blanket violin pencil helmet mirror'.split(),
    'field': 'biology tennis geometry medicine astronomy jazz farming fashion opera'.split(),
    'tint': 'magenta beige crimson cyan olive maroon'.split(),
}

OUTSIDE_TEMPLATES: Final[Sequence[str]] = (
    'What is the largest city in {land}?',
    'Which river flows through {land}?',
    'What money do they use in {land}?',
    'Have you ever been to {land}?',
    'What is {name} famous for?',
    'In which year did {name} live?',
    'What is the best book by {name}?',
    'Did {name} have any children?',
    'Why does a {beast} sleep so much?',
    'Where do {beast}s live?',
    'What is a young {beast} called?',
    'Can a {beast} swim?',
    'Is a {beast} hiding here?',
    'Do you see any {beast}?',
    'How do you repair a {ware}?',
    'Where did I leave the {ware}?',
    'Who sold you that {ware}?',
    'Is there a {ware} here?',
    'What color is the {ware}?',
    'Where is the {ware}?',
    'How many {ware}s can you see?',
    'Is there a {tint} {ware}?',
    'Is there anything {tint}?',
    'Teach me {field}.',
    'Who is the greatest star of {field}?',
    'What should I know about {field}?',
    'Is {field} hard to learn?',
    'Compose a sonnet on {field}.',
    'Tell me the latest news.',
    'What is for dinner?',
    'How tall is Mount Everest?',
    'What is the speed of light?',
    'Which planet is the largest?',
    'Do you believe in ghosts?',
    'What are your hobbies?',
    'Who taught you English?',
    'Do you have feelings?',
    'What year is this?',
    'Is it going to snow tonight?',
    'Make me laugh.',
    'What makes people happy?',
    'Which company built you?',
    'Can I trust you?',
    'What is artificial intelligence?',
    'How do I get to the station?',
    'Please turn the volume up.',
    'Say something nice.',
    'What is half of eighty?',
    'Are there any messages for me?',
    'How do airplanes stay up?',
)


class HeldOutAsker(Asker):
    """Asks with the held-out wordings, as they stand, and the held-out outside questions."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng, WORDINGS, rough=False)

    def outside_question(self) -> str:
        """Return a held-out question about anything but the world."""
        template = self.rng.choice(OUTSIDE_TEMPLATES)
        return fill(self.rng, template, OUTSIDE_WORDS, made_up=0.0)
