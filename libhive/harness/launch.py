"""The launch line of `claude`, as a pure function: argv, environment, and the file with its tool servers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libhive.harness.procs import MARK
from libhive.spec import McpServer

TOOLS = "Bash,Read,Edit,Write,Grep,Glob"
API_RETRIES_MAX = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    claude: Path
    state: Path
    model: str
    session: str
    resume: bool
    system_prompt: str
    api_url: str
    """The forwarder on loopback."""
    api_word: str
    """Made up: the CLI wants one, and the gateway knows who speaks by the socket."""
    proxy_url: str
    """The way out for what the CLI runs; the CLI's own requests go to loopback, past it."""
    mcp_url: str
    mcp_token: str
    mcp_servers: Mapping[str, McpServer]
    path: str
    lang: str
    tz: str
    env: Mapping[str, str]
    as_root: bool

    @property
    def work(self) -> Path:
        return self.state / "work"

    @property
    def config(self) -> Path:
        return self.state / "claude"

    @property
    def mcp_file(self) -> Path:
        return self.state / "run" / "mcp.json"

    @property
    def private_directories(self) -> tuple[Path, ...]:
        return self.work, self.config, self.mcp_file.parent, self.state / "home", self.state / "tmp"


def argv(launch: Launch) -> list[str]:
    """The tool servers go by a file: everybody on the host may read a process's arguments."""
    return [
        str(launch.claude), "-p",
        "--input-format", "stream-json", "--output-format", "stream-json", "--verbose", "--replay-user-messages",
        "--model", launch.model,
        "--tools", TOOLS,
        "--setting-sources", "",  # else a repository's own hooks would run
        "--strict-mcp-config", "--mcp-config", str(launch.mcp_file),
        "--permission-mode", "bypassPermissions",  # the cage is the border
        "--system-prompt-snapshot", "off", "--append-system-prompt", launch.system_prompt,
        "--resume" if launch.resume else "--session-id", launch.session,
    ]  # fmt: skip


def environment(launch: Launch) -> dict[str, str]:
    """An allow-list. The agent's own variables come first, so that they replace nothing of ours."""
    fixed = {
        "PATH": launch.path,
        "LANG": launch.lang,
        "HOME": str(launch.state / "home"),
        "CLAUDE_CONFIG_DIR": str(launch.config),
        "XDG_RUNTIME_DIR": str(launch.mcp_file.parent),
        "CLAUDE_CODE_TMPDIR": str(launch.state / "tmp"),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
        "CLAUDE_CODE_EMIT_SESSION_STATE_EVENTS": "1",
        "CLAUDE_CODE_MAX_RETRIES": str(API_RETRIES_MAX),
        "ANTHROPIC_BASE_URL": launch.api_url,
        "ANTHROPIC_AUTH_TOKEN": launch.api_word,
        MARK: str(launch.state),
        **way_out(launch.proxy_url),
    }
    timezone = {"TZ": launch.tz} if launch.tz else {}
    sandbox = (
        {"IS_SANDBOX": "1"} if launch.as_root else {}
    )  # else the CLI refuses to skip permissions as root
    return {**launch.env, **timezone, **fixed, **sandbox}


def way_out(proxy_url: str) -> dict[str, str]:
    """Programs differ in which case they read; curl takes HTTP_PROXY in small letters only. The cage's own loopback is not
    behind the proxy: the model and the hive's tools are there, and what the agent itself may serve."""
    proxies = {"HTTP_PROXY": proxy_url, "HTTPS_PROXY": proxy_url, "NO_PROXY": "127.0.0.1,localhost,::1"}
    return {**proxies, **{name.lower(): value for name, value in proxies.items()}}


def mcp_config(launch: Launch) -> dict[str, Any]:
    """The hive's own tools, and beside them those that the agent's configuration adds."""
    out = way_out(launch.proxy_url)
    servers: dict[str, Any] = {
        name: {"type": "stdio", "command": server.command, "args": server.args, "env": {**server.env, **out}}
        for name, server in launch.mcp_servers.items()
    }
    servers["hive"] = {
        "type": "http",
        "url": launch.mcp_url,
        "headers": {"Authorization": f"Bearer {launch.mcp_token}"},
        "alwaysLoad": True,
    }
    return {"mcpServers": servers}
