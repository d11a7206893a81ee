"""Questions from outside the demo world, made from templates and word lists.

Many hundreds of thousands of different ones, some with made-up words, so that training teaches
"none of my own questions" and not a list. The held-out ones have their own templates and words.
"""

# ruff: noqa: SIM905  (word lists read best as words)
from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Final

WORDS: Final[Mapping[str, Sequence[str]]] = {
    'place': (
        'France Spain Italy Germany Japan China Brazil Egypt Kenya India Canada Mexico Norway '
        'Greece Poland Peru Chile Cuba Sweden Turkey Russia Texas Africa Europe London Paris Rome '
        'Berlin Tokyo Madrid Moscow Cairo Boston Oslo Vienna'
    ).split(),
    'person': (
        'Shakespeare Einstein Newton Mozart Picasso Napoleon Cleopatra Darwin Plato Galileo '
        'Columbus Gandhi Beethoven Homer Caesar Lincoln Tesla Edison Bach Dante Anna Peter Mary '
        'John Susan Tom Alice'
    ).split(),
    'work': (
        'Hamlet|Faust|the Bible|the Odyssey|Romeo and Juliet|this book|War and Peace|the song|'
        'the Mona Lisa|Don Quixote|Harry Potter|Star Wars|the Iliad|Peter Pan|this program'
    ).split('|'),
    'topic': (
        'love war music football history physics chess cooking gardening poetry money time death '
        'happiness math art science politics religion sleep coffee tea cheese bread wine gold '
        'silver electricity gravity evolution democracy philosophy the weather'
    ).split(),
    'animal': (
        'dog cat horse cow lion tiger bird fish whale elephant mouse rabbit snake frog bear wolf '
        'sheep goat chicken duck monkey spider bee ant'
    ).split(),
    'item': (
        'table chair car bus train house door window tree flower book phone computer lamp bottle '
        'cup plate knife shoe hat shirt bag key clock bed sofa bike boat plane bridge river '
        'mountain street city person man woman child cylinder pyramid cube sphere triangle '
        'square star banana apple orange pizza carpet ladder robot camera'
    ).split(),
    'thing': (
        'sky sea sun moon grass snow blood milk sand fire night ocean forest desert rainbow floor '
        'wall sofa car leaf rose lemon carrot'
    ).split(),
    'strange_colour': ('orange pink brown black gray golden turquoise violet silver dark').split(),
    'number': (
        'two three four five six seven eight nine ten eleven twelve twenty thirty fifty hundred '
        'thousand'
    ).split(),
    'sum': 'plus minus times'.split(),
    'language': 'French Spanish German Latin Greek Chinese Japanese Arabic Italian'.split(),
    'task': (
        'poem|story|song|letter|joke|haiku|riddle|recipe|speech|list of names|fairy tale|limerick|'
        'love letter|summary|program|email|novel|rap'
    ).split('|'),
    'do': (
        'sing|dance|cook|swim|fly|sleep|talk|think|dream|read|write|jump|laugh|cry|drive a car|'
        'play chess|bake a cake|solve a puzzle|speak French|make coffee|open the door|call my '
        'mother|book a table|order a pizza|send an email|turn on the light|play some music'
    ).split('|'),
    'adjective': (
        'tall old heavy fast rich happy deep hot cold long wide big small smart beautiful famous '
        'strong expensive funny loud'
    ).split(),
    'when': (
        'today|tomorrow|yesterday|next week|this year|in 1990|last night|on Monday|in summer|now'
    ).split('|'),
    'verb': (
        'built invented discovered painted wrote found founded won lost wanted killed married '
        'designed composed'
    ).split(),
}

