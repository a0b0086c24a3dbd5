"""A name is the only way from outside text to a path: whatever is tried, none leads out of the hive's directories."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from libhive.names import AgentName, agent_name
from libhive.paths import Paths
from libhive.problems import BadRequest
from services.lifecycle import logbook

PATHS = Paths(Path("/run/hyperhive"), Path("/var/lib/hyperhive"))
TRIED = 1_000_000
PIECES = [
    "a",
    "b",
    "z",
    "0",
    "9",
    "-",
    "..",
    ".",
    "/",
    "\\",
    "\0",
    "\n",
    " ",
    "A",
    "é",
    "а",
    "\u202e",
    "~",
    "$",
    "-rf",
    ":",
]
BUILT: tuple[tuple[Path, Callable[[AgentName], Path]], ...] = (
    (PATHS.run / "agents", PATHS.doors),
    (PATHS.run / "pages", PATHS.page_dir),
    (PATHS.run / "cages", PATHS.cage),
    (PATHS.state / "agents", PATHS.agent_state),
    (PATHS.state / "config", PATHS.config),
    (PATHS.logs / "agents", lambda name: logbook.path(PATHS, name)),
)


def texts(chance: random.Random) -> Iterator[str]:
    """Of up to eight pieces each; drawn a thousand at a time, which is most of the work."""
    weights = [9, 9, 9, 9, 9, 9] + [1] * (len(PIECES) - 6)
    for _ in range(TRIED // 1000):
        pieces = chance.choices(PIECES, weights, k=8 * 1000)
        lengths = chance.choices(range(9), k=1000)
        yield from ("".join(pieces[8 * n : 8 * n + length]) for n, length in enumerate(lengths))


def test_a_million_names_give_no_path_outside() -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    accepted = set[AgentName]()
    for text in texts(chance):
        try:
            name = agent_name(text)
        except BadRequest:
            continue
        if name in accepted:
            continue
        accepted.add(name)
        for root, build in BUILT:
            assert os.path.normpath(build(name)).rpartition("/")[0] == str(root), (seed, text)
    assert len(accepted) > 1000, seed
