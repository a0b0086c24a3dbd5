"""Everything the cage is told from outside, read once, and every limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from libhive.names import MANAGER, AgentName, agent_name
from libhive.problems import BadRequest
from libhive.spec import AgentSpec

_PATH_DEFAULT = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    agent: AgentName
    manager: str
    doors: Path
    page: Path
    state: Path
    spec: AgentSpec
    generation: int
    claude: Path
    claude_version: str
    """The pinned one; another is refused."""
    pronouns: str = "she/her"
    path: str = _PATH_DEFAULT
    lang: str = "C.UTF-8"
    tz: str = ""

    batch_mails_max: int = 16
    """So many mails make one prompt; the rest joins."""
    recv_wait_ms: int = 15_000
    door_seconds_max: float = 10.0
    cage_verb_seconds_max: float = 30.0
    """Starting and stopping a cage is answered when it is done."""
    start_seconds_max: float = 60.0
    """From the CLI's start until its tools are connected; thirty that start at once on two cores take their time."""
    control_seconds_max: float = 10.0
    stop_seconds_max: float = 2.0
    """How long the CLI may take to end after SIGTERM."""
    drain_seconds_max: float = 1.0
    """How long a running turn is waited for when the harness is told to stop."""
    idle_seconds_max: float = 900.0
    """After so long without mail the CLI is stopped; it is resumed with the next one."""
    silence_seconds_max: float = 300.0
    """A turn without any sign of life for so long is reported; the model's stream is cut after as long a silence."""
    proxy_silence_seconds_max: float = 86_400.0
    """Only a belt: the proxy itself ends what is idle."""
    lock_seconds_max: float = 5.0
    line_bytes_max: int = 64 << 20
    """One event of the CLI: a picture that was read is one line."""
    events_kept_max: int = 50_000
    streams_max: int = 32

    @property
    def is_manager(self) -> bool:
        return self.agent == self.manager

    @property
    def socket(self) -> Path:
        return self.page / "page.sock"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Settings:
        """Raises BadRequest that names the variable."""
        return cls(
            agent=agent_name(_required(environ, "HIVE_AGENT")),
            manager=environ.get("HIVE_MANAGER") or MANAGER,
            doors=_directory(environ, "HIVE_DOORS", "/run/hive"),
            page=_directory(environ, "HIVE_PAGE", "/run/page"),
            state=_directory(environ, "HIVE_STATE", "/state"),
            spec=_spec(environ),
            generation=_number(environ, "HIVE_GENERATION"),
            claude=Path(_required(environ, "HIVE_CLAUDE")),
            claude_version=_required(environ, "HIVE_CLAUDE_VERSION"),
            pronouns=environ.get("HIVE_OPERATOR_PRONOUNS") or "she/her",
            path=environ.get("PATH") or _PATH_DEFAULT,
            lang=environ.get("LANG") or "C.UTF-8",
            tz=environ.get("TZ", ""),
        )


def _required(environ: Mapping[str, str], name: str) -> str:
    if not environ.get(name):
        raise BadRequest(
            f"{name} is not set", "a harness is started by its cage; see libhive/harness/settings.py"
        )
    return environ[name]


def _directory(environ: Mapping[str, str], name: str, default: str) -> Path:
    directory = Path(environ.get(name) or default)
    if not directory.is_dir():
        raise BadRequest(
            f"{name}={directory} is not a directory", "the cage binds it before it starts the harness"
        )
    return directory


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "0")
    if not text.isdecimal():
        raise BadRequest(f"{name}={text!r:.40} is not a number")
    return int(text)


def _spec(environ: Mapping[str, str]) -> AgentSpec:
    """HIVE_SPEC's file; HIVE_DEFAULT_MODEL, which the cage took from it, is what the operator sees and so wins."""
    path = Path(_required(environ, "HIVE_SPEC"))
    try:
        spec = msgspec.json.decode(path.read_bytes(), type=AgentSpec)
        if model := environ.get("HIVE_DEFAULT_MODEL"):
            spec = msgspec.convert(msgspec.to_builtins(spec) | {"model": model}, AgentSpec)
    except OSError as error:
        raise BadRequest(f"HIVE_SPEC={path} cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise BadRequest(f"HIVE_SPEC={path} is not an agent's spec: {error}") from error
    return spec
