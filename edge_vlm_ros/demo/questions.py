"""What the demo asks, and when: at moments of the clip where there is one true answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from edge_vlm_ros.demo import truth, world
from edge_vlm_ros.demo.truth import ClipMoment, ClipTruth, Rule

SLACK_BEFORE_S = 0.1
SLACK_AFTER_S = 0.6
"""The answer stays true that long around the moment: asking and choosing frames takes time."""
_STEP_S = 0.1


@dataclass(frozen=True, slots=True)
class Query:
    """One question the demo can ask.

    Attributes:
        topic: Queries of one topic stand for each other; one of them is asked.
        words: The question.
        rule: Gives the true answer.
        seconds: How far back it looks; 0 = the newest frame alone.
        frames: Frames at most.
    """

    topic: str
    words: str
    rule: Rule
    seconds: float = 0.0
    frames: int = 1

    def truth_at(self, clip: ClipTruth, time_s: float) -> str | None:
        """Return the true answer when asked at a media time; None = a toss-up.

        A look back over the clip's start, where it starts over, is a toss-up.
        """
        if time_s < self.seconds or time_s > clip.length_s:
            return None
        if not self.seconds:
            return self.rule([clip.at(time_s)])
        return self.rule(clip.window(time_s, self.seconds, self.frames))

    def is_safe_at(self, clip: ClipTruth, time_s: float) -> bool:
        """Whether the true answer holds from a little before to a little after a media time."""
        answer = self.truth_at(clip, time_s)
        around = (time_s - SLACK_BEFORE_S, time_s + SLACK_AFTER_S / 2, time_s + SLACK_AFTER_S)
        return answer is not None and all(self.truth_at(clip, t) == answer for t in around)


QUERIES = (
    Query('description', 'Describe what you see.', truth.describe),
    *(
        Query('colour', f'What color is the {shape}?', truth.colour_of(shape))
        for shape in sorted(world.SHAPES)
    ),
    Query('motion', 'What is moving?', truth.motion, world.CLIP_SECONDS, world.CLIP_FRAMES),
    Query('path', 'Is the way ahead clear?', truth.path),
)


class Plan:
    """Which query can be asked at which moment of a clip.

    Args:
        clip: What is true in it.
        queries: What may be asked.
    """

    def __init__(self, clip: ClipTruth, queries: Sequence[Query] = QUERIES) -> None:
        self._clip = clip
        self._queries = {query.words: query for query in queries}
        self._times = {query.words: list(self._safe_times(query)) for query in queries}
        for words in [words for words, times in self._times.items() if not times]:
            del self._queries[words], self._times[words]

    @property
    def topics(self) -> list[str]:
        """The topics that can be asked about in this clip, in the order of the queries."""
        return list(dict.fromkeys(query.topic for query in self._queries.values()))

    def query_now(self, time_s: float, topic: str) -> Query | None:
        """Return a query of this topic that is safe to ask at this media time."""
        for words, query in self._queries.items():
            if query.topic == topic and any(t <= time_s < t + _STEP_S for t in self._times[words]):
                return query
        return None

    def _safe_times(self, query: Query) -> Iterator[float]:
        """Give the moments to ask at; those where something is to be said, if there are any."""
        steps = int(self._clip.length_s / _STEP_S)
        times = [step * _STEP_S for step in range(steps)]
        safe = [t for t in times if query.is_safe_at(self._clip, t)]
        telling = [t for t in safe if not self._is_nothing(query, t)]
        yield from telling or safe

    def _is_nothing(self, query: Query, time_s: float) -> bool:
        return str(query.truth_at(self._clip, time_s)).startswith('Nothing')


def truth_of_frames(query: Query, clip: ClipTruth, times_s: Sequence[float]) -> str | None:
    """Return the true answer about the frames that were used, by their media times."""
    moments: list[ClipMoment] = [clip.at(time_s) for time_s in times_s]
    is_in_order = all(a < b for a, b in pairwise(times_s))
    return query.rule(moments) if moments and is_in_order else None
