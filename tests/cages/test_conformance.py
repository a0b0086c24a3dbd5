"""What every kind of cage must hold, seen from inside by real commands. `process` must fail the isolation part: it
shows that these checks bite."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from libhive.names import agent_name
from libhive.spec import Limits
from libhive.testing.hive import Hive
from services.lifecycle.cages import Running, kernel
from services.lifecycle.sweep import sweep
from tests.cages.conftest import KIND, KINDS, Hutch
from tests.groups import there_are_none

Check = Callable[[Hutch], Awaitable[None]]

DENIED = """
import ctypes, errno, os, platform, sys
libc = ctypes.CDLL(None, use_errno=True)
calls = {"x86_64": (272, 165, 101, 250, 321, 425), "aarch64": (97, 40, 117, 219, 280, 425)}[platform.machine()]
for name, number in zip(("unshare", "mount", "ptrace", "keyctl", "bpf", "io_uring_setup"), calls):
    arguments = {"unshare": (0x10000000,), "ptrace": (0, 0, 0, 0), "keyctl": (0, -3, 1)}.get(name, (0, 0, 0, 0, 0))
    result = libc.syscall(number, *arguments)
    if result != -1 or ctypes.get_errno() != errno.EPERM:
        sys.exit(f"{name}: {result} {os.strerror(ctypes.get_errno())}")
"""


async def no_way_out(hutch: Hutch) -> None:
    """No route, no interface but lo."""
    done = await hutch.python(
        "iris",
        "import errno, socket, sys\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "names = [name for _, name in socket.if_nameindex()]\n"
        "sys.exit(not (s.connect_ex(('192.0.2.1', 9)) == errno.ENETUNREACH and names == ['lo']))",
    )
    assert done.exit_code == 0, done.output


async def no_host_loopback(hutch: Hutch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"import socket, sys; sys.exit(socket.socket().connect_ex(('127.0.0.1', {port})) == 0)"
        done = await hutch.python("iris", code)
    assert done.exit_code == 0, done.output


async def no_abstract_sockets_of_the_host(hutch: Hutch) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0hive-test-{os.getpid()}")
        server.listen()
        code = (
            "import socket, sys; "
            f"sys.exit(socket.socket(socket.AF_UNIX).connect_ex('\\0hive-test-{os.getpid()}') == 0)"
        )
        done = await hutch.python("iris", code)
    assert done.exit_code == 0, done.output


async def no_vsock(hutch: Hutch) -> None:
    done = await hutch.python(
        "iris",
        "import socket\ntry: socket.socket(40, 1)\nexcept OSError as e: raise SystemExit(e.errno != 97)\nexit(1)",
    )
    assert done.exit_code == 0, done.output


async def no_others(hutch: Hutch) -> None:
    """Another agent's state, doors and page are not there, and neither is its process."""
    other = agent_name("mallory")
    paths = [
        hutch.paths.agent_state(other),
        hutch.paths.doors(other),
        hutch.paths.page_dir(other),
        hutch.paths.state,
    ]
    done = await hutch.python(
        "iris", f"import os, sys; sys.exit(any(map(os.path.lexists, {list(map(str, paths))})))"
    )
    assert done.exit_code == 0, done.output
    done = await hutch.python(
        "iris", "import os; print(max(int(p) for p in os.listdir('/proc') if p.isdecimal()))"
    )
    assert int(done.output) < 1000


async def nothing_outside_state_is_writable(hutch: Hutch) -> None:
    doors = "os.environ['HIVE_DOORS']"
    done = await hutch.python(
        "iris",
        "import os, sys\n"
        f"for place in ('/', '/usr', '/etc', '/opt', '/run', '/var', '/home', '/root', '/dev/..', {doors}):\n"
        "    try: open(place + '/hive-test', 'w').close(); os.unlink(place + '/hive-test'); sys.exit(place)\n"
        "    except OSError: pass\n",
    )
    assert done.exit_code == 0, done.output


async def no_privileged_calls(hutch: Hutch) -> None:
    done = await hutch.python("iris", DENIED)
    assert done.exit_code == 0, done.output


async def no_privileges(hutch: Hutch) -> None:
    done = await hutch.run(
        "iris", "grep", "-E", "^(CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):", "/proc/self/status"
    )
    values = {key: int(value, 16) for key, value in (line.split(":") for line in done.output.splitlines())}
    assert values == {"CapPrm": 0, "CapEff": 0, "CapBnd": 0, "CapAmb": 0, "NoNewPrivs": 1, "Seccomp": 2}


async def nothing_of_the_clone(hutch: Hutch) -> None:
    clone = Path(__file__).parent.parent.parent
    done = await hutch.python("iris", f"import os, sys; sys.exit(os.path.exists({str(clone / 'tests')!r}))")
    assert done.exit_code == 0, done.output


async def controls_are_reported(hutch: Hutch) -> None:
    cage = await hutch.cages.adopt(agent_name("iris"))
    assert cage is not None
    try:
        assert {"no-network", "read-only-root", "seccomp", "no-capabilities"} <= set(cage.controls)
        assert ("uid" in cage.controls) == (os.geteuid() == 0 or cage.record.kind == "nspawn")
    finally:
        cage.close()


