"""Words to look for: from what a person types to what FTS5 understands, and the same match for a text that is not in
the index yet."""

from __future__ import annotations

import re
import unicodedata
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import pysqlite3.dbapi2

from libhive.problems import BadRequest

TERMS_MAX: Final = 32
_TERM = re.compile(r'"(?P<phrase>[^"]*)"(?P<star>\*?)|(?P<word>[^\s"]+)')
_SCRATCH = """
CREATE VIRTUAL TABLE temp.scratch USING fts5(
    body, content='', contentless_delete=1, tokenize='unicode61 remove_diacritics 2'
)
"""
"""Splits a text into words exactly as `mail_words` does: it is the same program with the same options."""


@dataclass(frozen=True, slots=True)
class Term:
    text: str
    prefix: bool

    @property
    def quoted(self) -> str:
        """A string of FTS5's: nothing in it is an operator."""
        return f'"{self.text}"' + "*" * self.prefix


class Scratch:
    """Texts against words, by FTS5 itself, in memory that is a connection's own. Many at once: each statement of a thread
    may have to wait for the one that has Python's lock."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute(_SCRATCH)

    def matching(self, texts: str, values: Any, expression: str) -> list[int]:
        """Of numbered texts the numbers of those that match, the highest first. `texts` is SQL: number and text in a row."""
        execute = self._connection.execute
        execute(f"INSERT INTO temp.scratch (rowid, body) {texts}", values)
        query = "SELECT rowid FROM temp.scratch WHERE scratch MATCH ? ORDER BY rowid DESC"
        found = [row[0] for row in execute(query, (expression,))]
        execute("INSERT INTO temp.scratch (scratch) VALUES ('delete-all')")
        return found

    def matches(self, text: str, expression: str) -> bool:
        return bool(self.matching("VALUES (1, ?)", (text,), expression))


def expression(text: str) -> str:
    """What FTS5 is asked for; empty for no words at all. Raises BadRequest for what no text can match."""
    terms = _terms(_printable(text))
    if len(terms) > TERMS_MAX:
        raise BadRequest(f"that is {len(terms)} words to look for", f"give at most {TERMS_MAX}")
    with closing(pysqlite3.dbapi2.connect(":memory:", isolation_level=None)) as connection:
        scratch = Scratch(connection)
        for term in terms:
            if not scratch.matches(
                term.text, Term(term.text, False).quoted
            ):  # FTS5 would leave it out in silence
                raise BadRequest(
                    f"there is no word in {term.text!r:.80}",
                    "words are made of letters and digits; leave it out",
                )
    return " ".join(term.quoted for term in terms)


def _terms(text: str) -> list[Term]:
    if text.count('"') % 2:
        raise BadRequest("a quotation mark is missing", 'put words that stand together like "this one"')
    return [_term(found) for found in _TERM.finditer(text)]


def _term(found: re.Match[str]) -> Term:
    if (word := found["word"]) is None:
        return Term(found["phrase"], bool(found["star"]))
    return Term(word.removesuffix("*"), word.endswith("*"))


def _printable(text: str) -> str:
    """A NUL would end the words where FTS5 reads them."""
    return "".join(" " if unicodedata.category(char) == "Cc" else char for char in text)
