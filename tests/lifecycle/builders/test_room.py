"""What a build's unit believes of what lifecycle wrote; tests/booted has the unit itself."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from libhive.problems import BadRequest, Conflict, NoSpace
from libhive.spec import AgentSpec
from services.lifecycle.builders import by_unit, mapped, room
from services.lifecycle.builders.debian import DebianBuilder
from services.lifecycle.builders.recipe import Contents, Manifest, Recipe
from services.lifecycle.builders.roots import TREE, GivenRoots, furnish, seal
from services.lifecycle.builders.users import Users


@pytest.fixture
def builder(tmp_path: Path) -> DebianBuilder:
    (tmp_path / "os-release").write_text('VERSION_CODENAME="bookworm"\n')
    return DebianBuilder(tmp_path)


@pytest.fixture
def recipe(builder: DebianBuilder) -> Recipe:
    return builder.recipe(AgentSpec(root="debian", packages=["jq"]))


def test_a_recipe_of_this_host_is_believed(tmp_path: Path, builder: DebianBuilder, recipe: Recipe) -> None:
    order = tmp_path / "order"
    order.write_bytes(msgspec.json.encode(recipe))
    room.expect_own(room.wanted(order, recipe.key), builder)


@pytest.mark.parametrize(
    "change",
    [
        {"packages": ("./evil.deb",)},
        {"packages": ("jq,evil",)},
        {"packages": ("?essential",)},
        {"packages": ("bash-",)},
        {"packages": ("jq",)},  # without what every agent needs
        {"source": "/root"},
        {"source": "sid"},
        {"variant": "--setup-hook=id"},
        {"architecture": "x"},
        {"version": 0},
        {"inputs": "a b"},
    ],
    ids=str,
)
def test_any_other_recipe_is_refused(
    builder: DebianBuilder, recipe: Recipe, change: dict[str, object]
) -> None:
    with pytest.raises(BadRequest):
        room.expect_own(msgspec.structs.replace(recipe, **change), builder)


def test_an_order_that_is_not_of_this_key_or_no_plain_file_is_refused(tmp_path: Path, recipe: Recipe) -> None:
    order = tmp_path / "order"
    for content, said in (
        (b"{", "no recipe"),
        (b'{"argv": ["id"]}', "no recipe"),
        (b"[" * 9999, "no recipe"),
    ):
        order.write_bytes(content)
        with pytest.raises(BadRequest, match=said):
            room.wanted(order, recipe.key)
    order.write_bytes(msgspec.json.encode(recipe))
    with pytest.raises(BadRequest, match="is the recipe of"):
        room.wanted(order, "debian-" + "0" * 24)
    (tmp_path / "link").symlink_to(order)
    with pytest.raises(OSError, match="symbolic"):
        room.wanted(tmp_path / "link", recipe.key)


def test_without_ids_of_its_own_nothing_is_built(tmp_path: Path) -> None:
    """As root this would give up what the test runs with, so it is done by a child."""
    pid = os.fork()
    if pid == 0:
        try:
            mapped.users(tmp_path)
        except Conflict as problem:
            text = Path("/proc/self/status").read_text()
            os._exit(0 if "gives" in problem.message and f"CapPrm:\t{0:016x}" in text else 2)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize(
    ("known", "kind", "said"),
    [
        ({"Result": "exit-code", "ExecMainStatus": 75, "StatusText": "E: it is full"}, NoSpace, "it is full"),
        ({"Result": "exit-code", "ExecMainStatus": 1, "StatusText": "E: no jq"}, Conflict, "E: no jq"),
        ({"Result": "oom-kill", "ExecMainStatus": 9, "StatusText": "installing"}, Conflict, "more memory"),
        ({"Result": "resources", "ExecMainStatus": 0, "StatusText": ""}, Conflict, "`resources`"),
    ],
)
def test_why_it_failed(known: dict[str, object], kind: type[Exception], said: str) -> None:
    problem = by_unit.failed("debian", known, "hive-build@x.service")
    assert isinstance(problem, kind)
    assert said in problem.message


def test_a_given_root_is_there_once_it_is_whole_and_as_long_as_it_is_wanted(
    tmp_path: Path, recipe: Recipe
) -> None:
    roots = GivenRoots(tmp_path / "roots", tmp_path / "builds", tmp_path / "used.json")
    for place in ("roots", "builds"):
        (tmp_path / place).mkdir()
    work = roots.directory / recipe.key
    roots.want(recipe)
    furnish(work, Users(os.geteuid(), os.getegid(), [(0, 1, 1)], [(0, 1, 1)]))
    assert roots.manifest(recipe.key) is None
    assert roots.unfinished() == [work]
    seal(work, Manifest(recipe=recipe, contents=Contents(), built_ms=1))
    assert roots.newest() == [recipe.key]
    assert roots.unfinished() == []
    roots.order(recipe.key).unlink()
    assert roots.newest() == []
    assert roots.unfinished() == [work]
    assert (work / TREE).is_dir()
