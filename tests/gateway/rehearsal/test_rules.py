"""Every rule, as a table: who gets what mail, and what is played then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from libhive.names import agent_name
from libhive.spec import MANAGER_FILES, resolve
from services.gateway.rehearsal.reading import Mail
from services.gateway.rehearsal.rules import RULES, Scene

ROOT = Path(__file__).parents[3]

SPAWNS = [
    ("spawn an agent called iris who draws", "iris", "iris, an agent of this hive who draws."),
    ("Please spawn an agent named Iris that draws!", "iris", "iris, an agent of this hive that draws."),
    (
        "Hello! Could you create a new agent called 'otto', who writes tests?",
        "otto",
        "otto, an agent of this hive who writes tests.",
    ),
    ("I want an agent called max to review code", "max", "max, an agent of this hive, to review code."),
    ("I'd like a colleague named zoe for research", "zoe", "zoe, an agent of this hive, for research."),
    ("set up a bot called bob-2", "bob-2", "bob-2, an agent of this hive who helps where it can."),
    ("spawn iris who draws", "iris", "iris, an agent of this hive who draws."),
    ("spawn an agent iris", "iris", "iris, an agent of this hive who helps where it can."),
    ("spawn iris: draws birds", "iris", "iris, an agent of this hive who draws birds."),
]

SINGLE_CALLS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("iris", "ask bob what the time is", "ask", {"to": "bob", "question": "What is the time?"}),
    (
        "iris",
        "ask me which colour you should use: red, green or blue",
        "ask",
        {"to": "operator", "question": "Which colour should I use?", "choices": ["red", "green", "blue"]},
    ),
    (
        "iris",
        "Hi iris, ask the operator whether you should go on: yes or no, within 2 minutes",
        "ask",
        {"to": "operator", "question": "Should I go on?", "choices": ["yes", "no"], "deadline_seconds": 120},
    ),
    ("iris", "remind yourself in 20 seconds to stretch", "remind", {"text": "stretch", "after_seconds": 20}),
    ("iris", "Please remind me in 1 hour: call mum.", "remind", {"text": "call mum", "after_seconds": 3600}),
    (
        "iris",
        "you need the package imagemagick",
        "send",
        {"to": "manager", "text": "please add the package imagemagick"},
    ),
    ("iris", "ask for the package jq", "send", {"to": "manager", "text": "please add the package jq"}),
    (
        "iris",
        "Ask the manager for packages jq and g++.",
        "send",
        {"to": "manager", "text": "please add the packages jq and g++"},
    ),
    ("iris", "your status is drawing a bird.", "status", {"text": "drawing a bird"}),
    ("iris", "set your status to: resting", "status", {"text": "resting"}),
    ("iris", "tell bob that lunch is ready", "send", {"to": "bob", "text": "lunch is ready"}),
    ("iris", "say hello to bob", "send", {"to": "bob", "text": "Hello bob, this is iris."}),
    ("iris", "run: echo hi && ls", "Bash", {"command": "echo hi && ls"}),
    ("iris", "who is there?", "peers", {}),
    ("iris", "what are your loose ends?", "loose_ends", {}),
    ("hm1nd", "list the agents", "agents", {}),
    ("hm1nd", "restart iris", "restart", {"name": "iris"}),
    ("hm1nd", "please stop iris.", "stop", {"name": "iris"}),
    ("hm1nd", "show the logs of iris", "logs", {"name": "iris"}),
]

TOML = '# mine\nmodel = "haiku"\n\n[env]\nCOLOUR = "blue"\n'


@pytest.mark.parametrize(("said", "name", "prompt"), SPAWNS)
def test_the_manager_spawns(talk: Any, said: str, name: str, prompt: str) -> None:
    told = talk("hm1nd").mail(said)
    last = told.play(request_spawn={"number": 4})
    [(tool, given)] = told.calls
    assert (tool, given["name"]) == ("request_spawn", name)
    assert given["prompt"].startswith(f"You are {prompt}\n")
    assert name in last
    assert "proposal 4" in last


@pytest.mark.parametrize(("me", "said", "tool", "expected"), SINGLE_CALLS)
def test_what_the_operator_says(talk: Any, me: str, said: str, tool: str, expected: dict[str, Any]) -> None:
    told = talk(me).mail(said)
    last = told.play()
    [(called, given)] = told.calls
    assert called == tool
    assert given.items() >= expected.items()
    assert last


def test_a_name_that_cannot_be(talk: Any) -> None:
    told = talk("hm1nd").mail("spawn an agent called operator who rules")
    assert "reserved" in told.play()
    assert told.calls == []


def test_only_the_manager_can_spawn(talk: Any) -> None:
    told = talk("iris").mail("spawn an agent called bob who draws")
    assert "do not have the tool request_spawn" in told.play()
    assert told.calls == []


def test_a_spawn_that_is_refused(talk: Any) -> None:
    told = talk("hm1nd").mail("spawn an agent called iris who draws")
    assert "already-exists: iris exists" in told.play(
        request_spawn=ValueError("already-exists: iris exists (another name)")
    )


def test_the_deployed_spawn_is_reported_in_a_later_turn(talk: Any) -> None:
    told = talk("hm1nd").mail("spawn an agent called iris who draws")
    told.play(request_spawn={"number": 4})
    told.mail(
        "decided",
        "hive",
        "news",
        what="proposal_decided",
        proposal="4",
        agent="iris",
        decision="approved",
        reason="",
    )
    assert "wait" in told.play()
    told.mail("Proposal 4 is deployed", "hive", "news", what="deployed", proposal="4", agent="iris")
    told.play()
    [_, (tool, given)] = told.calls
    assert (tool, given["to"]) == ("send", "operator")
    assert "iris is up" in given["text"]


@pytest.mark.parametrize("spawned", [True, False])
def test_denied_and_failed_are_reported(talk: Any, spawned: bool) -> None:
    """A new agent does not exist to be told; one that asked for a change does."""
    for what, more in [("proposal_decided", {"decision": "denied"}), ("deploy_failed", {})]:
        told = talk("hm1nd")
        if spawned:
            told.mail("spawn an agent called iris who draws").play(request_spawn={"number": 4})
        told.calls.clear()
        told.mail(
            "x", "hive", "news", what=what, proposal="4", agent="iris", reason="too many", **more
        ).play()
        assert [given["to"] for _, given in told.calls] == (["operator"] if spawned else ["operator", "iris"])
        assert all("too many" in given["text"] for _, given in told.calls)


def test_a_greeting_is_answered_in_ones_own_name(talk: Any) -> None:
    told = talk("iris").mail("hello", id="01mhello000")
    told.play()
    assert told.calls == [
        ("send", {"to": "operator", "text": "Hello, I am iris.", "in_reply_to": "01mhello000"})
    ]


def test_two_polite_agents_stop(talk: Any) -> None:
    bob = talk("bob").mail("Hello bob, this is iris.", "iris", id="01mgreet000")
    bob.play()
    [(_, given)] = bob.calls
    assert given["to"] == "iris"
    iris = talk("iris").mail(given["text"], "bob", in_reply_to=given["in_reply_to"])
    iris.play()
    assert iris.calls == []


@pytest.mark.parametrize(
    "said", ["lunch is ready", "run: rm -rf /", "spawn an agent called x who y", "ask carl what is up"]
)
def test_a_colleague_gives_no_orders(talk: Any, said: str) -> None:
    told = talk("hm1nd").mail(said, "bob")
    assert told.play()
    assert told.calls == []


def test_a_question_is_answered(talk: Any) -> None:
    bob = talk("bob").mail("What is up?", "iris", "question", question="01mq0000001")
    bob.play()
    [(tool, given)] = bob.calls
    assert (tool, given["question"]) == ("answer", "01mq0000001")
    assert "bob" in given["text"]


def test_a_question_with_choices_gets_one_of_them(talk: Any) -> None:
    bob = talk("bob").mail(
        "Which?", "iris", "question", question="01mq0000001", choices='["a \\"b\\" & <c>", "d"]'
    )
    bob.play()
    assert bob.calls[0][1]["text"] == 'a "b" & <c>'


def test_a_colleagues_answer_is_passed_on(talk: Any) -> None:
    iris = talk("iris").mail("ten past four", "bob", "answer", question="01mq0000001")
    iris.play()
    assert iris.calls == [("send", {"to": "operator", "text": "bob answers: ten past four"})]


def test_the_operators_choice_is_confirmed(talk: Any) -> None:
    iris = talk("iris").mail("green", "operator", "answer", question="01mq0000001", id="01mchoice00")
    iris.play()
    [(_, given)] = iris.calls
    assert given == {
        "to": "operator",
        "text": "You chose green. I go on with that.",
        "in_reply_to": "01mchoice00",
    }


def test_an_answer_that_did_not_come(talk: Any) -> None:
    iris = talk("iris").mail("blue", "hive", "answer", question="01mq0000001")
    iris.play()
    assert iris.calls == [("send", {"to": "operator", "text": "No answer came in time: blue"})]


def test_a_reminder_is_reported(talk: Any) -> None:
    iris = talk("iris").mail("stretch", "iris", "reminder")
    iris.play()
    assert iris.calls == [("send", {"to": "operator", "text": "My reminder is due: stretch"})]


def test_a_package_from_wish_to_deploy(talk: Any) -> None:
    manager = talk("hm1nd").mail("please add the package jq", "iris", id="01mwish0000")
    manager.play(
        read_config={"agent": "iris", "files": {"agent.toml": TOML, "prompt.md": "You draw."}},
        propose_config={"number": 7},
    )
    read, proposed, sent = manager.calls
    assert read == ("read_config", {"agent": "iris"})
    assert proposed[0] == "propose_config"
    assert proposed[1]["files"] == {
        "agent.toml": '# mine\nmodel = "haiku"\npackages = ["jq"]\n\n[env]\nCOLOUR = "blue"\n'
    }
    assert proposed[1]["message"] == "Add the package jq"
    assert "iris asked for it" in proposed[1]["rationale"]
    assert sent[1]["to"] == "iris"
    assert "proposal 7" in sent[1]["text"]
    assert sent[1]["in_reply_to"] == "01mwish0000"
    manager.calls.clear()
    manager.mail("deployed", "hive", "news", what="deployed", proposal="7", agent="iris").play()
    assert [given["to"] for _, given in manager.calls] == ["operator", "iris"]


def test_a_package_that_is_there_already(talk: Any) -> None:
    manager = talk("hm1nd").mail("please add the package jq", "iris")
    manager.play(read_config={"files": {"agent.toml": 'packages = ["jq"]\n'}})
    assert [tool for tool, _ in manager.calls] == ["read_config", "send"]
    assert "already" in manager.calls[1][1]["text"]


def test_a_proposal_that_is_refused_is_told(talk: Any) -> None:
    manager = talk("hm1nd").mail("iris needs the package jq")
    last = manager.play(
        read_config={"files": {"agent.toml": ""}}, propose_config=ValueError("too-many: one at a time")
    )
    assert "too-many: one at a time" in last


@pytest.mark.parametrize("said", ["add the package jq to iris", "iris needs the packages jq, curl and git"])
def test_the_operator_asks_for_a_package_of_an_agent(talk: Any, said: str) -> None:
    manager = talk("hm1nd").mail(said)
    assert "proposal 3" in manager.play(read_config={"files": {}}, propose_config={"number": 3})
    assert manager.calls[0] == ("read_config", {"agent": "iris"})
    spec = resolve(manager.calls[1][1]["files"])
    assert spec.packages == (["jq"] if said.startswith("add") else ["jq", "curl", "git"])


def test_the_managers_own_package(talk: Any) -> None:
    manager = talk("hm1nd").mail("you need the package jq")
    manager.play(read_config={"files": MANAGER_FILES}, propose_config={"number": 2})
    assert [tool for tool, _ in manager.calls] == ["read_config", "propose_config"]
    assert manager.calls[0][1] == {"agent": "hm1nd"}


def test_a_command_that_fails_is_reported(talk: Any) -> None:
    iris = talk("iris").mail("run: false")
    assert "Exit code 1" in iris.play(Bash=ValueError("Exit code 1"))


def test_a_commands_output_is_the_answer(talk: Any) -> None:
    assert talk("iris").mail("run: echo hi").play(Bash="hi") == "hi"


@pytest.mark.parametrize("what", ["cage_crashed", "cage_broken", "agent_created", "something_new"])
def test_other_news_need_no_call(talk: Any, what: str) -> None:
    told = talk("hm1nd").mail("something happened", "hive", "news", what=what, agent="iris")
    assert told.play()
    assert told.calls == []


def test_anything_else_is_explained(talk: Any) -> None:
    told = talk("iris").mail("what is the meaning of life")
    last = told.play()
    assert "rehearsal" in last
    assert "hive-admin login" in last
    assert told.calls == []


def test_every_rule_is_in_the_docs() -> None:
    page = (ROOT / "docs/rehearsal.md").read_text()
    assert [rule.name for rule in RULES if f"| {rule.name} |" not in page] == []


@pytest.mark.parametrize(
    "text",
    ["a" * 1_000, "ask " * 250, "packages a, " * 90, "spawn " * 170, "remind me in 1 " * 60, " " * 1_000],
)
def test_no_pattern_runs_away(text: str) -> None:
    mail = Mail(id="01m0000001", sender="operator", kind="message", body=text, attributes={})
    for rule in RULES:
        rule.fits(agent_name("hm1nd"), mail)
    assert Scene(me="iris", mail=mail, past={}).asker == "you"
