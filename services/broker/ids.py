"""Which ids certainly have not come before, without a look into the store.

An id begins with the instant at which it was made, so that a fresh one is greater than nearly all that are stored: those
which are not, or only a little, are remembered here. For any other the store is asked. Nobody's word is taken for anything:
who makes his ids in another way costs the broker these looks, and no more.
"""

from __future__ import annotations

from typing import Final

GREATEST: Final = "SELECT max(id) FROM mail"
REMEMBERED_MAX: Final = 4_096


class Ids:
    """Holds every stored id that is greater than a certain one."""

    def __init__(self) -> None:
        self._above = ""
        self._held: dict[str, None] = {}
        """In the order in which they came, which is nearly theirs: to sort them takes one walk."""

    def begin(self, greatest: str) -> None:
        """All that is stored now is not greater."""
        self._above = greatest

    def is_new(self, id: str) -> bool:
        """False when that is not certain."""
        return id > self._above and id not in self._held

    def add(self, id: str) -> None:
        """It is stored, or is about to be."""
        if id > self._above:
            self._held[id] = None
            if len(self._held) > REMEMBERED_MAX:
                self._forget()

    def _forget(self) -> None:
        ordered = sorted(self._held)
        half = len(ordered) // 2
        self._above, self._held = ordered[half - 1], dict.fromkeys(ordered[half:])