ISOLATION: tuple[Check, ...] = (
    controls_are_reported,
    no_abstract_sockets_of_the_host,
    no_host_loopback,
    no_others,
    no_privileged_calls,
    no_privileges,
    no_vsock,
    no_way_out,
    nothing_of_the_clone,
    nothing_outside_state_is_writable,
)


@pytest.mark.parametrize("check", ISOLATION, ids=lambda check: check.__name__)
async def test_isolation(hutch: Hutch, check: Check) -> None:
    await hutch.have("mallory", 2)
    await hutch.have("iris")
    await check(hutch)


@pytest.mark.skipif(KIND == "nspawn", reason="shown where bubblewrap is")
@pytest.mark.parametrize("kind", ["process"])
@pytest.mark.parametrize("check", ISOLATION, ids=lambda check: check.__name__)
async def test_the_process_cage_fails_it(hutch: Hutch, check: Check) -> None:
    if check is nothing_outside_state_is_writable and os.geteuid() != 0:
        pytest.skip("an ordinary user cannot write there, caged or not")
    await hutch.have("mallory", 2)
    await hutch.have("iris")
    with pytest.raises(AssertionError):
        await check(hutch)


async def test_no_names_are_resolved(hutch: Hutch) -> None:
    """Not in ISOLATION: the host of a test may have no resolver either."""
    await hutch.start("iris")
    done = await hutch.python(
        "iris", "import socket; print(socket.gethostbyname('localhost')); socket.gethostbyname('a.test')"
    )
    assert done.exit_code == 1
    assert done.output.startswith("127.0.0.1\n")
    assert "gaierror" in done.output


@pytest.mark.parametrize("kind", KINDS)
async def test_state_and_page_are_writable_and_state_lasts(hutch: Hutch) -> None:
    cage = await hutch.start("iris")
    done = await hutch.run(
        "iris", "sh", "-c", 'echo kept >"$HIVE_STATE/note" && touch "$HIVE_PAGE/x" && touch /tmp/hive-x'
    )
    assert done.exit_code == 0, done.output
    await hutch.cages.kill(cage)
    await hutch.start("iris")
    done = await hutch.run("iris", "sh", "-c", 'cat "$HIVE_STATE/note"; rm /tmp/hive-x 2>/dev/null')
    assert done.output == "kept\n"


