"""Run code on the emulator of a Sophgo chip: in a process of its own, which the chip may end.

One chip to a process, because the vendor's libraries of all chips have the same names; and a bad
call on the emulator ends the process, as some do on a chip. The vendor's libraries print hundreds
of lines a launch: all of it goes to a log, of which an error shows the end. Their threads poll and
their driver sleeps; `waits/waits.c`, preloaded, makes that an order of magnitude cheaper.

python -m support.sophgo.emulator bm1684x -m edge_vlm_ros.cli.main inspect MODEL
    runs a Python command line with the stand-in for `sophon.sail` on its path
"""

from __future__ import annotations

import argparse
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from support.c_library import CLibrary
from support.environment import Changes, environment

ROOT: Final = Path(__file__).resolve().parents[3]
STANDIN: Final = ROOT / 'test' / 'support' / 'sophgo' / 'standin'
CHIPS: Final = ('bm1684x', 'bm1688')
LIBRARIES: Final = ('libbmlib.so.0', 'libbmrt.so.1.0', 'libcmodel.so')
DEFAULT_LIMIT_S: Final = 100.0
WAITS: Final = CLibrary(Path(__file__).parent / 'waits', 'libwaits.so')
_BUILDS: Final = ROOT / 'build' / 'emulator_waits'
_TAIL_LINES: Final = 25
_IN_CALL: Final = 'EDGE_VLM_EMULATOR_CALL'


class EmulatorError(RuntimeError):
    """The process on the emulator did not come to a result; the message has its output."""


class EmulatorDiedError(EmulatorError):
    """The process ended by itself: a crash, an assertion of the vendor's library, an exit.

    Attributes:
        status: The exit status; negative for a signal.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class EmulatorEndError(EmulatorDiedError):
    """The process had its result, and then ended otherwise than in order."""


class EmulatorTimeoutError(EmulatorError):
    """The time limit is over; the process was ended."""


def libraries(chip: str) -> Path:
    """Return the folder of a chip's libraries, which the set-up fills (tools/setup/emulator.py).

    EDGE_VLM_EMULATOR names another folder that holds one folder a chip.
    """
    base = os.environ.get('EDGE_VLM_EMULATOR', '')
    return (Path(base) if base else Path(sys.prefix) / 'emulator') / chip


def missing() -> str:
    """Return why the emulators cannot be used; '' where they can."""
    for chip in CHIPS:
        for name in LIBRARIES:
            if not (libraries(chip) / name).is_file():
                return f'no chip emulator: {libraries(chip) / name} is missing (make setup)'
    return ''


def variables(chip: str, log: Path | None = None) -> Changes:
    """Return the environment variables with which `import sophon.sail` finds the emulator.

    Args:
        chip: 'bm1684x' or 'bm1688'.
        log: Where the vendor's libraries print; None leaves it on the terminal.

    Returns:
        What differs from the environment of this process; see `support.environment`.

    Raises:
        support.c_library.CompilerError: `waits.c` cannot be compiled.
    """
    assert chip in CHIPS, chip
    path = [str(STANDIN), str(ROOT), str(ROOT / 'test'), os.environ.get('PYTHONPATH', '')]
    return {
        'PYTHONPATH': os.pathsep.join(p for p in path if p),
        'EDGE_VLM_EMULATOR_LIBS': str(libraries(chip)),
        'EDGE_VLM_EMULATOR_LOG': None if log is None else str(log),
        'LD_PRELOAD': str(WAITS.build(_BUILDS) / WAITS.name),
        'TPUKERNEL_FIRMWARE_PATH': None,  # would make libbmlib load another emulator
    }


def call(
    chip: str,
    function: Callable[..., Any],
    *arguments: Any,
    time_limit_s: float = DEFAULT_LIMIT_S,
    changes: Changes | None = None,
) -> Any:
    """Call a function in a process with an emulated chip and return what it returns.

    Args:
        chip: 'bm1684x' or 'bm1688'.
        function: Of the top level of a file; the process loads that file, also a test's.
        arguments: Anything that can be pickled.
        time_limit_s: Then the process is ended.
        changes: More environment variables.

    Returns:
        The function's result, by pickle.

    Raises:
        EmulatorDiedError: The process ended before the function did.
        EmulatorTimeoutError: The run took longer than its limit.
        Exception: Whatever the function raised, with the traceback of the other process as cause.
    """
    if _IN_CALL in os.environ:
        # A file that calls when it is imported would start process after process without an end.
        raise EmulatorError('a call on the emulator cannot make another one')
    request = pickle.dumps((_file_of(function), function.__qualname__, arguments))

    def once() -> Any:
        with tempfile.TemporaryDirectory(prefix='edge_vlm_emulator_') as folder:
            files = CallFiles(Path(folder))
            files.request.write_bytes(request)
            command = [sys.executable, '-m', 'support.sophgo.emulator_child', folder]
            own = environment(variables(chip, files.log), changes or {}, {_IN_CALL: '1'})
            return files.result(_run(command, own, files, time_limit_s))

    try:
        return once()
    except EmulatorEndError:
        # The emulator's own threads race while it shuts down: once in some thousand calls it
        # crashes there. What our code leaves behind makes it crash every time.
        return once()


class CallFiles:
    """The files of one call."""

    def __init__(self, folder: Path) -> None:
        self.request = folder / 'request'
        self.answer = folder / 'answer'
        self.output = folder / 'output'
        self.log = folder / 'log'

    def result(self, status: int) -> Any:
        """Return the result or raise what came instead."""
        if not self.answer.exists():
            raise EmulatorDiedError(
                f'the process on the emulator ended ({_status_text(status)}):\n{self.tail()}',
                status,
            )
        done, value, text = pickle.loads(self.answer.read_bytes())
        if done:
            if status != 0:
                raise EmulatorEndError(
                    f'the process on the emulator had its result and then ended with '
                    f'{_status_text(status)}:\n{self.tail()}',
                    status,
                )
            return value
        raise value from EmulatorError(f'on the emulator:\n{text}')

    def tail(self) -> str:
        """Return the end of what was printed, the libraries' lines last."""
        lines: list[str] = []
        for file in (self.output, self.log):
            if file.exists():
                lines += file.read_text(errors='replace').splitlines()[-_TAIL_LINES:]
        return '\n'.join(lines)


