from __future__ import annotations

import random
from pathlib import Path

import pytest

from libhive.names import RESERVED, AgentName, agent_name, machine_name, new_id
from libhive.paths import Paths
from libhive.problems import BadRequest

ATTACKS = [
    *(
        "",
        ".",
        "..",
        "-rf",
        "a/b",
        "a\0b",
        "a\n",
        "\na",
        "Iris",
        "iris-",
        "1ris",
        "irıs",
        "a" * 32,
        "a" * 64,
        "a b",
        "a_b",
    ),
    *("../../etc", "~root", "$HOME", "%2e%2e", "а", "iris\u202e", "🐝"),
]


@pytest.mark.parametrize("text", ATTACKS)
def test_what_is_not_a_name_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        agent_name(text)


@pytest.mark.parametrize("word", sorted(RESERVED))
def test_reserved_words_are_refused(word: str) -> None:
    with pytest.raises(BadRequest, match="reserved"):
        agent_name(word)


@pytest.mark.parametrize("text", ["a", "iris", "hm1nd", "a" * 31, "a-b-c", "x9"])
def test_names(text: str) -> None:
    assert agent_name(text) == text


def test_no_fuzzed_name_leads_outside() -> None:
    seed = 20261123
    generator = random.Random(seed)
    alphabet = "ab-./\\~%\0\n\tA_é:; 09"
    paths = Paths(run=Path("/run/h"), state=Path("/var/h"))
    for _ in range(100_000):
        text = "".join(generator.choices(alphabet, k=generator.randint(0, 12)))
        try:
            name = agent_name(text)
        except BadRequest:
            continue
        for path in (
            paths.doors(name),
            paths.page(name),
            paths.agent_state(name),
            paths.config(name),
            paths.cage(name),
        ):
            assert ".." not in path.parts, (seed, text)
            assert path.is_relative_to("/run/h") or path.is_relative_to("/var/h"), (seed, text)


def test_ids_sort_by_time_and_differ() -> None:
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert ids[0][:8] <= ids[-1][:8]


def test_the_manager_is_its_own_machine() -> None:
    assert machine_name(AgentName("hm1nd")) == "hm1nd"
    assert machine_name(AgentName("iris")) == "h-iris"


def test_a_run_directory_too_long_for_sockets_is_refused() -> None:
    with pytest.raises(BadRequest, match="too long"):
        Paths.from_environment({"HIVE_RUN_DIR": "/" + "x" * 80, "HIVE_STATE_DIR": "/s"})
    with pytest.raises(BadRequest, match="absolute"):
        Paths.from_environment({"HIVE_RUN_DIR": "run", "HIVE_STATE_DIR": "/s"})
