from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from libhive.problems import BadRequest

UPSTREAM_URL = "https://api.anthropic.com"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    upstream_url: str = UPSTREAM_URL
    rehearsal: bool = True
    """False: without a credential every request is refused instead of rehearsed."""
    request_bytes_max: int = 32 * 1024 * 1024
    """What the Messages API itself takes."""
    rehearsal_bytes_max: int = 8 * 1024 * 1024
    """A rehearsed request is parsed in our own loop, which everybody shares."""
    upload_seconds_max: float = 60.0
    connect_seconds_max: float = 10.0
    silence_seconds_max: float = 300.0
    """How long the upstream may say nothing, in mid-stream too; the API pings far more often."""
    connections_per_agent_max: int = 64

    egress_connections_per_agent_max: int = 64
    egress_head_seconds_max: float = 10.0
    egress_lookup_seconds_max: float = 10.0
    egress_lookups_per_agent_max: int = 4
    egress_connect_seconds_max: float = 10.0
    egress_idle_seconds_max: float = 900.0
    """Of a connection on which neither end says anything."""
    egress_bytes_per_second_max: int = 64 * 1024 * 1024
    """Of one agent, over all its connections: all agents and the model's traffic share one loop."""
    egress_write_seconds: float = 1.0
    egress_log_rows_max: int = 1_000
    """Of one agent and verdict: who floods the log with refusals washes nothing else out of it."""
    egress_log_days: int = 30

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Settings:
        """HIVE_UPSTREAM_URL, HIVE_UPSTREAM_SILENCE_SECONDS, HIVE_REHEARSAL=on|off, HIVE_EGRESS_IDLE_SECONDS,
        HIVE_EGRESS_LOG_DAYS. Raises BadRequest."""
        return cls(
            upstream_url=_upstream(environ.get("HIVE_UPSTREAM_URL") or UPSTREAM_URL),
            rehearsal=_on("HIVE_REHEARSAL", environ.get("HIVE_REHEARSAL") or "on"),
            silence_seconds_max=_seconds(
                "HIVE_UPSTREAM_SILENCE_SECONDS", environ.get("HIVE_UPSTREAM_SILENCE_SECONDS") or "300"
            ),
            egress_idle_seconds_max=_seconds(
                "HIVE_EGRESS_IDLE_SECONDS", environ.get("HIVE_EGRESS_IDLE_SECONDS") or "900"
            ),
            egress_log_days=_days("HIVE_EGRESS_LOG_DAYS", environ.get("HIVE_EGRESS_LOG_DAYS") or "30"),
        )


def _upstream(text: str) -> str:
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment or url.username:
        raise BadRequest(
            f"HIVE_UPSTREAM_URL={text!r:.200} is not a base URL", f"the usual one is {UPSTREAM_URL}"
        )
    if url.scheme == "http" and not _is_loopback(url.hostname):
        raise BadRequest(
            f"HIVE_UPSTREAM_URL={text!r:.200} would send the credential in clear",
            "use https, or http on loopback",
        )
    return text.rstrip("/")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _on(variable: str, text: str) -> bool:
    if text not in ("on", "off"):
        raise BadRequest(f"{variable}={text!r:.80} is neither 'on' nor 'off'")
    return text == "on"


def _seconds(variable: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86_400:
        raise BadRequest(f"{variable}={text!r:.80} is not a number of seconds up to 86400")
    return seconds


def _days(variable: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:6]) <= 3_650):
        raise BadRequest(f"{variable}={text!r:.80} is not a number of days from 1 to 3650")
    return int(text)
