"""Container: boots a Debian with systemd by systemd-nspawn, also where the host itself has no systemd."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from tests.booted import cgroups
from tests.booted.layer import Layer
from tests.booted.root import CHECKOUT, CLAUDE, root

T = TypeVar("T")

BOOT_SECONDS_MAX = 60
STOP_SECONDS_MAX = 60
"""Its last step is sync(2), which waits for all that the host has still to write."""
REBOOTED = 133
"""What nspawn with --keep-unit ends with when its container asked for a reboot."""
PREPARE = """
mount -t tmpfs -o mode=755 tmpfs /run
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
shift 2
exec "$@"
"""
ENFORCE = """
for controller in memory pids cpu cpuacct; do
    if [ -d /sys/fs/cgroup/$controller ]; then mount -o remount,bind,rw /sys/fs/cgroup/$controller; fi
done
systemctl daemon-reexec
"""
"""systemd writes limits into the hierarchies of cgroup v1 that it finds writable. Only the bind is remounted: a plain
remount would be about the file system, which is the host's own."""


def lacking() -> str:
    """Why no container can be booted here; empty when one can."""
    if os.geteuid():
        return "only root can boot a container"
    missing = [name for name in ("mmdebstrap", "systemd-nspawn") if shutil.which(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


class Container:
    """One booted Debian, ended and removed with its block. What is written in it survives `reboot`, not the block.

    By default its units see a pure cgroup v2, as on a server, but on a host whose controllers are on v1 limits are accepted
    and not enforced; `limits=True` boots it on the host's own controllers, so that MemoryMax and its siblings bite.
    With `on=installed()` (layer.py) it has what `make install` made, and the hive comes up with it. `binds` are pairs of a
    host's directory and the path it gets inside, writable there. `files` it has before it boots.
    """

    def __init__(
        self,
        *,
        on: Layer | None = None,
        limits: bool = False,
        binds: dict[Path, str] | None = None,
        files: dict[str, str] | None = None,
    ) -> None:
        self.on = on
        self.limits = limits
        self.binds = binds or {}
        self.files = files or {}
        self.leader = 0
        """The container's PID 1 as the host sees it."""

    def __enter__(self) -> Container:
        self.name = f"hive-booted-{secrets.token_hex(4)}"  # a machine's name has no `_`, which mkdtemp likes
        self.place = Path("/tmp") / self.name
        self.place.mkdir(mode=0o755)
        self.log = self.place / "console.log"
        for name in ("upper", "work", "root"):
            (self.place / name).mkdir(mode=0o755)
        for inside, text in self.files.items():
            file = self.place / "upper" / inside.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        lib = self.on.lib if self.on else root() / "var" / "lib"
        subprocess.run(["cp", "-a", str(lib), str(self.place / "lib")], check=True)
        try:
            self._boot()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cut()
        self._remove()

    # ---- verbs

    def run(
        self,
        *command: str,
        user: str = "root",
        status: int | None = 0,
        input: str | None = None,
        seconds: float = 60,
    ) -> str:
        """What the command says, on both its outputs. It runs in all namespaces of the container but in the caller's own
        cgroup; `systemd-run --pipe --wait` puts it into the container's. `status=None` takes any exit status."""
        done = self.ended(*command, user=user, input=input, seconds=seconds)
        if status is not None and done.returncode != status:
            raise AssertionError(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def ended(
        self, *command: str, user: str = "root", input: str | None = None, seconds: float = 60
    ) -> subprocess.CompletedProcess[str]:
        become = [] if user == "root" else ["runuser", "-u", user, "--"]
        return subprocess.run(
            ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "-C", "--", *become, *command],
            input=input or "",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds,
            env={"PATH": "/usr/local/bin:/usr/bin:/usr/sbin", "HOME": "/root", "LANG": "C.UTF-8"},
            cwd="/",
            check=False,
        )

    def shell(self, script: str, *, status: int | None = 0, seconds: float = 60) -> str:
        return self.run("sh", "-ec", script, status=status, seconds=seconds)

    def path(self, inside: str) -> Path:
        """A path of the container as the host can open it, sockets as well; another one after a reboot."""
        return Path(f"/proc/{self.leader}/root{inside}")

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        self.run("mkdir", "-p", str(Path(inside).parent))
        self.run("sh", "-c", 'cat > "$1" && chmod "$2" "$1"', "sh", inside, f"{mode:o}", input=text)

    def unit(self, name: str, *properties: str) -> dict[str, str]:
        """Of `systemctl show`."""
        return self.units([name], *properties)[0]

    def units(self, names: Sequence[str], *properties: str) -> list[dict[str, str]]:
        """The same of several, by one call: to enter the container is most of it."""
        said = self.run("systemctl", "show", *names, f"--property={','.join(properties)}")
        return [dict(line.split("=", 1) for line in one.splitlines()) for one in said.split("\n\n")]

    def journal(self, unit: str = "") -> str:
        chosen = ["-u", unit] if unit else []
        return self.run("journalctl", "--no-pager", "-q", "-o", "short-precise", *chosen)

    def until(self, what: str, look: Callable[[], T], seconds: float = 30) -> T:
        """Looks again and again until it finds something."""
        end = time.monotonic() + seconds
        while True:
            if found := look():
                return found
            if time.monotonic() > end:
                raise AssertionError(f"{what} did not come\n{self.journal()[-6000:]}")
            time.sleep(0.1)

    def reboot(self) -> None:
        """From inside, as an operator does it; returns when it is up again."""
        self.run("systemctl", "reboot")
        status = self._process.wait(STOP_SECONDS_MAX)
        assert status == REBOOTED, f"nspawn ended with {status}\n{self.log.read_text()[-4000:]}"
        self._boot()

    def move_to(self, place: Path) -> None:
        """Powers off, and gives away all that was written in it."""
        self._end()
        keep = self.place / "keep"
        keep.mkdir()
        for name in ("upper", "lib", "install.log"):
            (self.place / name).rename(keep / name)
        shutil.move(keep, place)

    # ---- its life

    def _boot(self) -> None:
        address = self.place / "notify"
        address.unlink(missing_ok=True)
        # Closed after READY: nspawn forwards every status of the container, and blocks for ever when nobody reads them.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as news, self.log.open("ab") as log:
            news.bind(str(address))
            news.settimeout(0.2)
            self._process = subprocess.Popen(
                self._command(),
                env=self._environment(address),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            self._await_ready(news)
        if self.limits:
            self.shell(ENFORCE)

    def _await_ready(self, news: socket.socket) -> None:
        end = time.monotonic() + BOOT_SECONDS_MAX
        while time.monotonic() < end and self._process.poll() is None:
            try:
                lines = news.recv(4096).decode().splitlines()
            except TimeoutError:
                continue
            for line in lines:
                if line.startswith("X_NSPAWN_LEADER_PID="):
                    self.leader = int(line.partition("=")[2])
            if "READY=1" in lines:
                return
        said = self.log.read_text(errors="replace")[-4000:]
        self._end()
        raise RuntimeError(f"the container did not boot\n{said}")

    def _command(self) -> list[str]:
        """A test that is killed takes its container with it, and the private /run leaves nothing of nspawn's on the host."""
        wrapped = ["setpriv", "--pdeathsig", "TERM", "unshare", "--mount", "--propagation", "private", "--"]
        lower = f"{self.on.upper}:{root()}" if self.on else str(root())
        prepare = ["sh", "-ec", PREPARE, "sh", lower, str(self.place)]
        binds = {self.place / "lib": "/var/lib"} | self.binds
        return [
            *cgroups.enter(self.name),
            *wrapped,
            *prepare,
            "systemd-nspawn",
            "--quiet",
            "--boot",
            f"--directory={self.place / 'root'}",
            "--register=no",
            "--keep-unit",
            f"--machine={self.name}",
            "--hostname=hive",
            "--private-network",
            "--console=pipe",
            "--notify-ready=yes",
            "--kill-signal=SIGRTMIN+4",
            "--system-call-filter=bpf",  # for IPAddressDeny=, which is ignored in silence without it
            "--capability=CAP_BPF",
            f"--bind-ro={CHECKOUT}",
            f"--bind-ro={CHECKOUT / '.claude-cli'}:{Path(CLAUDE).parents[2]}",
            *(f"--bind={outside}:{inside}" for outside, inside in binds.items()),
        ]

    def _environment(self, address: Path) -> dict[str, str]:
        pure = {} if self.limits else {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        return {"PATH": os.environ["PATH"], "NOTIFY_SOCKET": str(address)} | pure

    def _cut(self) -> None:
        """As a power cut: nobody reads what it would still write, and a neat end waits for the host's disk."""
        if self._process.poll() is None:
            os.kill(
                self.leader, signal.SIGKILL
            )  # with the first process of the namespace the kernel ends all
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS_MAX)
        self._end()

    def _end(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                print(self.log.read_text(errors="replace")[-3000:])
                cgroups.kill(self.name)
                self._process.kill()
                self._process.wait()

    def _remove(self) -> None:
        cgroups.remove(self.name)
        shutil.rmtree(self.place)
