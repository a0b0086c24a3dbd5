from __future__ import annotations

from typing import Any


def test_each_step_needs_the_one_before(talk: Any) -> None:
    told = talk("hm1nd").mail("please add the package jq", "iris")
    assert told.step() == told.step(), "it is a function of the request"
    told.call(told.step())
    told.result({"files": {"agent.toml": ""}})
    assert told.call(told.step())[0] == "propose_config"


def test_several_mails_in_one_turn_are_each_answered(talk: Any) -> None:
    told = talk("iris")
    told.messages.append(
        {
            "role": "user",
            "content": "\n\n".join(
                [told.block("run: echo one"), told.block("your status is up"), told.block("hello", "bob")]
            ),
        }
    )
    told.play(Bash="one")
    assert [tool for tool, _ in told.calls] == ["Bash", "send", "status", "send", "send"]
    sent = [given for tool, given in told.calls if tool == "send"]
    assert [given["to"] for given in sent] == ["operator", "operator", "bob"]
    assert sent[0] == {"to": "operator", "text": "one", "in_reply_to": "01m0000001"}


def test_mail_that_joins_is_played_after(talk: Any) -> None:
    told = talk("iris").mail("run: sleep 1")
    told.call(told.step())
    told.result("").joined("your status is busy")
    told.play()
    assert [tool for tool, _ in told.calls] == ["Bash", "send", "status", "send"]
    assert told.calls[1][1]["in_reply_to"] == "01m0000001"
    assert told.calls[3][1]["in_reply_to"] == "01m0000002"


def test_only_the_current_turn_is_played(talk: Any) -> None:
    told = talk("iris").mail("run: echo one")
    told.play(Bash="one")
    told.mail("your status is up")
    told.play()
    assert [tool for tool, _ in told.calls] == ["Bash", "status"]


def test_the_same_words_in_a_later_mail_are_played_again(talk: Any) -> None:
    told = talk("iris").mail("run: date")
    told.play(Bash="noon")
    told.mail("run: date")
    assert told.play(Bash="one") == "one"
    assert len(told.calls) == 2


def test_a_redelivered_turn_goes_on_where_it_was_cut(talk: Any) -> None:
    told = talk("hm1nd").mail("please add the package jq", "iris", id="01mwish0000")
    told.call(told.step())
    told.result({"files": {"agent.toml": ""}})
    told.call(told.step())
    told.result({"number": 3})
    told.mail("please add the package jq", "iris", id="01mwish0000", attempt="2")
    told.play()
    assert [tool for tool, _ in told.calls] == ["read_config", "propose_config", "send"]


def test_a_redelivered_turn_after_the_last_words_repeats_nothing(talk: Any) -> None:
    """Killed between the turn's end and its acknowledgement."""
    told = talk("hm1nd").mail("please add the package jq", "iris", id="01mwish0000")
    told.play(read_config={"files": {}}, propose_config={"number": 3})
    told.mail("please add the package jq", "iris", id="01mwish0000", attempt="2")
    told.play()
    assert len(told.calls) == 3


def test_a_call_that_was_cut_off_is_made_again_under_a_new_id(talk: Any) -> None:
    told = talk("iris").mail("run: sleep 5", id="01mrun00000")
    first = told.step()
    told.call(first)
    told.result("[Tool call interrupted: the process ended; the outcome is unknown]", error=True)
    told.mail("run: sleep 5", id="01mrun00000", attempt="2")
    again = told.step()
    assert again.call == first.call
    assert again.call_id != first.call_id
    told.call(again)
    told.result("slept")
    assert told.step().text == "slept"


def test_a_service_that_is_away_is_asked_again(talk: Any) -> None:
    told = talk("hm1nd").mail("spawn an agent called iris who draws")
    ids = set()
    for _ in range(3):
        step = told.step()
        ids.add(step.call_id)
        told.call(step)
        told.result("unavailable: approvals did not answer within 5 s (is the hive up?)", error=True)
    assert len(ids) == 3
    assert len({str(call) for call in told.calls}) == 1, "the same call, so that it takes effect once"
    assert "proposal 4" in told.play(request_spawn={"number": 4})


def test_a_service_that_stays_away_is_given_up(talk: Any) -> None:
    told = talk("hm1nd").mail("spawn an agent called iris who draws")
    assert "unavailable" in told.play(request_spawn=ValueError("unavailable: approvals did not answer"))
    assert len(told.calls) == 10


def test_a_tool_that_is_not_there_is_said(talk: Any) -> None:
    told = talk("iris").mail("remind yourself in 5 seconds to rest")
    told.tools = ["Bash"]
    assert "do not have the tool remind" in told.play()


def test_without_mail_it_says_so(talk: Any) -> None:
    told = talk("iris")
    told.messages.append({"role": "user", "content": "quota"})
    assert "rehearsal" in told.play()