TEMPLATES: Final[Sequence[str]] = (
    'What is the capital of {place}?',
    'Where is {place}?',
    'How far is {place} from {place}?',
    'How many people live in {place}?',
    'Who is the president of {place}?',
    'Who is {person}?',
    'Who was {person}?',
    'When was {person} born?',
    'Where was {person} born?',
    'When did {person} die?',
    'Who wrote {work}?',
    'Who {verb} {work}?',
    'Who {verb} the {item}?',
    'What did {person} {do_past}?',
    'What do you think about {topic}?',
    'What is {topic}?',
    'Why do we need {topic}?',
    'Tell me about {topic}.',
    'Tell me something about {person}.',
    'Explain {topic} to me.',
    'Do you like {topic}?',
    'Do you like {person}?',
    'What is the meaning of {topic}?',
    'How does {topic} work?',
    'How does a {item} work?',
    'What is a {animal}?',
    'What does a {animal} eat?',
    'How long does a {animal} live?',
    'How many legs does a {animal} have?',
    'What sound does a {animal} make?',
    'Do you have a {animal}?',
    'Is there a {animal}?',
    'Is there a {item}?',
    'Do you see a {animal}?',
    'Do you see a {item}?',
    'Can you see a {item}?',
    'Where is the {item}?',
    'Where is my {item}?',
    'Where is the {animal}?',
    'How many {item}s are there?',
    'How many {animal}s do you see?',
    'What color is the {thing}?',
    'What color is the {item}?',
    'What color is a {animal}?',
    'Why is the {thing} {adjective}?',
    'Is there a {strange_colour} {item}?',
    'Is there anything {strange_colour}?',
    'What is the {strange_colour} thing?',
    'Where is the {strange_colour} {item}?',
    'What is to the left of the {item}?',
    'What is behind the {item}?',
    'How {adjective} is the {item}?',
    'How {adjective} is {person}?',
    'How {adjective} are you?',
    'Are you {adjective}?',
    'What is {number} {sum} {number}?',
    'How much is {number} {sum} {number}?',
    'Count to {number}.',
    'What is the square root of {number}?',
    'How do you say {item} in {language}?',
    'Say {animal} in {language}.',
    'Translate {topic} into {language}.',
    'Do you speak {language}?',
    'Write a {task}.',
    'Write a {task} about {topic}.',
    'Tell me a {task}.',
    'Tell me a {task} about a {animal}.',
    'Give me a {task} for {topic}.',
    'Can you {do}?',
    'Please {do}.',
    'Do you want to {do}?',
    'How do I {do}?',
    'Will you {do} with me?',
    'Who can {do}?',
    'What is the weather {when}?',
    'Will it rain {when}?',
    'How was the weather {when}?',
    'What happened {when}?',
    'What did you do {when}?',
    'What will you do {when}?',
    'What time is it?',
    'What time is it in {place}?',
    'What day is it {when}?',
    'Who are you?',
    'What are you?',
    'What is your name?',
    'How old are you?',
    'Where do you live?',
    'Where are you from?',
    'Who made you?',
    'Who is your {person}?',
    'Are you a robot?',
    'Are you a {animal}?',
    'How are you?',
    'How are you {when}?',
    'What can you do?',
    'Do you sleep?',
    'Do you dream?',
    'Are you alive?',
    'Can you hear me?',
    'Hello!',
    'Good morning.',
    'Thank you.',
    'Help me.',
    'What is my name?',
    'How much does a {item} cost?',
    'Where can I buy a {item}?',
    'Which {item} is best?',
    'What is the best {item} in {place}?',
    'What is the biggest {animal}?',
    'Which {animal} is the fastest?',
    'Who won the game {when}?',
    'Who is the best {item} maker in {place}?',
    'What is the difference between a {item} and a {animal}?',
    'What is the temperature {when}?',
    'What is your favorite {item}?',
    'What is your favorite {animal}?',
    'What is your opinion of {person}?',
    'What language do they speak in {place}?',
    'What is the price of {topic}?',
    'When does the {item} leave?',
    'When was the {item} {verb}?',
    'What is the {item} made of?',
    'Is the {item} open {when}?',
    'Is {person} {adjective}?',
    'Is it {adjective} outside?',
    'Is it {adjective} {when}?',
    'Does {person} like {topic}?',
    'Does a {animal} {do}?',
    'Should I {do} {when}?',
    'What should I {do_short} {when}?',
    'Why did {person} {do}?',
    'Which of the {item}s is {adjective}?',
    'Who lives in the {item}?',
    'How many days are in a {item}?',
    'How many letters are in the word {topic}?',
    'Spell {animal}.',
    'Name a {item}.',
    'Name {number} {animal}s.',
    'Give me {number} facts about {place}.',
    'Describe {place}.',
    'Describe your {item}.',
    'Describe the history of {topic}.',
    'What do you know about {place}?',
    'Read the text on the {item}.',
    'Remind me to {do} {when}.',
    'Set an alarm for {number}.',
    'Take me to {place}.',
    'Bring me a {item}.',
    'Pick up the {item}.',
    'Let us {do}.',
    'I want to {do}.',
    'I like {topic}.',
    'My {animal} is {adjective}.',
    'If I {do}, what happens?',
    '{topic} or {topic}, what is better?',
)

