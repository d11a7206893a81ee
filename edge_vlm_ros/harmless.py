"""Text for people to see: nothing in it that commands a terminal.

An answer says what a model, a picture or a caller makes it say. Only the standard library is
imported: `edge-vlm doctor` has to run where nothing else does.
"""

_KEPT = {0x09, 0x0A}
# C0 and C1 (escape sequences begin with them), line separators, and what turns the direction of
# the text around it; they would let an answer write over the lines above or hide what it says.
_CONTROLS = {*range(0x20), *range(0x7F, 0xA0), 0x061C, 0x200E, 0x200F, 0x2028, 0x2029}
_TURNS = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}
_STRIPPED = dict.fromkeys((_CONTROLS | _TURNS) - _KEPT)


def harmless(text: str) -> str:
    """Return text without control codes; line breaks and tabs stay."""
    return text.translate(_STRIPPED)
