"""A `claude` that misbehaves: it speaks the protocol, with everything in between that a newer one might say."""

from __future__ import annotations

import json
import sys

STRANGE = [
    "not json at all", "", "null", "3", "[]", '"text"', '{"type": 3}', "{}", '{"type": "system"}',
    '{"type": "from_the_future", "depth": ' + "[" * 200 + "]" * 200 + "}",
    '{"type": "assistant"}', '{"type": "assistant", "message": "words"}',
    '{"type": "assistant", "message": {"content": "words"}, "error": {"a": 1}}',
    '{"type": "assistant", "message": {"content": [3, null, {"type": "tool_use"}]}}',
    '{"type": "command_lifecycle"}', '{"type": "command_lifecycle", "state": "started", "command_uuid": "nobody"}',
    '{"type": "command_lifecycle", "state": ["started"], "command_uuid": {}}',
    '{"type": "rate_limit_event"}', '{"type": "rate_limit_event", "rate_limit_info": "soon"}',
    '{"type": "rate_limit_event", "rate_limit_info": {"status": "rejected", "resetsAt": "tomorrow"}}',
    '{"type": "system", "subtype": "api_retry"}', '{"type": "user", "message": "\\ud800 lone surrogate"}',
    '{"type": "control_response"}', '{"type": "control_response", "response": {"request_id": 7}}',
]  # fmt: skip


def say(event: object) -> None:
    sys.stdout.write((event if isinstance(event, str) else json.dumps(event)) + "\n")
    sys.stdout.flush()


def turn(id: str) -> None:
    tools = {"tools": ["mcp__hive__send"], "mcp_servers": [{"name": "hive", "status": "connected"}, "odd"]}
    say({"type": "command_lifecycle", "state": "queued", "command_uuid": id})
    say({"type": "command_lifecycle", "state": "started", "command_uuid": id})
    say({"type": "system", "subtype": "init", **tools})
    for line in STRANGE:
        say(line)
    sys.stdout.buffer.write(b'{"type": "bytes", "x": "\xff\xfe"}\n')
    usage = {"odd": 3, "haiku": {"inputTokens": "many", "outputTokens": 5}}
    say(
        {
            "type": "result",
            "is_error": False,
            "result": "strange but true",
            "model_usage_since_last_result": usage,
        }
    )


def main() -> None:
    if "--version" in sys.argv:
        print("2.1.330 (Claude Code)")
        return
    for line in sys.stdin:
        message = json.loads(line)
        if message["type"] == "control_request":
            servers = [{"name": "hive", "status": "connected", "tools": [{"name": "send"}]}]
            answer = {
                "subtype": "success",
                "request_id": message["request_id"],
                "response": {"mcpServers": servers},
            }
            say({"type": "control_response", "response": answer})
        else:
            turn(message["uuid"])


main()
