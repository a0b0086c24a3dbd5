"""One of each thing that a service may answer."""

from __future__ import annotations

from libhive.messages.approvals import EffectLine, FileDiff, Proposal, ProposalDetail
from libhive.messages.broker import Peer, Question, Receipt
from libhive.messages.gateway import EgressDecision, EgressReport, GatewayReport
from libhive.messages.lifecycle import Agent
from libhive.messages.updater import Deploy
from libhive.spec import AgentSpec

ID = "01m0000000000000000000abcd"
OTHER_ID = "01m0000000000000000000wxyz"


def agent(name: str = "iris", **changed: object) -> Agent:
    fields = {
        "name": name,
        "desired": "running",
        "cage": "running",
        "cage_kind": "bubblewrap",
        "revision": 1,
        "generation": 2,
        "uid": 589824,
        "page_port": 8100,
        "spec": AgentSpec(prompt="You draw."),
    }
    return Agent(**{**fields, **changed})  # type: ignore[arg-type]


def peer(name: str = "iris", **changed: object) -> Peer:
    fields = {"name": name, "connected": True, "state": "idle", "status": "drawing a cat", "generation": 2}
    return Peer(**{**fields, **changed})  # type: ignore[arg-type]


def receipt(body: str = "hello", **changed: object) -> Receipt:
    fields = {
        "id": ID,
        "sender": "iris",
        "recipient": "operator",
        "kind": "message",
        "state": "stored",
        "attempts": 0,
        "stored_ms": 1_795_000_000_000,
        "body": body,
    }
    return Receipt(**{**fields, **changed})  # type: ignore[arg-type]


def question(**changed: object) -> Question:
    fields = {
        "id": ID,
        "asker": "iris",
        "recipient": "operator",
        "text": "Which colour?",
        "choices": ["red", "blue"],
        "state": "open",
        "asked_ms": 1_795_000_000_000,
    }
    return Question(**{**fields, **changed})  # type: ignore[arg-type]


def proposal(**changed: object) -> Proposal:
    fields = {
        "number": 1,
        "kind": "create_agent",
        "agent": "iris",
        "state": "proposed",
        "requester": "hm1nd",
        "message": "an agent who draws",
        "created_ms": 1_795_000_000_000,
        "commit": "c" * 40,
        "tags": ["proposal/1"],
    }
    return Proposal(**{**fields, **changed})  # type: ignore[arg-type]


def detail(**changed: object) -> ProposalDetail:
    fields = {
        "proposal": proposal(),
        "effect": [EffectLine(field="model", risk="low", before="", after="haiku")],
        "diff": [FileDiff(path="agent.toml", change="added", lines=["@@ -0,0 +1 @@", '+model = "haiku"'])],
        "rationale": "because you asked",
        "digest": "d" * 64,
    }
    return ProposalDetail(**{**fields, **changed})  # type: ignore[arg-type]


def report(**changed: object) -> GatewayReport:
    return GatewayReport(**{"mode": "rehearsal", "upstream": "", **changed})  # type: ignore[arg-type]


def deploy(**changed: object) -> Deploy:
    fields = {
        "id": ID,
        "agent": "iris",
        "proposal": 0,
        "step": "approved",
        "started_ms": 1_795_000_000_000,
        "updated_ms": 1_795_000_000_000,
    }
    return Deploy(**{**fields, **changed})  # type: ignore[arg-type]


def way_out(**changed: object) -> EgressReport:
    refused = EgressDecision(
        at_ms=1_795_000_000_000,
        host="evil\x1b[31m.org",
        port=443,
        verdict="refused",
        reason="not-listed",
        times=3,
        ended_ms=1_795_000_000_000,
    )
    fields = {
        "agent": "iris",
        "known": True,
        "mode": "learn",
        "allow": ["pypi.org:443"],
        "open": 1,
        "learned": ["github.com:443", "pypi.org:443"],
        "decisions": [refused],
    }
    return EgressReport(**{**fields, **changed})  # type: ignore[arg-type]
