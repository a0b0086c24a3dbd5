from __future__ import annotations

from typing import Any

import msgspec
import pytest

from libhive.messages.approvals import EffectLine
from libhive.names import MANAGER
from libhive.spec import AgentSpec, Egress, Limits, McpServer
from services.approvals import effect
from services.approvals.effect import compare, with_missing

PLAIN = AgentSpec(prompt="You are iris.\nYou draw.\nYou are kind.\n")


def changed(before: AgentSpec = PLAIN, **fields: Any) -> list[tuple[str, str, str, str]]:
    return rows(compare("iris", before, msgspec.structs.replace(before, **fields)))


def rows(lines: list[EffectLine]) -> list[tuple[str, str, str, str]]:
    return [(line.field, line.risk, line.before, line.after) for line in lines]


def test_a_new_agent_lists_all_that_it_is() -> None:
    assert rows(compare("iris", None, PLAIN)) == [
        ("agent", "medium", "", "a new agent, iris"),
        ("prompt", "medium", "", "3 lines, 38 characters"),
        ("model", "low", "", "haiku"),
        ("allowed_recipients", "low", "", "everybody"),
    ]


def test_model_and_packages() -> None:
    old = msgspec.structs.replace(PLAIN, packages=["jq"])
    assert changed(old, model="opus", packages=["imagemagick"]) == [
        ("packages", "medium", "", "imagemagick"),
        ("model", "low", "haiku", "opus"),
        ("packages", "low", "jq", ""),
    ]


def test_more_of_the_host_is_a_greater_risk_than_less() -> None:
    assert changed(limits=Limits(memory_mb=4096, tasks=100)) == [
        ("limits.memory_mb", "medium", "2048", "4096"),
        ("limits.tasks", "low", "512", "100"),
    ]
    made = rows(compare("iris", None, msgspec.structs.replace(PLAIN, limits=Limits(cpu_percent=400))))
    assert ("limits.cpu_percent", "medium", "", "400") in made


def test_a_prompt_that_is_mostly_new_is_a_greater_risk() -> None:
    (small,) = changed(prompt=PLAIN.prompt + "You like blue.\n")
    (great,) = changed(prompt="You are somebody else.\nObey.\n")
    assert (small[:2], great[:2]) == (("prompt", "low"), ("prompt", "medium"))


@pytest.mark.parametrize(
    ("before", "after", "risk"),
    [
        (None, ["operator"], "low"),
        (["operator", "ben"], ["operator"], "low"),
        (["operator"], None, "high"),
        (["operator"], ["operator", "ben"], "high"),
        (["ben"], ["operator"], "high"),
        ([], ["operator"], "high"),
        (["operator"], [], "low"),
    ],
)
def test_who_it_may_message(before: list[str] | None, after: list[str] | None, risk: str) -> None:
    old = msgspec.structs.replace(PLAIN, allowed_recipients=before)
    (line,) = changed(old, allowed_recipients=after)
    assert line[:2] == ("allowed_recipients", risk)


def test_the_order_of_names_is_no_change() -> None:
    old = msgspec.structs.replace(PLAIN, allowed_recipients=["a", "b"])
    assert [row[:2] for row in changed(old, allowed_recipients=["b", "a"])] == [("files", "none")]


def test_environment_values_are_shown_in_quotes() -> None:
    old = msgspec.structs.replace(PLAIN, env={"A": "1", "B": "x"})
    assert changed(old, env={"A": " 1 ", "C": ""}) == [
        ("env.A", "medium", '"1"', '" 1 "'),
        ("env.C", "medium", "", '""'),
        ("env.B", "low", '"x"', ""),
    ]


def test_a_server_shows_the_whole_command() -> None:
    server = McpServer(command="npx", args=["-y", "a b"], env={"TOKEN": "x y"})
    assert changed(mcp_servers={"web": server}) == [
        ("mcp_servers.web", "high", "", "TOKEN='x y' npx -y 'a b'")
    ]


def test_another_root_is_said_with_what_it_means() -> None:
    after = msgspec.structs.replace(PLAIN, root="debian", inputs="2026-11-23")
    root, inputs = compare("iris", PLAIN, after)
    assert (root.field, root.risk, root.before, root.after) == ("root", "medium", "host", "debian")
    assert "Debian packages of its own" in root.note
    assert (inputs.field, inputs.risk, inputs.after) == ("inputs", "low", "2026-11-23")
    (back,) = compare("iris", after, msgspec.structs.replace(after, root="host"))
    assert (back.risk, back.before, back.after) == ("medium", "debian", "host")
    assert [line.field for line in compare("iris", None, PLAIN)].count("root") == 0


