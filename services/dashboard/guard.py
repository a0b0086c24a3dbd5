"""In front of every route of every port: nothing is asked of a service before these questions are answered.

Host      exactly one, from a closed list: a name that an attacker's DNS points at 127.0.0.1 is not on it.
Origin    whatever changes something must come from a page of this very port: agents' pages are other origins.
Session   everything but the login page and the static files.
Body      JSON by its content type (a cross-site form cannot send that), and small.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from libhive.problems import Problem
from services.dashboard.replies import HEADERS, problem_reply
from services.dashboard.sessions import Sessions

SAFE_METHODS = frozenset({"GET", "HEAD"})
PUBLIC = frozenset({("GET", "/login"), ("POST", "/api/login")})
"""What needs no session, besides /static/."""


class BadHost(Problem):
    code: ClassVar[str] = "bad-host"


class BadOrigin(Problem):
    code: ClassVar[str] = "bad-origin"


class NoSession(Problem):
    code: ClassVar[str] = "no-session"
    default_hint: ClassVar[str] = "get a login link in a terminal: hive-admin link"


class TooLarge(Problem):
    code: ClassVar[str] = "too-large"


class WrongType(Problem):
    code: ClassVar[str] = "wrong-type"


class Guard:
    def __init__(
        self, app: ASGIApp, *, hosts: frozenset[str], sessions: Sessions, login_port: int, body_bytes_max: int
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._sessions = sessions
        self._login_port = login_port
        self._body_bytes_max = body_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # no websockets here; the server turns an unanswered one into a refusal
        sender = _with_headers(send)
        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, sender)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        method, path = scope["method"], scope["path"]
        try:
            check_host(headers, self._hosts)
            check_site(
                headers,
                self._hosts,
                safe=method in SAFE_METHODS,
                page=not path.startswith(("/api/", "/events/")),
            )
            if method not in SAFE_METHODS:
                check_body(headers, self._body_bytes_max)
            if not is_public(method, path):
                return self._session_refusal(scope, headers)
        except Problem as problem:
            return problem_reply(problem)
        return None

    def _session_refusal(self, scope: Scope, headers: Headers) -> Response | None:
        session = self._sessions.find(headers.get("cookie", ""))
        if session is not None:
            scope["session"] = session
            return None
        if scope["path"] == "/" and scope["method"] in SAFE_METHODS:
            name = headers["host"].rpartition(":")[0]
            return RedirectResponse(f"http://{name}:{self._login_port}/login", 303)
        return problem_reply(NoSession("this browser is not logged in"))


def is_public(method: str, path: str) -> bool:
    return (method, path) in PUBLIC or (method in SAFE_METHODS and path.startswith("/static/"))


def check_host(headers: Headers, hosts: frozenset[str]) -> None:
    given = headers.getlist("host")
    if len(given) != 1 or given[0].lower() not in hosts:
        shown = given[0] if given else "none"
        raise BadHost(
            f"the host name {shown!r:.80} is not one of this dashboard's",
            "set HIVE_DASHBOARD_HOSTS to allow another",
        )


def check_site(headers: Headers, hosts: frozenset[str], *, safe: bool, page: bool) -> None:
    """A page may be opened from anywhere; data only by our own pages; a change needs positive proof of
    that."""
    sites, origins = headers.getlist("sec-fetch-site"), headers.getlist("origin")
    if safe and page:
        return
    allowed_sites = {"same-origin", "none"} if safe else {"same-origin"}
    good_site = len(sites) == 1 and sites[0] in allowed_sites
    good_origin = len(origins) == 1 and _origin_is(origins[0], headers["host"].lower(), hosts)
    if (sites and not good_site) or (origins and not good_origin) or not (safe or good_site or good_origin):
        raise BadOrigin(
            "this request does not come from this dashboard's own page",
            "open the dashboard itself and try there",
        )


def _origin_is(origin: str, host: str, hosts: Iterable[str]) -> bool:
    return host in hosts and origin.lower() in (f"http://{host}", f"https://{host}")


def check_body(headers: Headers, bytes_max: int) -> None:
    kinds = headers.getlist("content-type")
    if len(kinds) != 1 or kinds[0].partition(";")[0].strip().lower() != "application/json":
        raise WrongType("the body must be JSON", "send it with the header Content-Type: application/json")
    length = headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > 12 or int(length) > bytes_max:
        raise TooLarge(f"the body is larger than {bytes_max} bytes")


def _with_headers(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
        await send(message)

    return with_headers
