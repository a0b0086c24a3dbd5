from __future__ import annotations

from pathlib import Path

import pytest

from libhive.problems import BadRequest
from services.lifecycle.settings import Settings


def test_the_default_is_bubblewrap_and_the_harness() -> None:
    settings = Settings.from_environment({})
    assert (settings.cage, settings.program) == ("bubblewrap", ("-m", "libhive.harness"))
    assert settings.operator_pronouns == "she/her"


def test_what_can_be_set() -> None:
    settings = Settings.from_environment(
        {
            "HIVE_CAGE": "process",
            "HIVE_CLAUDE": "/bin/sh",
            "HIVE_CLAUDE_VERSION": "3",
            "HIVE_OPERATOR_PRONOUNS": "they/them",
        }
    )
    assert (settings.cage, settings.claude_version, settings.operator_pronouns) == (
        "process",
        "3",
        "they/them",
    )
    assert settings.claude == Path("/bin/sh").resolve()


def test_a_claude_that_is_not_there_is_named() -> None:
    with pytest.raises(BadRequest, match="HIVE_CLAUDE='/none'"):
        Settings.from_environment({"HIVE_CLAUDE": "/none"})


def test_as_root_each_agent_has_65536_users_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert [Settings().uid_of(number) for number in (1, 2)] == [589_824, 655_360]
    assert Settings(cage="process").uid_of(1) == 0
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert Settings().uid_of(7) == 1000
