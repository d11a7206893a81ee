"""All watches of one owner: by name, in the order they were set; one look at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_vlm_ros.core import BadRequestError
from edge_vlm_ros.watch.spec import MAX_WATCHES, WatchSpec
from edge_vlm_ros.watch.standing import Events, StandingQuestion

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edge_vlm_ros.watch.words import Now, WatchMode


class WatchBoard:
    """The watches. One thread."""

    def __init__(self) -> None:
        self._watches: dict[str, StandingQuestion] = {}
        self._stopped = ''

    def __iter__(self) -> Iterator[StandingQuestion]:
        return iter(tuple(self._watches.values()))

    def __len__(self) -> int:
        return len(self._watches)

    def __contains__(self, name: str) -> bool:
        return name in self._watches

    def get(self, name: str) -> StandingQuestion:
        """Return a watch.

        Raises:
            BadRequestError: There is none of that name.
        """
        if name not in self._watches:
            listed = ', '.join(self._watches) or 'none'
            raise BadRequestError(f'no watch {name!r}; there are: {listed}')
        return self._watches[name]

    def put(self, spec: WatchSpec, now: Now) -> Events:
        """Set a watch; one of that name ends.

        Raises:
            BadRequestError: There are as many as there can be.
        """
        said: Events = ()
        if spec.name in self._watches:
            said = self._watches[spec.name].stop(now, 'the watch was set anew')
        elif len(self._watches) >= MAX_WATCHES:
            raise BadRequestError(f'{MAX_WATCHES} watches are the most there can be')
        watch = self._watches[spec.name] = StandingQuestion(spec, now)
        if self._stopped:
            watch.stop(now, self._stopped)
        return said

    def set_mode(self, name: str, mode: WatchMode, now: Now) -> Events:
        """Change what a watch does.

        Raises:
            BadRequestError: There is none of that name.
        """
        return self.get(name).set_mode(mode, now)

    def remove(self, name: str, now: Now) -> tuple[int, Events]:
        """Remove a watch, or all (''); return how many, and what they said."""
        chosen = [watch for watch in self if name in {'', watch.spec.name}]
        said: Events = ()
        for watch in chosen:
            said += watch.stop(now, 'the watch was removed')
            del self._watches[watch.spec.name]
        return len(chosen), said

    def stop(self, now: Now, why: str) -> Events:
        """Have none look any more."""
        self._stopped = why
        return tuple(event for watch in self for event in watch.stop(now, why))

    def go_on(self, now: Now) -> None:
        """Have all look again."""
        self._stopped = ''
        for watch in self:
            watch.go_on(now)

    def forget_scenes(self) -> None:
        """Forget what was seen: the clock has jumped."""
        for watch in self:
            watch.forget_scene()

    def due(self, now: Now) -> list[StandingQuestion]:
        """List the watches whose look is due, the one that has waited longest first."""
        return sorted((w for w in self if w.is_due(now)), key=lambda watch: watch.due_ns)

    def tick(self, now: Now) -> Events:
        """See `StandingQuestion.tick`; call it after those that are due had their turn."""
        return tuple(event for watch in self for event in watch.tick(now))
