"""The supervisor's configuration as text: a pure function, compared with a golden file."""

from __future__ import annotations

import shlex
from pathlib import Path

from libhive.embedded.settings import SERVICES, Settings
from libhive.problems import BadRequest

STOP_SECONDS = 10
LOG_BYTES_MAX = "5MB"
LOG_BACKUPS = 2
FOR_EVER = 1_000_000
"""A service that fails at once is tried again for ever, each time a second later than the time before."""


def config(settings: Settings, *, as_root: bool) -> str:
    sections = [_supervisord(settings, as_root=as_root)]
    sections += [_service(settings, name, priority) for priority, name in enumerate(SERVICES, 1)]
    return "\n".join(sections)


def _supervisord(settings: Settings, *, as_root: bool) -> str:
    return f"""\
[supervisord]
nodaemon=true
silent=true
{"user=root" + chr(10) if as_root else ""}identifier=hyperhive
logfile={_path(settings.log("supervisor"))}
logfile_maxbytes={LOG_BYTES_MAX}
logfile_backups={LOG_BACKUPS}
pidfile={_path(settings.own / "supervisord.pid")}
childlogdir={_path(settings.paths.logs)}
minfds=256
minprocs=64
"""


def _service(settings: Settings, name: str, priority: int) -> str:
    return f"""\
[program:{name}]
command=setpriv --pdeathsig TERM -- {_path(shlex.quote(settings.python))} -m services.{name}
directory={_path(settings.paths.state)}
priority={priority}
autorestart=true
startsecs=1
startretries={FOR_EVER}
stopwaitsecs={STOP_SECONDS}
redirect_stderr=true
stdout_logfile={_path(settings.log(name))}
stdout_logfile_maxbytes={LOG_BYTES_MAX}
stdout_logfile_backups={LOG_BACKUPS}
"""


def _path(path: Path | str) -> str:
    """As its parser wants it: `%` expands, and ` ;` or ` #` begins a comment, for which it has no escape."""
    text = str(path)
    if any(sign in text for sign in (" ;", " #", "\n", "\r")):
        raise BadRequest(f"the path {text!r} cannot be used", "choose one without ' ;', ' #' and line breaks")
    return text.replace("%", "%%")
