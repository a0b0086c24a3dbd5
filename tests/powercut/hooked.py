"""The real broker with other pragmas: `python -m tests.powercut.hooked synchronous=NORMAL wal_autocheckpoint=40`.

Each connection gets them before anybody else has it, and from then on SQLite's authorizer ignores whoever would set
them again. So the product is what runs, and it need not offer a switch that makes it lose mail. `redo=unsynced` is for the
redo log, which is no pragma of SQLite's.
"""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any

import pysqlite3.dbapi2

from libhive import redo

_connect = pysqlite3.dbapi2.connect
_PRAGMAS = dict(argument.split("=") for argument in sys.argv[1:])


def connect(*arguments: Any, **named: Any) -> Any:
    connection = _connect(*arguments, **named)
    for name, value in _PRAGMAS.items():
        connection.execute(f"PRAGMA {name} = {value}").close()
    connection.set_authorizer(_authorize)
    return connection


def _authorize(action: int, name: str | None, value: str | None, *_: object) -> int:
    sets = action == pysqlite3.dbapi2.SQLITE_PRAGMA and value is not None
    answer: int = pysqlite3.dbapi2.SQLITE_OK
    if sets and str(name).lower() in _PRAGMAS:
        answer = pysqlite3.dbapi2.SQLITE_IGNORE
    return answer


def _never_sync_the_redo_log() -> None:
    redo.os = SimpleNamespace(**{**vars(os), "fdatasync": lambda descriptor: None})  # type: ignore[assignment]


if __name__ == "__main__":
    if _PRAGMAS.pop("redo", "") == "unsynced":
        _never_sync_the_redo_log()
    pysqlite3.connect = pysqlite3.dbapi2.connect = connect
    from services.broker.__main__ import main

    main()
