"""How processes that use a chip end, and what they leave on record in its ledger.

Each end is a function of a `Chip`; its first line says what happens.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from edge_vlm_ros.core import FrameSource, RawImage, StoredFrame
from edge_vlm_ros.serving import EnginePhase, ModelSpec
from edge_vlm_ros.serving.process import ProcessSettings
from support.asker import HANG_S, Asker, model_processes_of, wait_until_gone
from support.environment import Changes, apply
from support.ledger import Held, Ledger
from support.patience import Patience
from support.processes import Spawned, spawn

ROOT: Final = Path(__file__).resolve().parents[2]
CLIP: Final = ROOT / 'edge_vlm_ros' / 'demo' / 'clips' / 'box_cone_and_rolling_ball.mp4'
BOUNDS: Final = ProcessSettings(first_backoff_s=0.05, max_backoff_s=0.1)
_PARENT: Final = """
import sys, time
from edge_vlm_ros.serving import ModelProcess, ModelSpec
spec = ModelSpec(sys.argv[1], sys.argv[2])
process = ModelProcess(spec, on_state=lambda state: print(state.phase, flush=True))
process.start()
time.sleep(600)
"""
_PROGRAM: Final = """
import sys
from edge_vlm_ros.serving import VlmPipeline
VlmPipeline.open(chip=sys.argv[1], model=sys.argv[2]).close()
"""


class Chip:
    """A chip whose memory stays on record until it is given back.

    Args:
        name: 'ax650', ...
        model: The model's path.
        folder: For its files; the ledger's is named 'ledger'.
        variables: With which a process finds the chip.
        path: Folders that its modules are imported from.
    """

    def __init__(
        self, name: str, model: Path, folder: Path, variables: Changes, path: Sequence[Path]
    ) -> None:
        self.name, self.model, self.folder = name, model, folder
        self.ledger: Final = Ledger(folder / 'ledger')
        self.hang: Final = folder / 'hang'
        """While this file exists, runs of a chip that knows it do not come to their end."""
        self._path = path
        words = [*map(str, path), os.environ.get('PYTHONPATH', '')]
        self.variables: Changes = {**variables, 'PYTHONPATH': os.pathsep.join(filter(None, words))}

    @property
    def spec(self) -> ModelSpec:
        """The model on this chip."""
        return ModelSpec(self.name, str(self.model))

    def held(self) -> Held:
        """Count what is not given back."""
        return self.ledger.held()

    def until(self, condition: Callable[[Held], object]) -> None:
        """Wait until something is true of what is held."""
        patience = Patience(HANG_S)
        while not condition(self.held()):
            assert not patience.is_over(), self.held()
            patience.look()

    def until_loading(self) -> None:
        """Wait until a file is loaded; there is time until all is."""
        self.until(lambda held: held.handles >= 1)

    def start(self, *command: object) -> Spawned:
        """Start Python with a command line."""
        log = self.folder / f'log-{len(list(self.folder.iterdir()))}'
        return spawn([sys.executable, *command], log, self.variables)

    def command(self, name: str, *more: object) -> Spawned:
        """Start a command of `edge-vlm`."""
        return self.start('-m', 'edge_vlm_ros.cli.main', name, '--chip', self.name, *more)

    @contextmanager
    def asker(self, bounds: ProcessSettings = BOUNDS) -> Iterator[Asker]:
        """Start a model process; closed at the end."""
        with pytest.MonkeyPatch.context() as patch:
            apply(self.variables, patch)
            for folder in reversed(self._path):
                patch.syspath_prepend(str(folder))
            asker = Asker(self.spec, bounds)
            try:
                yield asker
            finally:
                self.hang.unlink(missing_ok=True)
                asker.process.close()

    def left_by(self, end: Callable[[Chip], None]) -> Held:
        """Let processes come to an end; return what they left, and forget it."""
        end(self)
        left = self.held()
        self.hang.unlink(missing_ok=True)
        self.ledger.clear()
        return left


def picture() -> StoredFrame:
    """Make a grey frame."""
    image = RawImage('rgb8', 8, 8, 24, bytes([128]) * 192)
    return StoredFrame(FrameSource('front', '/image', 'optical'), 1, image)


def _model_process() -> int:
    (pid,) = model_processes_of(os.getpid())
    return pid


# --- the ends ------------------------------------------------------------------------------------


def close_when_ready(chip: Chip) -> None:
    """`ModelProcess.close()` when ready."""
    with chip.asker() as asker:
        asker.ready()
        pid = _model_process()
    wait_until_gone(pid)


def close_in_mid_answer(chip: Chip) -> None:
    """`ModelProcess.close()` in mid-answer."""
    with chip.asker() as asker:
        asker.ready().ask('What?', 'a', frames=(picture(),))
        asker.wait_for(lambda: any(chunk.delta for chunk in asker.chunks))
        pid = _model_process()
    wait_until_gone(pid)


def fail_to_load(chip: Chip) -> None:
    """A load that fails."""
    layer = max(chip.model.glob('*_l*_together.axmodel'))
    whole = layer.read_bytes()
    layer.write_bytes(b'AXSTUB 0')
    try:
        with chip.asker(ProcessSettings(max_failed_starts=1)) as asker:
            assert asker.settled().phase is EnginePhase.FAILED
    finally:
        layer.write_bytes(whole)


def close_while_loading(chip: Chip) -> None:
    """`close()` while loading."""
    with chip.asker():
        chip.until_loading()
        pid = _model_process()
    wait_until_gone(pid)


def _signalled(chip: Chip, number: int, *, is_loading: bool = False) -> None:
    # It is not to be started again meanwhile.
    with chip.asker(ProcessSettings(first_backoff_s=600.0)) as asker:
        if is_loading:
            chip.until_loading()
        else:
            asker.ready()
        pid = _model_process()
        os.kill(pid, number)
        wait_until_gone(pid)


def sigterm_when_ready(chip: Chip) -> None:
    """SIGTERM to the model process."""
    _signalled(chip, signal.SIGTERM)


def sighup_when_ready(chip: Chip) -> None:
    """SIGHUP to the model process."""
    _signalled(chip, signal.SIGHUP)


def sigterm_while_loading(chip: Chip) -> None:
    """SIGTERM to the model process while it loads."""
    _signalled(chip, signal.SIGTERM, is_loading=True)


def sigkill(chip: Chip) -> None:
    """SIGKILL to the model process."""
    _signalled(chip, signal.SIGKILL)


def _orphaned(chip: Chip, *, is_loading: bool) -> None:
    parent = chip.start('-c', _PARENT, chip.name, chip.model)
    try:
        if is_loading:
            chip.until_loading()
        else:
            parent.wait_for_output('READY')
        (pid,) = model_processes_of(parent.pid)
        parent.process.kill()
        wait_until_gone(pid)
    finally:
        parent.stop()


def parent_killed(chip: Chip) -> None:
    """The parent is killed."""
    _orphaned(chip, is_loading=False)


def parent_killed_while_loading(chip: Chip) -> None:
    """The parent is killed while the model loads."""
    _orphaned(chip, is_loading=True)


def stall(chip: Chip) -> None:
    """The chip does not finish a step."""
    with chip.asker(ProcessSettings(stall_s=1.0, first_backoff_s=600.0)) as asker:
        asker.ready()
        pid = _model_process()
        chip.hang.touch()
        asker.ask('What?', 'a')
        wait_until_gone(pid)
        asker.wait_for(lambda: asker.process.state.restarts)


def _command(chip: Chip, number: int, *, is_loading: bool) -> None:
    words = ('--model', chip.model, '--verbose', '--max-tokens', 200)
    asked = chip.command('ask', *words, 'What is this?')
    try:
        if is_loading:
            chip.until_loading()
        else:
            asked.wait_for_output('loaded in')
            chip.hang.touch()
        os.killpg(asked.pid, number)  # as a terminal and systemd do
        chip.hang.unlink(missing_ok=True)
        status = asked.wait()
        assert not is_loading or status == 128 + number, asked.output()
    finally:
        asked.stop()


def sigterm_to_ask_while_loading(chip: Chip) -> None:
    """`edge-vlm ask`: SIGTERM while loading."""
    _command(chip, signal.SIGTERM, is_loading=True)


def sigterm_to_ask_while_answering(chip: Chip) -> None:
    """`edge-vlm ask`: SIGTERM while answering."""
    _command(chip, signal.SIGTERM, is_loading=False)


def sigterm_to_ask_while_the_chip_hangs(chip: Chip) -> None:
    """`edge-vlm ask`: SIGTERM while the chip does not finish a step."""
    asked = chip.command('ask', '--model', chip.model, '--verbose', 'What is this?')
    try:
        asked.wait_for_output('loaded in')
        chip.hang.touch()
        os.killpg(asked.pid, signal.SIGTERM)
        asked.wait()
    finally:
        asked.stop()


def ctrl_c_to_ask_while_loading(chip: Chip) -> None:
    """`edge-vlm ask`: Ctrl-C while loading."""
    _command(chip, signal.SIGINT, is_loading=True)


def ctrl_c_to_a_program_while_loading(chip: Chip) -> None:
    """A Python program with a `VlmPipeline`: Ctrl-C while loading."""
    program = chip.start('-c', _PROGRAM, chip.name, chip.model)
    try:
        chip.until_loading()
        program.process.send_signal(signal.SIGINT)
        program.wait()
        assert 'KeyboardInterrupt' in program.output()
    finally:
        program.stop()


def sigterm_to_the_page_while_loading(chip: Chip) -> None:
    """`edge-vlm web`: SIGTERM while loading."""
    page = chip.command('web', '--model', chip.model, '--video', CLIP, '--port', '0')
    try:
        chip.until_loading()
        page.process.send_signal(signal.SIGTERM)
        page.wait()
    finally:
        page.stop()


def sigterm_to_inspect(chip: Chip) -> None:
    """`edge-vlm inspect`: SIGTERM while it reads the files."""
    looked = chip.command('inspect', chip.model)
    try:
        chip.until_loading()
        os.killpg(looked.pid, signal.SIGTERM)
        looked.wait()
    finally:
        looked.stop()


ENDS: Final[tuple[Callable[[Chip], None], ...]] = (
    close_when_ready,
    close_in_mid_answer,
    fail_to_load,
    close_while_loading,
    sigterm_when_ready,
    sighup_when_ready,
    sigterm_while_loading,
    parent_killed,
    parent_killed_while_loading,
    stall,
    sigterm_to_ask_while_loading,
    sigterm_to_ask_while_answering,
    sigterm_to_ask_while_the_chip_hangs,
    ctrl_c_to_ask_while_loading,
    ctrl_c_to_a_program_while_loading,
    sigterm_to_inspect,
    sigterm_to_the_page_while_loading,
    sigkill,
)
