"""The harness's own main, with other limits. HIVE_TEST_LIMITS: fields of Settings, as JSON; HIVE_TEST_HASTE: how many
times shorter every wait after a failure is; HIVE_TEST_DEAF: how many times the tools refuse to be listed."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

from libhive.harness import __main__, mcp, policy, settings

_read = settings.Settings.from_environment
_list = mcp.McpServer._list
_deaf = int(os.environ.get("HIVE_TEST_DEAF", "0"))


def _limited(environ: Mapping[str, str]) -> settings.Settings:
    return dataclasses.replace(_read(environ), **json.loads(environ.get("HIVE_TEST_LIMITS", "{}")))


def _hasten(times: float) -> None:
    for outcome, kept in policy.POLICIES.items():
        policy.POLICIES[outcome] = dataclasses.replace(
            kept, wait_seconds=kept.wait_seconds / times, wait_seconds_max=kept.wait_seconds_max / times
        )


async def _sometimes(self: mcp.McpServer, params: dict[str, Any]) -> dict[str, Any]:
    global _deaf
    _deaf -= 1
    if _deaf >= 0:
        raise RuntimeError("not now")
    return await _list(self, params)


if __name__ == "__main__":
    settings.Settings.from_environment = _limited  # type: ignore[method-assign, assignment]
    mcp.McpServer._list = _sometimes  # type: ignore[method-assign]
    _hasten(float(os.environ.get("HIVE_TEST_HASTE", "1")))
    __main__.main()
