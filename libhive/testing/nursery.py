"""Processes that are born by fork, out of one that has imported their module and done nothing else.

Each is a process of its own with its own environment, descriptors, session and end, and runs the module as `python -m`
would; only the imports, which take half a second of work, are made once per module instead of once per process.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib.util
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

REQUEST_BYTES_MAX = 128 * 1024
BIRTH_SECONDS_MAX = 30.0
OF_PYTHON = ("PYTHON", "LANG", "LC_")
"""What the interpreter reads before it runs anything."""


class Process:
    """One that was born here, with the verbs of subprocess.Popen. Its pid stays taken until this object is dropped."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        line.settimeout(BIRTH_SECONDS_MAX)
        if not (said := line.recv(32)):
            raise RuntimeError(
                "the nursery has ended: its module could not be imported, or does more than that"
            )
        self.pid = int(said)
        line.setblocking(True)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Only looks at the status, so that several threads may wait for it."""
        if self.returncode is None:
            with contextlib.suppress(BlockingIOError):
                said = self._line.recv(32, socket.MSG_PEEK | socket.MSG_DONTWAIT)
                self.returncode = (
                    int(said) if said else -signal.SIGKILL
                )  # the nursery has gone, and it with it
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        ended = select.poll()
        ended.register(self._line, select.POLLIN)
        ended.poll(None if timeout is None else timeout * 1000)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __del__(self) -> None:
        self._line.close()


class Nursery:
    """The process that has imported one module, from outside. It ends with the one that started it."""

    def __init__(self, module: str, environ: Mapping[str, str]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "libhive.testing.nursery", module, str(theirs.fileno())],
                env={**environ, "PYTHONSAFEPATH": "1"},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        atexit.register(self.close)

    def bear(self, argv: Sequence[str], environ: Mapping[str, str], files: Sequence[int]) -> Process:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            wanted = json.dumps({"argv": list(argv), "environ": dict(environ)}).encode()
            socket.send_fds(self._control, [wanted], [theirs.fileno(), *files])
        return Process(ours)

    def close(self) -> None:
        self._control.close()
        self._process.wait()


_nurseries: dict[tuple[str, ...], Nursery] = {}


def start(
    module: str,
    argv: Sequence[str] = (),
    *,
    environ: Mapping[str, str],
    stdin: IO[Any] | int = subprocess.DEVNULL,
    output: IO[Any],
    errors: IO[Any] | None = None,
) -> Process:
    """`python -m module argv`, in a session of its own."""
    of_python = sorted(f"{name}={value}" for name, value in environ.items() if name.startswith(OF_PYTHON))
    key = (module, *of_python)
    if key not in _nurseries:
        _nurseries[key] = Nursery(module, environ)
    with Path(os.devnull).open("rb") as nothing:
        given = nothing if isinstance(stdin, int) else stdin
        files = [file.fileno() for file in (given, output, errors or output)]
        return _nurseries[key].bear(argv, environ, files)


# ---- inside the nursery


def main(module: str, control: socket.socket) -> None:
    _load(module)
    gc.collect()
    gc.freeze()
    children: dict[int, int] = {}
    """The descriptor of a child's process, and then the line on which its end is told."""
    events = select.poll()
    events.register(control, select.POLLIN)
    while True:
        fd, _ = events.poll()[0]  # one at a time: it may forget what another one is of
        if fd != control.fileno():
            _heed(fd, events, children)
            continue
        wanted, files, _, _ = socket.recv_fds(control, REQUEST_BYTES_MAX, 4)
        if not wanted:
            break
        if _is_child(files, events, children):
            control.detach()
            _live(module, files, **json.loads(wanted))
            return
    for line in list(children.values()):
        _forget(line, events, children)


def _load(module: str) -> None:
    """Everything that the module imports. It is itself to run as `__main__`, and anew in each child."""
    found = importlib.util.find_spec(module)
    assert found
    name = f"{module}.__main__" if found.submodule_search_locations is not None else module
    importlib.import_module(name)
    del sys.modules[name]


def _is_child(files: list[int], events: select.poll, children: dict[int, int]) -> bool:
    pid = os.fork()
    if not pid:
        return True
    line = files.pop(0)
    for file in files:
        os.close(file)
    os.write(line, str(pid).encode())
    process = os.pidfd_open(pid)
    children[process] = line
    events.register(process, select.POLLIN)
    events.register(line, 0)
    return False


def _live(module: str, files: list[int], argv: list[str], environ: dict[str, str]) -> None:
    os.setsid()
    for number, file in enumerate(files[1:]):
        os.dup2(file, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(environ)
    time.tzset()
    if faults := sys.modules.get("libhive.faults"):
        importlib.reload(faults)  # it has read the environment
    sys.argv = [module, *argv]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _heed(fd: int, events: select.poll, children: dict[int, int]) -> None:
    if fd in children:
        _tell_end(fd, children[fd])
        events.unregister(fd)
    else:
        _forget(fd, events, children)


def _tell_end(process: int, line: int) -> None:
    """It stays a zombie, and its pid its own, until nobody asks for it any more."""
    ended = os.waitid(os.P_PIDFD, process, os.WEXITED | os.WNOWAIT)
    assert ended
    status = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
    with contextlib.suppress(BrokenPipeError):
        os.write(line, str(status).encode())


def _forget(line: int, events: select.poll, children: dict[int, int]) -> None:
    """Whoever started it has dropped it, or died; it does not outlive that."""
    process = next(process for process, told in children.items() if told == line)
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(process, signal.SIGKILL)
    os.waitid(os.P_PIDFD, process, os.WEXITED)
    with contextlib.suppress(KeyError):
        events.unregister(process)
    events.unregister(line)
    del children[process]
    os.close(process)
    os.close(line)


if __name__ == "__main__":
    main(sys.argv[1], socket.socket(fileno=int(sys.argv[2])))
