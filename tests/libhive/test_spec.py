from __future__ import annotations

import msgspec
import pytest

from libhive.problems import BadRequest
from libhive.spec import MANAGER_FILES, AgentSpec, Limits, files_for, resolve


def test_a_new_agents_files_resolve_to_what_was_asked() -> None:
    spec = resolve(files_for("You draw.", "haiku", ["jq"]))
    assert spec == AgentSpec(prompt="You draw.\n", model="haiku", packages=["jq"])
    assert resolve(MANAGER_FILES).model == "haiku"


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("model = 1", "model"),
        ("colour = 'red'", "unknown field"),
        ("model = 'x y'", "model"),
        ("not toml", "not TOML"),
        ("prompt = 'x'", "prompt"),
        ("[env]\nANTHROPIC_API_KEY = 'x'", "the hive's own"),
        ("[env]\nLD_PRELOAD = 'x'", "the hive's own"),
        ("[env]\nPATH = 'x'", "the hive's own"),
        ("packages = ['-rf']", "packages"),
        ("packages = ['a;b']", "packages"),
        ("a" + ".a" * 9_900 + " = 1", "dots"),
        ('"a"' + '."a"' * 4_000 + " = 1", "dots"),
        ("x = {a" + ".a" * 9_000 + " = 1}", "dots"),
        ("[limits]\nmemory_mb = 127", "memory_mb"),
        ("[limits]\nmemory_mb = 1.5", "memory_mb"),
        ("[limits]\ntasks = 31", "tasks"),
        ("[limits]\ncpu_percent = 25601", "cpu_percent"),
        ("[limits]\ndisk_mb = 1", "unknown field"),
        ("limits = 'none'", "limits"),
        ("[mcp_servers.x]\ncommand = 'y'\nsecret = 1", "unknown field"),
        ("[mcp_servers.x]\ncommand = 'y'\nenv = {LD_PRELOAD = 'x'}", "the hive's own"),
    ],
)
def test_what_is_not_a_configuration_is_refused(toml: str, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        resolve({"agent.toml": toml})


def test_other_files_are_refused() -> None:
    with pytest.raises(BadRequest, match="not a file of a configuration"):
        resolve({"agent.toml": "", "../evil": "x"})


def test_a_dotted_text_is_no_dotted_key() -> None:
    assert resolve({"agent.toml": '[env]\nX = "1.2.3.4.5.6.7.8.9.10.11.12"'}).env["X"].endswith("12")


def test_limits_have_defaults_each_on_its_own() -> None:
    assert resolve({"agent.toml": "[limits]\ntasks = 64"}).limits == Limits(
        memory_mb=2048, tasks=64, cpu_percent=200
    )
    old = msgspec.json.decode(b'{"prompt": "from before there were limits"}', type=AgentSpec)
    assert old.limits == Limits()
