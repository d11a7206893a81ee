"""How a question is answered by servers: its frames made ready, one server after the other asked.

Runs on the pipeline's asyncio loop; a cancelled task closes its connection, and the server stops.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote

from edge_vlm_ros.core import (
    BadFrame,
    BadImageError,
    EarlierTurn,
    EdgeVlmError,
    ErrorCode,
    FrameKey,
    PromptTooLongError,
    StoredFrame,
)
from edge_vlm_ros.remote.errors import Fault, FaultError, joined
from edge_vlm_ros.remote.exchange import Outcome, Patience, ask_server
from edge_vlm_ros.remote.images import encode_frame
from edge_vlm_ros.remote.messages import write_request
from edge_vlm_ros.serving.remote.spoken import (
    Bounds,
    FittedTalk,
    Spoken,
    SpokenFrame,
    SpokenTurn,
    fit_talk,
)
from edge_vlm_ros.serving.shown_frames import group_frames, thin_out

if TYPE_CHECKING:
    from edge_vlm_ros.core import Clock, Question, ShownAs
    from edge_vlm_ros.remote.addresses import ServerAddress
    from edge_vlm_ros.remote.client import ServerClient
    from edge_vlm_ros.remote.options import RemoteOptions
    from edge_vlm_ros.serving.remote.fleet import Fleet
    from edge_vlm_ros.serving.remote.run import RemoteRun
    from edge_vlm_ros.serving.sessions import Sessions

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Shown:
    """A question's frames as they are sent."""

    frames: tuple[SpokenFrame, ...]
    bad_frames: tuple[BadFrame, ...]


class RemoteAnswering:
    """Answers questions by servers; belongs to one asyncio loop.

    Args:
        client: Started.
        fleet: The servers.
        options: What was chosen.
        sessions: The conversations that go on.
        clock: Steady time.
        model: As the servers call it; '' = the first one that each of them lists.
    """

    def __init__(  # noqa: PLR0913 (keywords)
        self,
        *,
        client: ServerClient,
        fleet: Fleet,
        options: RemoteOptions,
        sessions: Sessions[Spoken],
        clock: Clock,
        model: str,
    ) -> None:
        self._client = client
        self._fleet = fleet
        self._options = options
        self._sessions = sessions
        self._clock = clock
        self._model = model

    async def answer(self, run: RemoteRun) -> None:
        """Answer a question; its text goes to its stream.

        Raises:
            EdgeVlmError: It got no whole answer.
        """
        question = run.question
        if question.earlier:
            self._sessions.reset(question.session_id)
        must_exist = question.continues_session and not question.earlier
        stored = self._sessions.get(question.session_id, must_exist=must_exist)
        follows = await self._retold(question) if question.earlier else stored
        if question.session_id and not follows.has_turns:
            run.notes.append(f'the conversation {question.session_id!r} begins here')
        shown = await self._show(run)
        fitted = fit_talk(question, follows, shown.frames, self._bounds())
        run.frames = fitted.frames
        run.notes += fitted.notes
        if question.max_latency_s:
            run.notes.append('max_latency_s has no effect: what a server takes is not known')
        server = await self._ask(run, fitted, stored.server)
        turn = SpokenTurn(question.text, fitted.new_frames, question.choices, run.text)
        run.talk = (stored, fitted.before.with_turn(turn, question, server))

    async def _retold(self, question: Question) -> Spoken:
        """Write a conversation of which others answered some turns, with its frames."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, retold, question.earlier, self._options)

    def _bounds(self) -> Bounds:
        options = self._options
        return Bounds(
            options.max_images,
            options.max_request_kb * 1000,
            self._fleet.context_tokens or options.context_tokens,
            self._sessions.max_turns,
        )

    # --- frames ----------------------------------------------------------------------------------

    async def _show(self, run: RemoteRun) -> _Shown:
        """Make a question's frames ready, beside the loop: that takes milliseconds each."""
        question = run.question
        if not question.frames:
            return _Shown((), ())
        started_ns = self._clock.now_ns()
        frames = choose(question.frames, question.shown_as, self._options.max_images)
        encode = partial(encode_all, frames, self._options)
        shown = await asyncio.get_running_loop().run_in_executor(None, encode)
        run.prepare_ns = self._clock.now_ns() - started_ns
        run.bad_frames = shown.bad_frames
        if len(frames) < len(question.frames):
            run.notes.append(
                f'of {len(question.frames)} frames {len(frames)}, evenly in time, were shown: '
                'the servers take no more (option max_images)'
            )
        if shown.bad_frames:
            reason = shown.bad_frames[0].reason
            run.notes.append(
                f'{len(shown.bad_frames)} of {len(frames)} frames could not be decoded: {reason}'
            )
        return shown

    # --- servers ---------------------------------------------------------------------------------

    async def _ask(
        self, run: RemoteRun, fitted: FittedTalk, preferred: ServerAddress | None
    ) -> ServerAddress:
        """Ask one server after the other until one answers; return which did.

        Raises:
            EdgeVlmError: None did, or one broke off in the midst of its answer.
        """
        faults: list[tuple[str, Fault]] = []
        for server in self._fleet.order(preferred):
            fault = await self._fault_of(run, fitted, server)
            if fault is None:
                return server
            faults.append((server.url, fault))
        raise joined(faults)

    async def _fault_of(
        self, run: RemoteRun, fitted: FittedTalk, server: ServerAddress
    ) -> Fault | None:
        """Ask one server; return why another one has to be asked, None = none has to.

        Raises:
            EdgeVlmError: The question ends with this one.
        """
        try:
            await self._ask_one(run, fitted, server)
        except FaultError as error:
            if run.is_over:
                raise asyncio.CancelledError from None
            fault = error.fault
            if fault.may_be_asked_elsewhere:
                self._fleet.failed(server, fault)
            if run.has_said or not fault.may_be_asked_elsewhere:
                raise _at(server, fault, has_said=run.has_said) from None
            return fault
        return None

    async def _ask_one(self, run: RemoteRun, fitted: FittedTalk, server: ServerAddress) -> None:
        question, options = run.question, self._options
        run.model = self._model or await self._fleet.model_of(server)
        talk = fitted.talk(question, tells_choices=options.choices == 'text')
        write = partial(write_request, run.model, talk, question, options)
        body = await asyncio.get_running_loop().run_in_executor(None, write)
        if len(body) > options.max_request_kb * 1000:
            raise PromptTooLongError(
                f'the request has {len(body)} bytes, the limit is {options.max_request_kb} units '
                'of 1000 bytes (option max_request_kb)'
            )
        outcome = await ask_server(
            self._client,
            server,
            body=body,
            headers=_headers(question),
            patience=Patience(options.first_token_s, options.between_s),
            take=lambda event: run.take(event, self._clock.now_ns()),
        )
        self._fleet.answered(server)
        run.end(outcome, question.sampling.max_tokens or options.answer_tokens)
        if options.trusts_counts:
            _check_whole(outcome, talk.least_tokens, server)