_SLOTS: Final[Mapping[str, Sequence[str]]] = {
    **WORDS,
    'do_past': ('say', 'write', 'find', 'think', 'eat', 'want', 'sell', 'build'),
    'do_short': ('eat', 'wear', 'read', 'buy', 'watch', 'learn', 'say', 'cook'),
}
_STARTS: Final = 'b c d f g h k l m n p r s t v w z br ch cl dr fl gr pl pr sh sl st tr'.split()
_MIDDLES: Final = 'a e i o u ai ea oo ou'.split()
_ENDS: Final = 'n r l s t nd rt m k x th ck ng'.split()
_OPENINGS: Final = (
    'What is',
    'Who is',
    'Where is',
    'How is',
    'Why is',
    'When is',
    'Is',
    'Are',
    'Can',
    'Do you',
    'Tell me',
    'Give me',
    'Which',
    'How many',
    'Does',
    'Did',
    'Will',
    'What',
    'How',
    'Has',
    'Was',
)
_GLUE: Final = (
    'the of to and a in is it you that he was for on are with as his they at be this from have or '
    'by one had not but what all were when we there can an your which said if do into about has '
    'more her like him see could no make than first been its who now my made over did down only '
    'way find use may long little very after words called just most know'
).split()


def made_up_word(rng: random.Random) -> str:
    """Return a word that does not exist."""
    return ''.join(
        rng.choice(_STARTS) + rng.choice(_MIDDLES) + (rng.choice(_ENDS) if i else '')
        for i in range(rng.randint(1, 2))
    ) + rng.choice(_ENDS)


def fill(
    rng: random.Random, template: str, slots: Mapping[str, Sequence[str]], *, made_up: float
) -> str:
    """Return the template with each slot filled by one of its words, or by a made-up one."""
    while '{' in template:
        start, end = template.index('{'), template.index('}')
        word = rng.choice(slots[template[start + 1 : end]])
        if rng.random() < made_up:
            word = made_up_word(rng)
            word = word.capitalize() if rng.random() < 0.25 else word
        template = template[:start] + word + template[end + 1 :]
    return template[0].upper() + template[1:]


def outside_question(rng: random.Random) -> str:
    """Return one outside question for training."""
    if rng.random() < 0.15:
        every = [w for words in WORDS.values() for w in words]
        middle = [
            made_up_word(rng)
            if rng.random() < 0.15
            else rng.choice(every)
            if rng.random() < 0.4
            else rng.choice(_GLUE)
            for _ in range(rng.randint(2, 6))
        ]
        return f'{rng.choice(_OPENINGS)} {" ".join(middle)}?'
    return fill(rng, rng.choice(TEMPLATES), _SLOTS, made_up=0.2)
