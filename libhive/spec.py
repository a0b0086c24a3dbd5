"""What an agent is: `agent.toml` and `prompt.md` of its config repository, resolved to one typed `AgentSpec`.

Only known fields in known files: what is not here cannot take effect, and so needs no reviewer's eye.
"""

from __future__ import annotations

import re
import tomllib
from typing import Annotated, Any, Literal

import msgspec

from libhive import destinations
from libhive.names import MANAGER, Name
from libhive.problems import BadRequest

AGENT_TOML = "agent.toml"
PROMPT_MD = "prompt.md"
FILES = (AGENT_TOML, PROMPT_MD)
TOML_CHARACTERS_MAX = 20_000
"""A dotted key of three times that length keeps tomllib busy for seconds."""

KEY_DOTS_MAX = 8
_PART = r"""(?:[\w-]+|"[^"\n]*"|'[^'\n]*')"""
_TOKEN = re.compile(rf"(?P<deep>{_PART}(?:[ \t]*\.[ \t]*{_PART}){{{KEY_DOTS_MAX + 1}}})|{_PART}|.", re.DOTALL)
"""tomllib takes a time that grows with the square of a dotted key's parts; a string is one part, whatever is in it."""

RootKind = Literal["debian", "host", "nix"]
ModelName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._\[\]-]{0,79}\Z")]
OptionalModelName = Annotated[str, msgspec.Meta(pattern=r"^(?:[A-Za-z0-9][A-Za-z0-9._\[\]-]{0,79})?\Z")]
PackageName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9+.-]{0,79}\Z")]
EnvName = Annotated[str, msgspec.Meta(pattern=r"^[A-Z][A-Z0-9_]{0,63}\Z")]
EnvText = Annotated[str, msgspec.Meta(max_length=4_096, pattern=r"^[^\x00]*\Z")]
InputsName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._:+-]{0,40}\Z")]
ServerName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,30}\Z")]

RESERVED_ENV_PREFIXES = (
    "ANTHROPIC_",
    "CLAUDE_",
    "HIVE_",
    "LD_",
    "PYTHON",
    "XDG_",
    "DISABLE_AUTOUPDATER",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "IS_SANDBOX",
    "NO_PROXY",
)

EgressMode = Literal["none", "allow", "learn"]
ENTRIES_MAX = 256


class McpServer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An extra MCP server of the agent's own: a command that runs inside its cage and speaks on its pipes."""

    command: Annotated[str, msgspec.Meta(min_length=1, max_length=400)]
    args: list[str] = []
    env: dict[EnvName, EnvText] = {}


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a cage may take of its host."""

    memory_mb: Annotated[int, msgspec.Meta(ge=128, le=1_048_576)] = 2048
    tasks: Annotated[int, msgspec.Meta(ge=32, le=32_768)] = 512
    """Processes and threads."""
    cpu_percent: Annotated[int, msgspec.Meta(ge=5, le=25_600)] = 200
    """Of one processor: 200 is two of them."""


class Egress(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The agent's way out: nothing, what is listed, or (`learn`) all that is public and what is listed."""

    mode: EgressMode = "none"
    allow: Annotated[
        list[Annotated[str, msgspec.Meta(max_length=destinations.ENTRY_CHARACTERS_MAX)]],
        msgspec.Meta(max_length=ENTRIES_MAX),
    ] = []

    def __post_init__(self) -> None:
        """Raises ValueError, which msgspec makes its own, for an entry that is not one."""
        for at, text in enumerate(self.allow):
            destinations.entry(text)
            if text in self.allow[:at]:
                raise ValueError(f"{text!r} is listed twice")


class AgentSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One agent's whole configuration, as lifecycle runs it and the operator approved it."""

    prompt: str = ""
    model: ModelName = "haiku"
    allowed_recipients: list[Name] | None = None
    """None: everybody."""
    root: RootKind = "host"
    """Which builder makes what the cage has for its `/usr`; `packages` is its input."""
    inputs: InputsName = ""
    """Names the state of the package sources that the root is built from. Another one builds it anew."""
    packages: list[PackageName] = []
    env: dict[EnvName, EnvText] = {}
    mcp_servers: dict[ServerName, McpServer] = {}
    limits: Limits = Limits()
    egress: Egress = Egress()


LIVE_FIELDS = ("allowed_recipients", "egress")
"""What is enforced outside of the cage, and so can change while it runs."""


