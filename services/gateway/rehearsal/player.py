"""Plays the rule of each mail up to the first call that has no result yet.

A rule is a generator that yields calls and is sent their results. It is run from its beginning at every request, and
fed the results that the conversation holds already; an id made of the mail and the call's place tells them apart. So
nothing is kept between requests, and a turn that is delivered again goes on where it was cut.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

from libhive.names import OPERATOR
from libhive.problems import Unavailable
from services.gateway.rehearsal import rules
from services.gateway.rehearsal.reading import Asked, Mail, Result
from services.gateway.rehearsal.rules import Call, Refused, Scene

TRIES_MAX = 10
"""Of a call while its service is away: some tens of seconds, as each try waits for its deadline."""
NOTHING_TO_SAY = "Done."
NO_MAIL = "This is the rehearsal model. It reads mail in <message> blocks, and here is none."


@dataclass(frozen=True, slots=True)
class Step:
    """What the model does next: a tool call, or, with none, the turn's last words."""

    text: str = ""
    call: Call | None = None
    call_id: str = ""


def next_step(me: str, asked: Asked) -> Step:
    if not asked.mail:
        return Step(NO_MAIL)
    alone = len(asked.mail) == 1
    words: list[str] = []
    for mail in asked.mail:
        step = _play(me, mail, asked, alone=alone)
        if step.call:
            return step
        if step.text:
            words.append(step.text)
    return Step("\n\n".join(words) or NOTHING_TO_SAY)


def _play(me: str, mail: Mail, asked: Asked, *, alone: bool) -> Step:
    """One mail's rule. The harness hands a turn's last words to the operator, as the answer to one mail; where several
    came, each of hers is answered by a message of its own."""
    scene = Scene(me=me, mail=mail, past=asked.past)
    step, told = _run(rules.script(scene), scene, asked)
    if (
        step.call
        or alone
        or mail.sender != OPERATOR
        or told
        or not step.text
        or rules.SEND not in asked.tools
    ):
        return step
    answer, _ = _run(rules.reply(scene, step.text), scene, asked)
    return answer if answer.call else replace(answer, text=step.text)


def _run(script: rules.Script, scene: Scene, asked: Asked) -> tuple[Step, bool]:
    """Up to the first call without a result, or to the end; and whether the operator was written to on the way."""
    place, told = 0, False
    try:
        call = next(script)
        while True:
            id, result = _result(scene, place, call, asked)
            if result is None:
                return Step(call=call, call_id=id), told
            told = told or (
                call.tool == rules.SEND and call.input.get("to") == OPERATOR and not result.is_error
            )
            place += 1
            call = script.throw(Refused(result.text)) if result.is_error else script.send(result)
    except StopIteration as end:
        return Step(end.value or ""), told
    except Refused as refused:
        return Step(f"That was refused: {refused}"), told


def _result(scene: Scene, place: int, call: Call, asked: Asked) -> tuple[str, Result | None]:
    """The id this call has, and what it gave if it was made before. One that was cut off, or that a service was away
    for, is made again, under a new id."""
    if call.tool not in asked.tools:
        return "", Result(
            f"I do not have the tool {call.tool.removeprefix(rules.HIVE_TOOLS)} here", is_error=True
        )
    key = json.dumps([scene.me, scene.mail.id, place, call.tool, call.input], sort_keys=True)
    stem = f"toolu_rehearsal_{hashlib.sha256(key.encode()).hexdigest()[:20]}_"
    tries = 0
    while (past := asked.past.get(f"{stem}{tries}")) is not None:
        tries += 1
        if past.result is not None and (tries == TRIES_MAX or not _is_away(past.result)):
            return past.id, past.result
    return f"{stem}{tries}", None


def _is_away(result: Result) -> bool:
    """Nobody answered; whether it took effect is not known, and the harness makes the same call take effect once."""
    return result.is_error and result.text.startswith(f"{Unavailable.code}:")


def as_block(step: Step) -> dict[str, Any]:
    """The step as a content block of the Messages API."""
    if step.call is None:
        return {"type": "text", "text": step.text}
    return {"type": "tool_use", "id": step.call_id, "name": step.call.tool, "input": step.call.input}
