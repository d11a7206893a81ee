"""Long answers for scripted models. One that repeats itself would be ended as a loop."""


def long_words(number: int) -> str:
    """Return so many words (1000 at most) of five bytes each, blank included, no two the same."""
    assert number <= 1000, number
    return ''.join(f'w{place:03d} ' for place in range(number))