def test_risk_first() -> None:
    lines = changed(
        model="opus",
        packages=["jq"],
        mcp_servers={"web": McpServer(command="x")},
        env={"A": "1"},
        prompt="new\n",
    )
    assert [row[1] for row in lines] == ["high", "medium", "medium", "medium", "low"]


def test_comments_only() -> None:
    assert [row[:2] for row in rows(compare("iris", PLAIN, PLAIN))] == [("files", "none")]


def test_the_manager_is_pointed_out() -> None:
    after = msgspec.structs.replace(PLAIN, model="opus")
    assert [line.field for line in compare(MANAGER, PLAIN, after)] == ["agent", "model"]


def test_no_field_of_a_spec_takes_effect_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A field that somebody adds to AgentSpec and forgets here is shown, as a high risk."""
    monkeypatch.delitem(effect.COMPARISONS, "model")
    assert changed(model="opus") == [("model", "high", '"haiku"', '"opus"')]
    assert set(effect.COMPARISONS) | {"model"} == set(AgentSpec.__struct_fields__)


def test_missing_packages_are_said_where_they_are_asked_for() -> None:
    lines = compare("iris", PLAIN, msgspec.structs.replace(PLAIN, packages=["jq", "nope"]))
    noted = {
        line.after: line.note
        for line in with_missing(lines, frozenset({"nope"}), "sudo apt-get install -y nope")
    }
    assert "apt-get" in noted["nope"]
    assert noted["jq"] == ""


def out(mode: str, *allow: str) -> Egress:
    return Egress(mode=mode, allow=list(allow))  # type: ignore[arg-type]


def egress(before: Egress, after: Egress) -> list[tuple[str, str, str, str]]:
    return changed(msgspec.structs.replace(PLAIN, egress=before), egress=after)


def test_a_way_out_is_shown_entry_by_entry_with_its_risk() -> None:
    listed = ("pypi.org:443", "*.example.org:443", "10.0.0.5:5432", "8.8.8.8:53", "127.0.0.1:80")
    assert egress(out("none"), out("allow", *listed)) == [
        ("egress.allow", "high", "", "*.example.org:443"),
        ("egress.allow", "high", "", "10.0.0.5:5432"),
        ("egress.allow", "high", "", "127.0.0.1:80"),
        ("egress.mode", "medium", "none", "allow"),
        ("egress.allow", "medium", "", "8.8.8.8:53"),
        ("egress.allow", "medium", "", "pypi.org:443"),
    ]
    assert egress(out("allow", "a.org:1"), out("learn", "a.org:1")) == [
        ("egress.mode", "high", "allow", "learn")
    ]
    assert egress(out("learn"), out("none")) == [("egress.mode", "low", "learn", "none")]
    assert egress(out("allow", "a.org:1"), out("allow", "b.org:1")) == [
        ("egress.allow", "medium", "", "b.org:1"),
        ("egress.allow", "low", "a.org:1", ""),
    ]


def test_a_list_that_is_not_in_force_counts_when_it_comes_into_force() -> None:
    assert egress(out("none"), out("none", "*.example.org:443")) == [
        ("egress.allow", "low", "", "*.example.org:443")
    ]
    assert egress(out("none", "*.example.org:443"), out("allow", "*.example.org:443"))[0][:2] == (
        "egress.allow",
        "high",
    )
    assert egress(out("allow", "a.org:1"), out("none", "a.org:1")) == [
        ("egress.mode", "low", "allow", "none"),
        ("egress.allow", "low", "a.org:1", ""),
    ]
    assert egress(out("none", "a.org:1"), out("none", "b.org:1", "c.org:1")) == [
        ("egress.allow", "low", "", "b.org:1"),
        ("egress.allow", "low", "", "c.org:1"),
        ("egress.allow", "low", "a.org:1", ""),
    ]


def test_a_new_agent_shows_its_way_out_and_the_order_of_a_list_is_no_change() -> None:
    new = msgspec.structs.replace(PLAIN, egress=out("learn"))
    assert ("egress.mode", "high", "none", "learn") in rows(compare("iris", None, new))
    assert [
        row[:2] for row in egress(out("allow", "a.org:1", "b.org:1"), out("allow", "b.org:1", "a.org:1"))
    ] == [("files", "none")]
