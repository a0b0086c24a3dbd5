"""`python -m services.lifecycle.builders.room KEY`: one build, as hive-build@KEY.service runs it, by a user who may do
nothing else.

Lifecycle wrote what is wanted. It is believed as far as it is a recipe: packages by name, of a builder that is known here, from
what this host itself has for sources; and it has to be the recipe of this key. What is executed is our own decision.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import threading
from pathlib import Path

import msgspec

from libhive.clock import now_ms
from libhive.paths import Paths
from libhive.problems import BadRequest, Problem
from libhive.spec import AgentSpec
from libhive.systemd import notify
from services.lifecycle.builders import Builder, builders
from services.lifecycle.builders.by_child import FULL, built
from services.lifecycle.builders.by_unit import EXIT_NO_SPACE
from services.lifecycle.builders.enclosed import LOG_TAIL_BYTES, doing, last_words
from services.lifecycle.builders.mapped import users
from services.lifecycle.builders.recipe import Manifest, Recipe
from services.lifecycle.builders.roots import seal
from services.lifecycle.builders.users import Users
from services.lifecycle.settings import Settings

KEY = re.compile(r"(?:debian|nix)-[0-9a-f]{24}")
ORDER_BYTES_MAX = 1 << 20
CHUNK_BYTES = 65_536


class Said:
    """What a build says: on to the journal, and its end kept. What it does just now becomes the unit's status."""

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe()
        self._tail, self._doing = b"", ""
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def end(self) -> str:
        os.close(self.writing)
        self._thread.join()
        return self._tail.decode(errors="replace")

    def _follow(self) -> None:
        while chunk := os.read(self._reading, CHUNK_BYTES):
            os.write(2, chunk)
            self._tail = (self._tail + chunk)[-LOG_TAIL_BYTES:]
            if (now := doing(self._tail.decode(errors="replace"))) != self._doing:
                self._doing = now
                tell(now)


def main() -> int:
    if len(sys.argv) != 2 or not KEY.fullmatch(sys.argv[1]):
        return fail("usage: room KEY")
    os.umask(0o022)
    try:
        to = users()
        key, paths, settings = sys.argv[1], Paths.from_environment(), Settings.from_environment()
        recipe = wanted(paths.builds / f"{key}.json", key)
        builder = builders(settings)[recipe.builder]
        expect_own(recipe, builder)
        notify("READY=1\nSTATUS=starting")
        return asyncio.run(build(settings, to, builder, recipe, paths.roots / key))
    except Problem as problem:
        return fail(problem.message + (f" ({problem.hint})" if problem.hint else ""))
    except OSError as error:
        return fail(str(error))


async def build(settings: Settings, to: Users, builder: Builder, recipe: Recipe, work: Path) -> int:
    said = Said()
    try:
        contents = await built(settings, to, builder, recipe, work, said.writing)
    finally:
        text = said.end()
    if contents is None:
        return fail(last_words(text) or "it said nothing", EXIT_NO_SPACE if FULL in text else 1)
    seal(work, Manifest(recipe=recipe, contents=contents, built_ms=now_ms()))
    return 0


def wanted(path: Path, key: str) -> Recipe:
    """Raises BadRequest for what is no recipe, or not that of this key."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        content = file.read(ORDER_BYTES_MAX)
    try:
        recipe = msgspec.json.decode(content, type=Recipe)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"{path.name} is no recipe: {error}") from None
    if recipe.key != key:
        raise BadRequest(f"{path.name} is the recipe of {recipe.key}")
    return recipe


def expect_own(recipe: Recipe, builder: Builder) -> None:
    """It is what the builder itself would make of these packages, here and now."""
    try:
        spec = msgspec.convert(
            {"root": recipe.builder, "packages": list(recipe.packages), "inputs": recipe.inputs}, AgentSpec
        )
    except msgspec.ValidationError as error:
        raise BadRequest(f"the recipe is not of this host: {error}") from None
    if builder.recipe(spec) != recipe:
        raise BadRequest("the recipe is not of this host")


def fail(why: str, status: int = 1) -> int:
    """The unit's last words: lifecycle finds them in its status."""
    tell(why)
    if not why.startswith("E: "):  # it is in the journal already
        sys.stderr.write(f"E: {why}\n")
    return status


def tell(status: str) -> None:
    """As `systemctl status` shows it, and lifecycle reads it."""
    notify("STATUS=" + re.sub(r"[\x00-\x1f\x7f]", " ", status))


if __name__ == "__main__":
    raise SystemExit(main())
