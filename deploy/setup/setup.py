"""Sets up what `make up` and `make test` need: Debian packages, .venv, Claude Code, the project itself.

It runs on a bare python3, so it uses the standard library only. Each step remembers what it was made from and
is skipped while that is unchanged: running it again goes on where an interrupted or failed set-up stopped.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

HOME = Path(__file__).resolve().parents[2]
VENV = HOME / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
CLAUDE = HOME / ".claude-cli"
CACHE = HOME / ".cache"
WHEELS = CACHE / "wheels"
LOG = CACHE / "setup.log"
STAMPS = VENV / ".made-from"
IN_USE = VENV / ".in-use"
PYTHON_MIN = (3, 11)
LOG_TAIL_LINES = 12
TICK_SECONDS = 1.0
TEST_PROGRAMS = {
    "chromium": "chromium",
    "mmdebstrap": "mmdebstrap",
    "nix-bin": "nix-build",
    "strace": "strace",
    "systemd": "systemd-analyze",
    "systemd-container": "systemd-nspawn",
    "uidmap": "newuidmap",
}
"""Debian packages by a program of theirs."""
CHANGED = "what it was set up from has changed"


class SetUpError(Exception):
    """Set-up cannot go on; the second argument is what to try."""


class Step(NamedTuple):
    title: str
    stamp: Path
    made_from: str
    make: Callable[[], None]


def main(arguments: Sequence[str]) -> int:
    if tuple(arguments) not in {("run",), ("test",)}:
        say("usage: setup.py run|test")
        return 2
    os.umask(0o022)  # agents run as users of their own, and read these trees in their cages
    try:
        check_python()
        check_checkout()
        with only_one():
            set_up(for_tests=arguments[0] == "test")
    except SetUpError as failure:
        say(f"\nset-up stopped: {failure.args[0]}\n  {failure.args[1]}")
        return 1
    except KeyboardInterrupt:
        say("\nset-up interrupted; running it again goes on from here")
        return 130
    return 0


def set_up(*, for_tests: bool) -> None:
    debian_packages(wanted_packages(for_tests=for_tests))
    make = "test" if for_tests else "up"
    for step in steps(for_tests=for_tests):
        is_new = not step.stamp.is_file()
        if is_new or step.stamp.read_text() != step.made_from:
            check_unused(f"`make {make}` has to install more ({step.title})" if is_new else CHANGED)
            with progress(step.title):
                step.stamp.unlink(missing_ok=True)
                step.make()
                step.stamp.parent.mkdir(parents=True, exist_ok=True)
                step.stamp.write_text(step.made_from)


def steps(*, for_tests: bool) -> list[Step]:
    requirements = HOME / "requirements"
    lists = (
        [requirements / "dev.txt"] if for_tests else [requirements / "run.txt", requirements / "build.txt"]
    )
    packages = "tools for tests" if for_tests else "Python packages"
    locked = digest(lists)
    wheels = Step(
        "wheels for tests of the installer", WHEELS / ".made-from", digest([*for_installation()]), download
    )
    return [
        Step("Python environment", STAMPS / "venv", f"{sys.version}\n{sys.executable}\n{HOME}", make_venv),
        Step(packages, STAMPS / ("dev" if for_tests else "run"), locked, lambda: install_locked(lists)),
        Step(
            "Claude Code (a large download)",
            CLAUDE / ".made-from",
            digest([requirements / "claude.txt"]),
            install_claude,
        ),
        Step("hyperhive itself", STAMPS / "project", project_digest(), install_project),
        *([wheels] if for_tests else []),
    ]


# ---- the steps


def make_venv() -> None:
    if VENV.exists():
        shutil.rmtree(VENV)
    run([sys.executable, "-m", "venv", str(VENV)])


def install_locked(lists: Sequence[Path]) -> None:
    pip("--require-hashes", "--only-binary", ":all:", *(part for path in lists for part in ("-r", str(path))))


def install_claude() -> None:
    """Beside the environment, not in it: nobody imports the wheel, only its binary is wanted."""
    fresh = CLAUDE.with_name(CLAUDE.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    options = (
        "--require-hashes",
        "--only-binary",
        ":all:",
        "--no-deps",
        "--no-compile",
        "--target",
        str(fresh),
    )
    pip(*options, "-r", str(HOME / "requirements" / "claude.txt"))
    shutil.rmtree(CLAUDE, ignore_errors=True)
    fresh.rename(CLAUDE)


def install_project() -> None:
    pip("--no-deps", "--no-index", "--no-build-isolation", str(HOME))


def for_installation() -> list[Path]:
    return [HOME / "requirements" / name for name in ("run.txt", "build.txt")]


def download() -> None:
    """What an installation needs of the network, for one in a container that has none."""
    shutil.rmtree(WHEELS, ignore_errors=True)
    for path in for_installation():
        options = ["--require-hashes", "--only-binary", ":all:", "--no-deps", "--dest", str(WHEELS)]
        run(
            [
                str(VENV_PYTHON),
                "-m",
                "pip",
                "download",
                "--disable-pip-version-check",
                *options,
                "-r",
                str(path),
            ]
        )


def wanted_packages(*, for_tests: bool) -> list[str]:
    """Names of Debian packages for what is missing here."""
    wanted = []
    if importlib.util.find_spec("ensurepip") is None:
        wanted.append("python3-venv")
    if shutil.which("bwrap") is None and os.environ.get("HIVE_CAGE", "") in {"", "bubblewrap"}:
        wanted.append("bubblewrap")
    if for_tests:
        wanted += [package for package, program in TEST_PROGRAMS.items() if shutil.which(program) is None]
    return wanted


def debian_packages(wanted: list[str]) -> None:
    if not wanted:
        return
    install = [
        "apt-get",
        "install",
        "-y",
        "--no-install-recommends",
        "-o",
        "DPkg::Lock::Timeout=120",
        *wanted,
    ]
    line = f"apt-get install -y --no-install-recommends {' '.join(wanted)}"
    if shutil.which("apt-get") is None:
        raise SetUpError(
            f"this is missing: {' '.join(wanted)}",
            "install it with your system's package manager, then run this again",
        )
    if os.geteuid() != 0:
        raise SetUpError(f"this is missing: {' '.join(wanted)}", f"install it with:  sudo {line}")
    with progress(f"Debian packages ({' '.join(wanted)})"):
        try:
            run(install)
        except SetUpError:  # a fresh machine has no package lists yet, an old one has stale ones
            run(["apt-get", "update"])
            run(install)
    importlib.invalidate_caches()


# ---- how a step is known to be up to date


def digest(paths: Sequence[Path]) -> str:
    made = hashlib.sha256(str(HOME).encode())
    for path in paths:
        made.update(str(path.relative_to(HOME)).encode() + b"\0" + path.read_bytes() + b"\0")
    return made.hexdigest()


def project_digest() -> str:
    sources = [
        Path(folder) / name
        for top in ("libhive", "services")
        for folder, _, names in os.walk(HOME / top)
        for name in names
        if "__pycache__" not in folder
    ]
    return digest([HOME / "pyproject.toml", HOME / "README.md", *sorted(sources)])


# ---- running things, and saying so


def check_python() -> None:
    if sys.version_info < PYTHON_MIN:
        have = ".".join(map(str, sys.version_info[:3]))
        raise SetUpError(
            f"hyperhive needs Python 3.11 or newer; {sys.executable} is {have}",
            "choose another: make up PYTHON=/path/to/python3",
        )
    if Path(sys.prefix).resolve() == VENV.resolve():
        raise SetUpError(
            f"{sys.executable} belongs to .venv, which set-up itself makes and replaces",
            "run it with the system's python:  deactivate, or make up PYTHON=/usr/bin/python3",
        )


def check_checkout() -> None:
    if not os.access(HOME, os.W_OK):
        raise SetUpError(
            f"this directory is not yours to write to: {HOME}", "clone hyperhive into a directory of your own"
        )


def check_unused(why: str = CHANGED) -> None:
    """A hive that runs from here holds a shared lock: nothing is changed under its feet."""
    with suppress(FileNotFoundError), IN_USE.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SetUpError(
                f"a hive runs from this checkout, and {why}", "stop it first:  make down"
            ) from None


@contextmanager
def only_one() -> Iterator[None]:
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "setup.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up is running here; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        LOG.write_bytes(b"")
        yield


def pip(*arguments: str) -> None:
    options = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    run([str(VENV_PYTHON), "-m", "pip", "install", *options, *arguments])


def run(command: list[str]) -> None:
    """The user's own environment goes along: proxies and mirrors for apt and pip are set there."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "PYTHONSAFEPATH": "1"}
    environment.pop("PYTHONPATH", None)
    with LOG.open("ab") as log:
        start = log.tell()
        log.write(f"$ {' '.join(command)}\n".encode())
        log.flush()
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=HOME, check=False
        )
    if ended.returncode:
        said = LOG.read_bytes()[start:].decode(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        what = f"{Path(command[0]).name} ended with {ended.returncode}:"
        hint = f"the whole log is {LOG}; running this again goes on from here"
        raise SetUpError("\n  ".join([what, *said]), hint)


@contextmanager
def progress(title: str) -> Iterator[None]:
    """One line per step; on a terminal it counts the seconds."""
    began = time.monotonic()
    ended = threading.Event()
    live = sys.stdout.isatty()

    def count() -> None:
        while not ended.wait(TICK_SECONDS):
            say(f"\r  {title} ... {time.monotonic() - began:.0f} s", end="")

    say(f"  {title} ...", end="" if live else "\n")
    counter = threading.Thread(target=count, daemon=True)
    if live:
        counter.start()
    try:
        yield
    except BaseException:
        say(f"\r  {title}: failed after {time.monotonic() - began:.0f} s")
        raise
    else:
        say(
            f"\r\033[K  {title}: done in {time.monotonic() - began:.0f} s"
            if live
            else f"  {title}: done in {time.monotonic() - began:.0f} s"
        )
    finally:
        ended.set()
        if live:
            counter.join()


def say(text: str, end: str = "\n") -> None:
    sys.stdout.write(text + end)
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
