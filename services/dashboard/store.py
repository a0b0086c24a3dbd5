"""Links and sessions, by the hash of their secret only: who reads this file can log in nowhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from libhive.sqlite import Database

MIGRATIONS = (
    """
    CREATE TABLE links (
        hash TEXT PRIMARY KEY,
        expires_ms INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE sessions (
        hash TEXT PRIMARY KEY,
        created_ms INTEGER NOT NULL,
        expires_ms INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
)


@dataclass(frozen=True, slots=True)
class Session:
    hashed: str
    created_ms: int
    expires_ms: int


class Store:
    def __init__(self, path: Path) -> None:
        self._database = Database.open(path, MIGRATIONS)

    def close(self) -> None:
        self._database.close()

    async def add_link(self, hashed: str, expires_ms: int, now: int) -> None:
        """Keeps a new link; forgets those that nobody used in time."""

        def work(connection: Connection) -> None:
            connection.exec_driver_sql("DELETE FROM links WHERE expires_ms <= ?", (now,))
            connection.exec_driver_sql(
                "INSERT INTO links (hash, expires_ms) VALUES (?, ?)", (hashed, expires_ms)
            )

        await self._database.write(work)

    async def spend_link(self, hashed: str, session: Session, sessions_max: int) -> bool:
        """Turns a link into a session, in one transaction: of two browsers with the same link, one gets
        in."""

        def work(connection: Connection) -> bool:
            now = session.created_ms
            spent = connection.exec_driver_sql(
                "DELETE FROM links WHERE hash = ? AND expires_ms > ?", (hashed, now)
            )
            if spent.rowcount != 1:
                return False
            connection.exec_driver_sql("DELETE FROM sessions WHERE expires_ms <= ?", (now,))
            connection.exec_driver_sql(
                "DELETE FROM sessions WHERE hash IN"
                " (SELECT hash FROM sessions ORDER BY created_ms DESC LIMIT -1 OFFSET ?)",
                (sessions_max - 1,),
            )
            connection.exec_driver_sql(
                "INSERT INTO sessions (hash, created_ms, expires_ms) VALUES (?, ?, ?)",
                (session.hashed, session.created_ms, session.expires_ms),
            )
            return True

        return await self._database.write(work)

    async def drop_session(self, hashed: str) -> None:
        await self._database.write(
            lambda connection: (
                connection.exec_driver_sql("DELETE FROM sessions WHERE hash = ?", (hashed,)).rowcount
            )
        )

    def session(self, hashed: str) -> Session | None:
        row = self._database.read(
            lambda connection: connection.exec_driver_sql(
                "SELECT hash, created_ms, expires_ms FROM sessions WHERE hash = ?", (hashed,)
            ).first()
        )
        return Session(*row) if row else None