def only_live(before: AgentSpec, after: AgentSpec) -> bool:
    """Whether they differ, and in nothing for which a cage has to be started anew."""
    kept = {field: getattr(before, field) for field in LIVE_FIELDS}
    return before != after and msgspec.structs.replace(after, **kept) == before


def resolve(files: dict[str, str]) -> AgentSpec:
    """The files of a config repository as a spec.

    Raises BadRequest that names the file, and the field where it can.
    """
    for path in files:
        if path not in FILES:
            raise BadRequest(
                f"{path!r:.120} is not a file of a configuration", f"the files are {' and '.join(FILES)}"
            )
    if len(files.get(AGENT_TOML, "")) > TOML_CHARACTERS_MAX:
        raise BadRequest(f"{AGENT_TOML} has more than {TOML_CHARACTERS_MAX} characters")
    if any(token.lastgroup == "deep" for token in _TOKEN.finditer(files.get(AGENT_TOML, ""))):
        raise BadRequest(f"{AGENT_TOML} has a key with more than {KEY_DOTS_MAX} dots")
    try:
        table: dict[str, Any] = tomllib.loads(files.get(AGENT_TOML, ""))
    except (
        ValueError,
        RecursionError,
    ) as error:  # tomllib lets a number of 5,000 digits and deep nesting through
        raise BadRequest(f"{AGENT_TOML} is not TOML: {error}") from error
    if "prompt" in table:
        raise BadRequest(f"{AGENT_TOML} has a field `prompt`", f"the prompt is the file {PROMPT_MD}")
    try:
        spec = msgspec.convert(table | {"prompt": files.get(PROMPT_MD, "")}, AgentSpec)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{AGENT_TOML}: {error}", "the fields are in docs/configuration.md") from error
    for name in [*spec.env, *(name for server in spec.mcp_servers.values() for name in server.env)]:
        if name.startswith(RESERVED_ENV_PREFIXES) or name == "PATH":
            raise BadRequest(f"{AGENT_TOML}: the environment variable {name} is the hive's own")
    return spec


def files_for(prompt: str, model: str = "", packages: list[str] | None = None) -> dict[str, str]:
    """The files of a new agent with these settings."""
    lines = [f"model = {_toml_text(model or 'haiku')}"]
    if packages:
        lines.append(f"packages = [{', '.join(_toml_text(name) for name in packages)}]")
    return {AGENT_TOML: "\n".join(lines) + "\n", PROMPT_MD: prompt.rstrip() + "\n"}


def _toml_text(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


_EGRESS_TABLE = re.compile(
    r"^[ \t]*\[[ \t]*egress[ \t]*\][^\n]*\n?(?:(?![ \t]*\[)[^\n]*\n|(?![ \t]*\[)[^\n]+\Z)*", re.MULTILINE
)
_EGRESS_KEYS = re.compile(r"^[ \t]*egress[ \t]*(?:\.[^\n]*|=[^\n]*)(?:\n|\Z)", re.MULTILINE)


def with_egress(files: dict[str, str], egress: Egress) -> dict[str, str]:
    """The files with this way out instead of theirs, and all else as its author wrote it.

    Raises BadRequest with the lines to write by hand when the text is such that this cannot be done safely.
    """
    before = files.get(AGENT_TOML, "")
    table = _egress_table(egress)
    body = _EGRESS_KEYS.sub("", _EGRESS_TABLE.sub("", before)).rstrip("\n")
    after = {**files, AGENT_TOML: f"{body}\n\n{table}" if body else table}
    wanted = msgspec.structs.replace(resolve(files), egress=egress)
    try:
        if resolve(after) == wanted:
            return after
    except BadRequest:
        pass
    raise BadRequest(
        f"[egress] cannot be replaced in this {AGENT_TOML} without touching the rest",
        f"write by hand:\n{table}",
    )


def _egress_table(egress: Egress) -> str:
    entries = "".join(f"    {_toml_text(text)},\n" for text in egress.allow)
    return f'[egress]\nmode = "{egress.mode}"\nallow = [\n{entries}]\n'


MANAGER_FILES = files_for(
    f"""You are {MANAGER}, the manager of this hive. You keep a swarm of agents healthy for one human operator.

- When the operator wants a new agent, write a clear prompt for it and call `request_spawn`. She approves it in her browser.
- When an agent needs something (a package, another model, another prompt), read its configuration with `read_config`,
  propose the smallest change that helps with `propose_config`, and say why.
- You are woken when a proposal is decided and when a deploy has ended. Tell whoever is waiting for it.
- Never promise what you have not done. When you do not know, ask the operator.
"""
)
