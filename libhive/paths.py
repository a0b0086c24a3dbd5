"""Where everything is. The only module that knows the layout of the run and state directories."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from libhive.names import AgentName
from libhive.problems import BadRequest

SOCKET_PATH_BYTES_MAX = 107
"""`sun_path` has 108 bytes, the last one for NUL; libzmq refuses a longer one as well."""
_LONGEST_SOCKET = "/agents/" + "x" * 31 + "/lifecycle.sock"


@dataclass(frozen=True, slots=True)
class Paths:
    run: Path
    state: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Paths:
        """HIVE_RUN_DIR and HIVE_STATE_DIR, or the places that are usual for root and for everybody else.

        Raises BadRequest for a path that is not absolute, or too long to hold a socket.
        """
        run = environ.get("HIVE_RUN_DIR") or _default_run(environ)
        state = environ.get("HIVE_STATE_DIR") or _default_state(environ)
        return cls(
            run=_checked("HIVE_RUN_DIR", run, for_sockets=True), state=_checked("HIVE_STATE_DIR", state)
        )

    def bus(self, service: str) -> Path:
        return self.run / "bus" / f"{service}.sock"

    def events(self, service: str) -> Path:
        return self.run / "bus" / f"{service}.events"

    def lock(self, service: str) -> Path:
        return self.run / "bus" / f"{service}.lock"

    def doors(self, agent: AgentName) -> Path:
        return self.run / "agents" / agent

    def door(self, agent: AgentName, service: str) -> Path:
        return self.doors(agent) / f"{service}.sock"

    def page_dir(self, agent: AgentName) -> Path:
        return self.run / "pages" / agent

    def page(self, agent: AgentName) -> Path:
        return self.page_dir(agent) / "page.sock"

    def cage(self, agent: AgentName) -> Path:
        return self.run / "cages" / agent

    def own(self, service: str) -> Path:
        return self.state / service

    def database(self, service: str) -> Path:
        return self.own(service) / f"{service}.sqlite"

    def agent_state(self, agent: AgentName) -> Path:
        return self.state / "agents" / agent

    def config(self, agent: AgentName) -> Path:
        return self.state / "config" / f"{agent}.git"

    @property
    def archive(self) -> Path:
        """The repositories of agents that were purged. Beside the others: what moves from one directory of a unit's to another
        crosses a mount, and cannot be renamed."""
        return self.state / "config" / "archive"

    @property
    def roots(self) -> Path:
        """What agents' cages have for their `/usr` when it is not the host's."""
        return self.state / "roots"

    @property
    def builds(self) -> Path:
        """What roots are wanted, for the builder of an installation to read."""
        return self.state / "builds"

    @property
    def logs(self) -> Path:
        return self.state / "logs"


def is_given(directory: Path) -> bool:
    """Whether an installation made it, for services of which each has a user of its own: root's, and for their group to
    write. What lies in it is reached by whoever can enter the directory above, which the installation closed to others."""
    if os.geteuid() == 0:
        return False
    try:
        found = directory.stat()
    except FileNotFoundError:
        return False
    return found.st_uid == 0 and bool(found.st_mode & stat.S_IWGRP)


def make_private(directory: Path, mode: int = 0o700) -> Path:
    """The directory, made with exactly this mode whatever the umask; its parents are only ever passed through."""
    directory.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    directory.mkdir(mode=mode, exist_ok=True)
    if directory.stat().st_mode & 0o777 != mode:
        directory.chmod(mode)
    return directory


def _default_run(environ: Mapping[str, str]) -> str:
    if os.geteuid() == 0:
        return "/run/hyperhive"
    return str(Path(environ.get("XDG_RUNTIME_DIR") or f"/tmp/hyperhive-{os.geteuid()}") / "hyperhive")  # noqa: S108


def _default_state(environ: Mapping[str, str]) -> str:
    if os.geteuid() == 0:
        return "/var/lib/hyperhive"
    home = Path(environ.get("HOME") or Path.home())
    return str(Path(environ.get("XDG_STATE_HOME") or home / ".local/state") / "hyperhive")


def _checked(variable: str, text: str, *, for_sockets: bool = False) -> Path:
    path = Path(text)
    if not path.is_absolute() or "\0" in text or ".." in path.parts:
        raise BadRequest(
            f"{variable}={text!r:.200} is not an absolute path",
            "give a path that starts with '/' and has no '..'",
        )
    if for_sockets and len(os.fsencode(text) + _LONGEST_SOCKET.encode()) > SOCKET_PATH_BYTES_MAX:
        room = SOCKET_PATH_BYTES_MAX - len(_LONGEST_SOCKET)
        raise BadRequest(
            f"{variable}={text!r:.200} is too long: the kernel ends a socket's path at {SOCKET_PATH_BYTES_MAX} bytes",
            f"choose a path of at most {room} bytes",
        )
    return path
