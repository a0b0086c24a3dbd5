from __future__ import annotations

import msgspec
import pytest

from libhive.problems import BadRequest
from libhive.spec import MANAGER_FILES, AgentSpec, Egress, Limits, files_for, only_live, resolve, with_egress


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
        ("[env]\nHTTPS_PROXY = 'http://x'", "the hive's own"),
        ("[egress]\nmode = 'open'", "egress.mode"),
        ("[egress]\nmode = 'allow'\ndeny = []", "unknown field"),
        ("[egress]\nallow = ['github.com']", "not host:port"),
        ("[egress]\nallow = ['*.org:443']", "too wide"),
        ("[egress]\nallow = ['a.org:443', 'b.org:443', 'a.org:443']", "twice"),
        (f"[egress]\nallow = {[f'a{n}.org:443' for n in range(257)]}", "length <= 256"),
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


def test_only_what_is_enforced_outside_the_cage_changes_in_place() -> None:
    spec = AgentSpec(prompt="You draw.")
    assert only_live(spec, AgentSpec(prompt="You draw.", egress=Egress(mode="learn")))
    assert only_live(spec, AgentSpec(prompt="You draw.", allowed_recipients=[]))
    assert not only_live(spec, AgentSpec(prompt="You draw."))
    assert not only_live(spec, AgentSpec(prompt="You write.", egress=Egress(mode="learn")))


NEW = Egress(mode="allow", allow=["a.org:443", "[2001:db8::1]:80"])


@pytest.mark.parametrize(
    "toml",
    [
        "",
        'model = "opus" # dear',
        'model = "opus"\n\n[egress]\nmode = "learn"',
        'model = "opus"\n[egress] # out\nmode = "learn"\nallow = [\n  "b.org:1",\n\n]\n\n# of the env\n[env]\nX = "1"\n',
        'egress = { mode = "learn" }\nmodel = "opus"',
        'egress.mode = "learn"\negress.allow = ["b.org:1"]\n[env]\nX = "[egress]"',
        '[mcp_servers.x]\ncommand = "y"\nargs = ["a"]\n',
    ],
)
def test_a_way_out_replaces_another_and_nothing_else(toml: str) -> None:
    files = {"agent.toml": toml, "prompt.md": "You draw.\n"}
    after = with_egress(files, NEW)
    assert resolve(after).egress == NEW
    assert only_live(resolve(files), resolve(after))
    for line in ('model = "opus"', "# dear", 'X = "1"', 'command = "y"'):
        assert (line in toml) == (line in after["agent.toml"])
    assert with_egress(after, NEW) == after


@pytest.mark.parametrize(
    "toml",
    [
        'egress.allow = [\n"b.org:1"]\n',
        '[env]\nX = """\n[egress]\n"""\n',
        '"egress" = {mode = "learn"}\n',
    ],
)
def test_a_text_that_cannot_be_edited_safely_is_left_alone(toml: str) -> None:
    with pytest.raises(BadRequest, match="cannot be replaced") as refused:
        with_egress({"agent.toml": toml}, NEW)
    assert '"a.org:443"' in refused.value.hint