@pytest.mark.parametrize("kind", KINDS)
async def test_the_environment_is_an_allow_list(hutch: Hutch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", "sk-canary-1")
    await hutch.start("iris")
    done = await hutch.run(
        "iris", "sh", "-c", "cat /proc/self/environ /proc/1/environ /proc/$PPID/environ | tr '\\0' '\\n'"
    )
    assert "sk-canary-1" not in done.output
    assert "HIVE_AGENT=iris" in done.output
    assert "PYTHONSAFEPATH=1" in done.output


async def test_the_program_finds_its_library_and_spec(hutch: Hutch) -> None:
    await hutch.start(
        "iris",
        program=("-c", "import libhive.spec, os; print(open(os.environ['HIVE_SPEC']).read()); input()"),
    )
    for _ in range(100):
        if "haiku" in hutch.log("iris"):
            return
        await __import__("asyncio").sleep(0.05)
    raise AssertionError(hutch.log("iris"))


async def test_each_agent_has_a_user_of_its_own(hutch: Hutch, as_root: bool) -> None:
    """As the kernel tells the host who connects to a door."""
    seen = {}
    for number, name in enumerate(("iris", "mallory"), 1):
        await hutch.start(name, number)
        with _door(hutch, name) as peers:
            code = "import os, socket; socket.socket(socket.AF_UNIX).connect(os.environ['HIVE_DOORS'] + '/test.sock')"
            done = await hutch.python(name, code)
            assert done.exit_code == 0, done.output
        seen[name] = peers
    own = os.geteuid()
    expected = {
        "nspawn": {"iris": [590_824], "mallory": [656_360]},
        "bubblewrap": {"iris": [589_824], "mallory": [655_360]}
        if as_root
        else {"iris": [own], "mallory": [own]},
    }
    assert seen == expected[hutch.cages.kind]


@contextlib.contextmanager
def _door(hutch: Hutch, name: str) -> Iterator[list[int]]:
    """A socket in the agent's directory, and the users who connected to it."""
    import struct

    path = hutch.paths.doors(agent_name(name)) / "test.sock"
    peers: list[int] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(0o666)
        server.listen()
        server.settimeout(10)

        def accept() -> None:
            connection, _ = server.accept()
            peers.append(
                struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
            )
            connection.close()

        thread = threading.Thread(target=accept)
        thread.start()
        yield peers
        thread.join()


# ---- limits: for every kind that has them


EACH = pytest.mark.parametrize("kind", KINDS)
TAKE = "taken = [bytearray(b'x' * (1 << 20)) for _ in range({})]"
BRANCH = """
import os, signal, time
born = []
try:
    while len(born) < 100:
        if not (pid := os.fork()): time.sleep(1000)
        born.append(pid)
except BlockingIOError: pass
print(len(born))
for pid in born: os.kill(pid, signal.SIGKILL)
"""
BURN = """
import time
began, used = time.monotonic(), time.process_time()
while time.monotonic() - began < 1: pass
print((time.process_time() - used) / (time.monotonic() - began))
"""
FORK_BOMB = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
MEMORY_BOMB = "taken = []\nwhile True: taken.append(bytearray(b'x' * (1 << 20)))"


@EACH
async def test_memory_is_limited(hutch: Hutch) -> None:
    await hutch.start("iris", limits=Limits(memory_mb=160))
    done = await hutch.python("iris", TAKE.format(80))
    assert done.exit_code == 0, done.output
    done = await hutch.python("iris", TAKE.format(300))
    assert done.exit_code == -9 or "MemoryError" in done.output
    assert (await hutch.run("iris", "true")).exit_code == 0


@EACH
async def test_tasks_are_limited(hutch: Hutch) -> None:
    cage = await hutch.start("iris", limits=Limits(tasks=40))
    done = await hutch.python("iris", BRANCH)
    if _without_groups(cage) and cage.record.kind == "process":
        assert done.output == "100\n"  # it promised nothing
    else:
        assert 10 < int(done.output) < 40


@EACH
async def test_the_processor_is_limited(hutch: Hutch) -> None:
    """From above only: on a busy host it gets less."""
    cage = await hutch.start("iris", limits=Limits(cpu_percent=20))
    done = await hutch.python("iris", BURN)
    if _without_groups(cage):
        assert not any(control.startswith("cpu") for control in cage.controls)
    else:
        assert float(done.output) < 0.5


@EACH
async def test_a_program_that_takes_too_much_is_said_to_have(hutch: Hutch) -> None:
    cage = await hutch.start("iris", program=("-c", MEMORY_BOMB), limits=Limits(memory_mb=128))
    ended = await hutch.cages.ended(cage)
    if _without_groups(cage):
        assert "MemoryError" in ended.why
    else:
        assert ended.why == "out of memory (limit 128 MB)"
    await hutch.cages.kill(cage)


@EACH
async def test_what_was_ended_in_a_cage_that_lives_on_is_noticed_once(hutch: Hutch) -> None:
    cage = await hutch.start("iris", limits=Limits(memory_mb=128))
    assert not hutch.cages.look(cage)
    await hutch.python("iris", TAKE.format(300))
    assert hutch.cages.look(cage) != _without_groups(cage)
    assert not hutch.cages.look(cage)


@pytest.mark.parametrize("bomb", [FORK_BOMB, MEMORY_BOMB], ids=["fork", "memory"])
async def test_a_bomb_in_one_cage_leaves_the_broker_answering(hutch: Hutch, bomb: str) -> None:
    cage = await hutch.start("iris", limits=Limits(memory_mb=256, tasks=64, cpu_percent=100))
    async with Hive() as hive:
        await hive.start("broker")
        await hive.open_mailbox("bob")
        await hutch.run("iris", "sh", "-c", f"setsid python3 -c {shlex.quote(bomb)} >/dev/null 2>&1 &")
        for number in range(40):
            await hive.send("operator", "bob", f"message {number}")  # each within the deadline of a call
            await asyncio.sleep(0.02)
        await hutch.cages.kill(cage)
    assert not hutch.processes()
    assert not hutch.groups()


@EACH
async def test_nothing_is_left_of_a_cage_that_was_stopped_killed_or_swept(hutch: Hutch) -> None:
    for end in ("stop", "kill", "sweep"):
        cage = await hutch.start("iris")
        assert hutch.groups() or _without_groups(cage)
        inside = await _orphan(hutch)
        if hutch.cages.kind == "process" and _without_groups(cage):  # there is nothing to know it by
            os.kill(inside.pid, signal.SIGKILL)
        match end:
            case "stop":
                await hutch.cages.stop(cage, 5.0)
            case "kill":
                await hutch.cages.kill(cage)
            case _:
                await sweep(hutch.paths)
        assert not hutch.processes()
        assert not hutch.groups()
        await asyncio.wait_for(inside.wait(), 5)
        inside.close()


async def _orphan(hutch: Hutch) -> kernel.Process:
    """A process in the cage that has left its session and whose parent has ended."""
    word = f"1000.{os.getpid()}{hutch.generation}"
    await hutch.run("iris", "sh", "-c", f"setsid sleep {word} >/dev/null 2>&1 &")
    for _ in range(100):
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdecimal() and (entry / "cmdline").read_bytes() == f"sleep\0{word}\0".encode():
                    found = kernel.Process.open(int(entry.name))
                    assert found is not None
                    return found
        await asyncio.sleep(0.02)
    raise AssertionError("it is not there")


def _without_groups(cage: Running) -> bool:
    return there_are_none(not cage.record.groups)
