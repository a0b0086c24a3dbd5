"""What a cage is to be: everything a back end needs to know, decided before it starts anything."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import libhive
from libhive.names import MANAGER, AgentName
from libhive.spec import AgentSpec
from services.lifecycle.cages import limits
from services.lifecycle.cages.cgroups import Group

NIX_PATH = "/nix/env/bin"
LIBRARY = "/opt/hive/lib"
VENV = "/opt/hive/venv"
DEFAULT_PROGRAM = ("-m", "libhive.harness")


@dataclass(frozen=True, slots=True)
class Bind:
    """A file or directory of the host that is to be seen in the cage."""

    source: Path
    target: str
    writable: bool = False
    is_file: bool = False


@dataclass(frozen=True, slots=True)
class Installation:
    """The installed hyperhive as a cage sees it: interpreter, virtual environment, library. Never the clone."""

    python: str
    """Path of the interpreter in the cage."""
    python_path: str
    """What PYTHONPATH has to be in the cage; empty when libhive lies within the virtual environment."""
    binds: tuple[Bind, ...]

    @classmethod
    def of_this_process(cls) -> Installation:
        return cls.laid_out(
            executable=Path(sys.executable),
            prefix=Path(sys.prefix),
            base_prefix=Path(sys.base_prefix),
            package=Path(libhive.__file__).parent,
        )

    @classmethod
    def laid_out(cls, *, executable: Path, prefix: Path, base_prefix: Path, package: Path) -> Installation:
        python, python_path = str(executable), ""
        bases = dict.fromkeys(
            (base_prefix, base_prefix.resolve())
        )  # a virtual environment's links name it by its path
        binds = [Bind(base, str(base)) for base in bases if not base.is_relative_to("/usr")]
        if prefix != base_prefix:
            binds.append(Bind(prefix, VENV))
            python = str(VENV / executable.relative_to(prefix))
        if not package.is_relative_to(prefix):
            binds.append(Bind(package, f"{LIBRARY}/{package.name}"))
            python_path = LIBRARY
        return cls(python, python_path, tuple(binds))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One generation of one agent's cage. All paths are the host's."""

    name: AgentName
    generation: int
    revision: int
    uid: int
    spec: AgentSpec
    doors: Path
    page: Path
    state: Path
    run: Path
    log: Path
    claude: Path | None
    claude_version: str
    operator_pronouns: str
    root: Path | None = None
    """The tree whose `usr` and `etc` the cage has in the place of the host's."""
    nix: Path | None = None
    """What the cage has as /nix; the packages that were asked for are in its `env/bin`."""
    program: tuple[str, ...] = DEFAULT_PROGRAM
    """Arguments of the cage's Python."""
    groups: tuple[Group, ...] = ()
    """The control groups of its own; what they do not hold is held by its processes' own limits."""

    @property
    def by_rlimit(self) -> list[str]:
        placed = {limit for group in self.groups for limit in group.limits}
        return [limit for limit in limits.BY_RLIMIT if limit not in placed]

    @property
    def spec_file(self) -> Path:
        return self.run / "spec.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """Where the program in the cage finds its things."""

    doors: str = "/run/hive"
    page: str = "/run/page"
    state: str = "/state"
    spec: str = "/etc/hive/spec.json"
    claude: str = "/opt/hive/claude"
    python_path: str = ""


def environment(plan: Plan, inside: Inside) -> dict[str, str]:
    """The whole environment of the cage's program. The agent's own variables are not in it: they are for the model's
    tools, not for the harness, which finds them in the spec."""
    variables = {
        "HIVE_AGENT": plan.name,
        "HIVE_CLAUDE": inside.claude if plan.claude else "",
        "HIVE_CLAUDE_VERSION": plan.claude_version,
        "HIVE_DEFAULT_MODEL": plan.spec.model,
        "HIVE_DOORS": inside.doors,
        "HIVE_GENERATION": str(plan.generation),
        "HIVE_MANAGER": MANAGER,
        "HIVE_OPERATOR_PRONOUNS": plan.operator_pronouns,
        "HIVE_PAGE": inside.page,
        "HIVE_SPEC": inside.spec,
        "HIVE_STATE": inside.state,
        "HOME": inside.state,
        "LANG": "C.UTF-8",
        "LOGNAME": "agent",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "PYTHONNOUSERSITE": "1",  # HOME is the agent's own: it could put modules into its harness by it
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "SHELL": "/bin/bash",
        "USER": "agent",
    }
    if plan.spec.allowed_recipients is not None:
        variables["HIVE_ALLOWED_RECIPIENTS"] = ",".join(plan.spec.allowed_recipients)
    if plan.nix:
        variables["PATH"] = f"{NIX_PATH}:{variables['PATH']}"
    if inside.python_path:
        variables["PYTHONPATH"] = inside.python_path
    return variables
