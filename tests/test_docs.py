"""What the documents promise is what the code has."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from libhive.messages.registry import EVENTS, REQUESTS
from libhive.problems import PROBLEMS

ROOT = Path(__file__).parent.parent
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()


@pytest.mark.parametrize("kind", [*REQUESTS, *EVENTS])
def test_every_message_and_field_is_documented(kind: str) -> None:
    message = {**REQUESTS, **EVENTS}[kind]
    (row, *_) = [line for line in PROTOCOL.splitlines() if line.startswith(f"| `{kind}` |")] or [PROTOCOL]
    assert f"`{kind}`" in row, f"docs/protocol.md has no row for {kind}"
    missing = [field.name for field in msgspec.structs.fields(message) if f"`{field.name}" not in row]
    assert not missing, f"the row of {kind} in docs/protocol.md does not name {missing}"


@pytest.mark.parametrize("kind", [kind for kind in REQUESTS if kind != "ping"])
def test_every_reply_and_field_is_documented(kind: str) -> None:
    reply = REQUESTS[kind].REPLY
    if not msgspec.structs.fields(reply):
        return
    rows = [line for line in PROTOCOL.splitlines() if line.startswith(f"| `{reply.__name__}` |")]
    assert rows, f"docs/protocol.md has no row for {reply.__name__}"
    missing = [
        field.name
        for field in msgspec.structs.fields(reply)
        if not any(f"`{field.name}" in row for row in rows)
    ]
    assert not missing, f"the row of {reply.__name__} does not name {missing}"


@pytest.mark.parametrize("code", PROBLEMS)
def test_every_problem_is_documented(code: str) -> None:
    assert f"| `{code}` |" in PROTOCOL


@pytest.mark.parametrize("registry", [REQUESTS, EVENTS])
def test_registries_are_in_alphabetical_order(registry: dict[str, type]) -> None:
    names = [(kind.__module__, kind.__name__) for kind in registry.values()]
    assert names == sorted(names)


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    import re

    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
