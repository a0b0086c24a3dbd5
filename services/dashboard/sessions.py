"""Who the browser is: a one-time link becomes a session, a session is a cookie."""

from __future__ import annotations

import hashlib
import re
import secrets

from libhive.clock import Clock
from libhive.messages.dashboard import Link
from libhive.problems import NotAllowed
from services.dashboard.settings import Settings
from services.dashboard.store import Session, Store

TOKEN_BYTES = 32
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")


class Sessions:
    def __init__(self, store: Store, settings: Settings, clock: Clock) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock

    async def make_link(self) -> Link:
        """The token stands behind the `#`, which a browser keeps to itself: it is in no log and no
        Referer."""
        token, now = secrets.token_urlsafe(TOKEN_BYTES), self._clock()
        expires_ms = now + self._settings.link_seconds * 1000
        await self._store.add_link(_hash(token), expires_ms, now)
        return Link(url=f"http://127.0.0.1:{self._settings.port}/login#{token}", expires_ms=expires_ms)

    async def log_in(self, token: str) -> str:
        """The secret of a new session. Raises NotAllowed for a link that is spent, too old or made up."""
        secret, now = secrets.token_urlsafe(TOKEN_BYTES), self._clock()
        session = Session(_hash(secret), now, now + self._settings.session_days * 86_400_000)
        if not _TOKEN.fullmatch(token) or not await self._store.spend_link(
            _hash(token), session, self._settings.sessions_max
        ):
            raise NotAllowed(
                "this link is used up or too old", "get a new one in a terminal: hive-admin link"
            )
        return secret

    async def log_out(self, session: Session) -> None:
        await self._store.drop_session(session.hashed)

    def find(self, cookie_header: str) -> Session | None:
        """The session that one of the request's cookies stands for, if it is still good."""
        for pair in cookie_header.split(";"):
            name, _, value = pair.strip().partition("=")
            if name == self._settings.cookie and _TOKEN.fullmatch(value):
                return self.alive(_hash(value))
        return None

    def alive(self, hashed: str) -> Session | None:
        session = self._store.session(hashed)
        return session if session and session.expires_ms > self._clock() else None

    def cookie(self, secret: str) -> str:
        """The Set-Cookie of a session; of none, when `secret` is empty. Not `Secure`: loopback is plain
        HTTP."""
        age = self._settings.session_days * 86_400 if secret else 0
        return f"{self._settings.cookie}={secret}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict"


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