def choose(
    frames: Sequence[StoredFrame], shown_as: ShownAs | None, most: int
) -> tuple[StoredFrame, ...]:
    """Choose the frames of a question that servers can be shown: moments of clips may go."""
    groups = thin_out(group_frames(frames, shown_as), most)
    return tuple(frame for group in groups for frame in group.frames)


def retold(turns: Sequence[EarlierTurn], options: RemoteOptions) -> Spoken:
    """Make frames and words of a conversation ready to be sent; damaged frames are left out."""
    talk = Spoken(turns[0].system_prompt)
    for turn in turns:
        seen = {frame.key for frame in talk.frames}
        new: dict[FrameKey, SpokenFrame] = {}
        for stored in choose(turn.frames, turn.shown_as, options.max_images):
            with suppress(BadImageError):
                image = encode_frame(stored, options.max_side, options.max_image_kb * 1000)
                frame = SpokenFrame.of(stored, image)
                new.setdefault(frame.key, frame)
        frames = tuple(frame for key, frame in new.items() if key not in seen)
        said = SpokenTurn(turn.text, frames, (), turn.answer)
        talk = replace(talk, turns=(*talk.turns, said))
    return talk


def encode_all(frames: Sequence[StoredFrame], options: RemoteOptions) -> _Shown:
    """Make frames ready to be sent; a live camera's that cannot be decoded is left out.

    Raises:
        BadImageError: None can be decoded, or one that did not come from a camera.
    """
    made = [_encode(stored, options) for stored in frames]
    shown = tuple(each for each in made if isinstance(each, SpokenFrame))
    bad = tuple(each for each in made if isinstance(each, BadFrame))
    for each in bad:
        if not each.received_ns or not shown:
            name = each.source.camera
            raise BadImageError(f'camera {name!r}: {each.reason}' if name else each.reason)
    return _Shown(shown, bad)


def _encode(stored: StoredFrame, options: RemoteOptions) -> SpokenFrame | BadFrame:
    try:
        image = encode_frame(stored, options.max_side, options.max_image_kb * 1000)
    except BadImageError as error:
        return BadFrame(stored.source, stored.stamp_ns, stored.received_ns, error.message)
    return SpokenFrame.of(stored, image)


def _headers(question: Question) -> dict[str, str]:
    """Return what a gateway may route by; names are strangers', so their signs are escaped."""
    headers = {'X-Request-Id': quote(question.request_id, safe=" :/@!$&'()*+,;=")}
    if question.session_id:
        headers['x-session-id'] = quote(question.session_id, safe=" :/@!$&'()*+,;=")
    return headers


def _at(server: ServerAddress, fault: Fault, *, has_said: bool) -> EdgeVlmError:
    """Return the error of a question that ends with what one server did."""
    broke = 'broke off in the midst of the answer: ' if has_said else ''
    code = (
        ErrorCode.SERVER_UNREACHABLE if has_said and fault.may_be_asked_elsewhere else fault.code
    )
    return EdgeVlmError(f'{server}: {broke}{fault.message}', code)


def _check_whole(outcome: Outcome, least: int, server: ServerAddress) -> None:
    """Refuse an answer to a prompt of which the server has cut some, without a word.

    Raises:
        PromptTooLongError: It counts fewer tokens than the prompt has words and images.
    """
    counted = outcome.usage.prompt_tokens if outcome.usage is not None else 0
    if 0 < counted < least:
        raise PromptTooLongError(
            f'{server} has cut the prompt without a word: it counts {counted} tokens, there are '
            f'at least {least} words and images; its context is too short (num_ctx of Ollama)'
        )
