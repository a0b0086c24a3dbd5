"""The supervisor's configuration, the environment of services, the reasons to give up."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

from libhive.embedded import program, ready
from libhive.embedded.settings import SERVICES, Settings, make_places, service_environment
from libhive.paths import Paths
from libhive.problems import BadRequest, NotAllowed

GOLDEN = Path(__file__).parent / "supervisord.conf"
PATHS = Paths(run=Path("/run/hyperhive"), state=Path("/var/lib/hyperhive"))


def settings(paths: Paths = PATHS, python: str = "/opt/hyperhive/.venv/bin/python") -> Settings:
    return Settings(paths, {}, python, Path("/opt/hyperhive/.venv"))


def test_the_configuration_is_the_golden_one() -> None:
    assert program.config(settings(), as_root=True) == GOLDEN.read_text()


def test_an_ordinary_user_names_no_user() -> None:
    assert "user=" not in program.config(settings(), as_root=False)


def test_every_service_is_supervised_and_comes_back() -> None:
    parsed = configparser.RawConfigParser()
    parsed.read_string(program.config(settings(), as_root=False))
    for name in SERVICES:
        assert parsed[f"program:{name}"]["autorestart"] == "true"
        assert parsed[f"program:{name}"]["command"].endswith(f"-m services.{name}")


@pytest.mark.parametrize("odd", ["/tmp/a b", "/tmp/100%", "/tmp/it's", "/tmp/%(x)s"])
def test_odd_paths_come_through_the_supervisors_parser(odd: str) -> None:
    """Its parser expands `%` and splits commands as a shell would."""
    import shlex

    from supervisor.options import expand

    text = program.config(settings(python=f"{odd}/python"), as_root=False)
    parsed = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"))
    parsed.read_string(text)
    command = expand(parsed["program:broker"]["command"], {}, "command")
    assert f"{odd}/python" in shlex.split(command)


@pytest.mark.parametrize("bad", ["/tmp/a ;b", "/tmp/a #b", "/tmp/a\nb"])
def test_a_path_that_the_parser_would_cut_is_refused(bad: str) -> None:
    with pytest.raises(BadRequest):
        program.config(settings(Paths(run=Path("/run/x"), state=Path(bad))), as_root=False)


def test_a_service_gets_a_short_list_of_variables() -> None:
    given = {
        "ANTHROPIC_API_KEY": "canary",
        "AWS_SECRET_ACCESS_KEY": "canary",
        "HIVE_CAGE": "process",
        "HOME": "/home/op",
        "LD_PRELOAD": "/tmp/x.so",
        "MAKEFLAGS": "w",
        "PATH": "/usr/bin",
        "PYTHONPATH": "/tmp",
        "PYTHONSAFEPATH": "",
        "SSH_AUTH_SOCK": "/tmp/agent",
    }
    assert service_environment(given, PATHS, Path("/nowhere/.venv")) == {
        "HIVE_CAGE": "process",
        "HIVE_EMBEDDED": "/run/hyperhive",
        "HIVE_RUN_DIR": "/run/hyperhive",
        "HIVE_STATE_DIR": "/var/lib/hyperhive",
        "HOME": "/home/op",
        "PATH": "/usr/bin",
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
    }


@pytest.mark.parametrize("place", ["run", "state"])
def test_a_directory_that_others_can_write_into_is_refused(tmp_path: Path, place: str) -> None:
    paths = Paths(run=tmp_path / "run", state=tmp_path / "state")
    (tmp_path / place).mkdir()
    (tmp_path / place).chmod(0o777)
    with pytest.raises(NotAllowed, match=place):
        make_places(paths)


def test_a_place_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotAllowed, match="cannot make"):
        make_places(Paths(run=tmp_path / "file" / "run", state=tmp_path / "state"))


def test_what_it_makes_is_for_its_owner_alone(tmp_path: Path) -> None:
    paths = Paths(run=tmp_path / "a" / "run", state=tmp_path / "b" / "state")
    make_places(paths)
    assert [path.stat().st_mode & 0o777 for path in (paths.run, paths.state, paths.logs)] == [0o700] * 3


EXITED = "2026-11-23 15:00:00,123 WARN exited: {} ({}; not expected)\n"


@pytest.mark.parametrize(
    ("log", "hopeless"),
    [
        ("", set()),
        (EXITED.format("broker", "exit status 1"), set()),
        (EXITED.format("broker", "exit status 2"), {"broker"}),
        (EXITED.format("gateway", "terminated by SIGKILL"), set()),
        (EXITED.format("updater", "exit status 1") * 3, {"updater"}),
        (EXITED.format("updater", "exit status 12"), set()),
    ],
)
def test_when_waiting_is_of_no_use(log: str, hopeless: set[str]) -> None:
    assert ready.hopeless(log) == hopeless
