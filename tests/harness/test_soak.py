"""Everything is killed, again and again, while mail flows: each mail has its effect exactly once."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
from typing import Any

from tests.harness.api import ScriptedApi, text, tool
from tests.harness.rig import Rig, until

MAILS = 12
KILLS = 7
_NUMBER = re.compile(r"number (\d+)\n</message>")


def dutiful(body: dict[str, Any]) -> dict[str, Any]:
    """A model that tells bob of each mail, and of one that it is given again it tells him again."""
    asked: list[str] = []
    told: dict[str, str] = {}
    for message in body["messages"]:
        content = message["content"]
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if block.get("type") == "text":
                given = _NUMBER.findall(block["text"])
                asked += given
                told = {id: number for id, number in told.items() if number not in given}
            elif block.get("type") == "tool_use":
                told[block["id"]] = block["input"]["text"].removeprefix("got ")
            elif block.get("type") == "tool_result" and "recipients" not in json.dumps(block["content"]):
                told.pop(block["tool_use_id"], None)
    left = [number for number in dict.fromkeys(asked) if number not in told.values()]
    return tool("send", {"to": "bob", "text": f"got {left[0]}"}) if left else text("all told")


class DutifulApi(ScriptedApi):
    async def _messages(self, request: Any) -> Any:
        self.script = [dutiful(await request.json())]
        await asyncio.sleep(
            0.4 if "text" in self.script[0] else 0.05
        )  # most kills shall meet a turn that has done something
        return await super()._messages(request)


async def test_nothing_is_lost_or_doubled_whatever_is_killed(rig: Rig) -> None:
    seed = int(os.environ.get("HIVE_TEST_SEED", random.SystemRandom().randrange(1_000_000)))
    print(f"replay with HIVE_TEST_SEED={seed}")
    chance = random.Random(seed)
    await rig.api.stop()
    rig.api = DutifulApi(rig.paths.door(rig.agent, "gateway"))
    await rig.api.start()
    rig.more_environ["HIVE_TEST_HASTE"] = "20"
    await rig.start_harness()
    sent: list[str] = []
    for round in range(KILLS):
        for _ in range(chance.randint(1, 2)):
            if len(sent) < MAILS:
                sent.append(await rig.send(f"number {len(sent)}"))
        await asyncio.sleep(chance.uniform(0.0, 0.6))
        await kill(rig, chance.choice(["harness", "cli", "broker"]))
        if round % 2:
            await until("some progress", lambda: rig.receipt_in(sent[-1], "acked"))
    while len(sent) < MAILS:
        sent.append(await rig.send(f"number {len(sent)}"))
    for id in sent:
        await rig.until_acked(id)
    told = [receipt.body for receipt in await rig.inbox("bob")]
    assert sorted(told) == sorted(f"got {number}" for number in range(MAILS))


async def kill(rig: Rig, what: str) -> None:
    if what == "harness":
        await rig.kill_harness()
        await rig.start_harness(wait=False)
    elif what == "broker":
        await rig.kill_broker()
        await rig.start_broker()
    else:
        for pid in rig.claude_pids():
            os.kill(pid, signal.SIGKILL)
