"""Everything that can be set, read once."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from libhive.problems import BadRequest

PORT_DEFAULT = 7000
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[0-9]{1,5})?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    port: int = PORT_DEFAULT
    bind: str = "127.0.0.1"
    more_hosts: tuple[str, ...] = ()
    """Names under which a reverse proxy or an ssh tunnel shows the dashboard, `name` or `name:port`."""

    link_seconds: int = 60
    session_days: int = 30
    sessions_max: int = 100

    body_bytes_max: int = 256 * 1024
    body_seconds_max: float = 10.0

    streams_max: int = 200
    streams_per_session_max: int = 32
    ring_events_max: int = 4_096
    ring_bytes_max: int = 8 * 1024 * 1024
    stream_send_seconds_max: float = 10.0
    """A browser that has not taken a chunk by then is dropped; it comes back and resumes, or refetches."""
    stream_chunk_bytes_max: int = 256 * 1024
    stream_keepalive_seconds: float = 15.0

    call_seconds: float = 2.0
    search_seconds: float = 5.0
    """A search may look for a while before it has found something."""
    slow_call_seconds: float = 15.0
    """For verbs that move cages or repositories, of a service that has just answered a ping."""
    ping_seconds: float = 1.0
    ping_unwatched_seconds: float = 5.0
    pong_seconds: float = 1.5
    refresh_seconds: float = 15.0

    messages_kept_max: int = 200
    lines_kept_max: int = 400

    page_seconds_max: float = 3.0
    """For a whole answer of the cage's, however it drips."""
    page_retry_seconds: float = 2.0
    page_bytes_max: int = 1024 * 1024
    page_event_bytes_max: int = 512 * 1024
    page_idle_seconds_max: float = 90.0
    ports_retry_seconds: float = 15.0
    sessions_check_seconds: float = 30.0

    @property
    def shift(self) -> int:
        """By how much the agents' ports move, so that two hives fit on one host."""
        return self.port - PORT_DEFAULT

    @property
    def cookie(self) -> str:
        """Cookies do not know ports: two hives on one host need two names."""
        return f"hive-session-{self.port}"

    def hosts(self, port: int) -> frozenset[str]:
        """Every Host header that is answered on this port."""
        own = {f"{name}:{port}" for name in LOOPBACK_HOSTS}
        named = {name if ":" in name else f"{name}:{port}" for name in self.more_hosts}
        return frozenset(own | named)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Raises BadRequest that names the variable."""
        return cls(
            port=_port(environ.get("HIVE_DASHBOARD_PORT") or str(PORT_DEFAULT)),
            more_hosts=_hosts(environ.get("HIVE_DASHBOARD_HOSTS", "")),
        )


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65_535:
        raise BadRequest(
            f"HIVE_DASHBOARD_PORT={text!r:.40} is not a port", "give a number from 1024 to 63000"
        )
    return int(text)


def _hosts(text: str) -> tuple[str, ...]:
    names = tuple(name.strip().lower() for name in text.split(",") if name.strip())
    for name in names:
        if not _HOST.fullmatch(name):
            raise BadRequest(
                f"HIVE_DASHBOARD_HOSTS: {name!r:.80} is not a host name",
                "give names like hive.example.org, comma-separated",
            )
    return names