def _status_text(status: int) -> str:
    if status < 0:
        return f'signal {signal.Signals(-status).name}'
    return f'exit status {status}'


def _file_of(function: Callable[..., Any]) -> str:
    """Return the file a function is defined in.

    Raises:
        TypeError: It is no plain function of a file's top level.
    """
    code = getattr(function, '__code__', None)
    if code is None or '.' in function.__qualname__ or '<' in function.__qualname__:
        raise TypeError(f'{function!r}: a function of the top level of a file is needed')
    return str(Path(code.co_filename).resolve())


def _run(command: list[str], own: dict[str, str], files: CallFiles, time_limit_s: float) -> int:
    """Run the process, its output in a file, in a session of its own."""
    with files.output.open('wb') as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=own,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait(time_limit_s)
        except subprocess.TimeoutExpired:
            raise EmulatorTimeoutError(
                f'nothing after {time_limit_s} s on the emulator:\n{files.tail()}'
            ) from None
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main() -> int:
    """Run a Python command line on the emulator."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition('\n')[0])
    parser.add_argument('chip', choices=CHIPS)
    parser.add_argument('--log', type=Path, default=Path(os.devnull), help="the library's output")
    parser.add_argument('command', nargs=argparse.REMAINDER, help='arguments for Python')
    options = parser.parse_args()
    lacking = missing()
    if lacking:
        print(lacking, file=sys.stderr)
        return 1
    command = [sys.executable, *options.command]
    own = environment(variables(options.chip, options.log))
    return subprocess.run(command, check=False, env=own).returncode


if __name__ == '__main__':
    sys.exit(main())
