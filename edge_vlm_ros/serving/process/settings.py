"""How long a model process may take for things, and how it is started again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """Bounds of a model process. Seconds of steady time.

    Attributes:
        silence_s: While it starts and loads: from one sign of life to the next. Large models load
            for minutes, and not every engine reports how far it is.
        stall_s: A single step of work, or a layer of one where the engine asks whether to go on;
            longer means that the chip or its driver hangs. 0 = from what the steps of this model
            were measured to cost (`step_watch`).
        late_s: A question that was cancelled or ran out of time is ended from outside when the
            model process did not do so within this time.
        close_s: From being asked to end, by `close` or because it hangs, to the end of the
            process; then it is killed, unless it loads and a kill costs something (`EndNeeds`).
        kill_s: From SIGKILL to the end of the process; longer means that a driver holds it.
        first_backoff_s: Wait before it is started again after its death, doubled each time ...
        max_backoff_s: ... up to this.
        healthy_s: A process that was ready for so long lets the wait start from the first again.
        max_failed_starts: After so many starts in a row that did not get ready it stays down.
        max_deaths: A question that was under way in so many deaths is not asked again.
    """

    silence_s: float = 600.0
    stall_s: float = 0.0
    late_s: float = 0.15
    close_s: float = 5.0
    kill_s: float = 10.0
    first_backoff_s: float = 0.5
    max_backoff_s: float = 30.0
    healthy_s: float = 60.0
    max_failed_starts: int = 5
    max_deaths: int = 2
