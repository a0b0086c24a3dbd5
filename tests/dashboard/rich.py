"""A hive with something of everything in it, for tests that look at pages and for people who work on them."""

from __future__ import annotations

import msgspec

from libhive.clock import now_ms
from libhive.messages import approvals, broker, gateway, lifecycle, updater
from libhive.names import MANAGER
from libhive.paths import Paths
from libhive.problems import NotFound, StaleApproval
from libhive.spec import AgentSpec, Egress, files_for, resolve, with_egress
from libhive.testing.peer import Peer

CONTROLS = ["uid", "seccomp", "no-network", "read-only-root", "limits"]
HOSTILE = (
    "<script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>"
    " \u202egnp.exe\u202c and a zero\u200bwidth space [link](javascript:window.pwned=1)"
)
DIGEST = "9f2c4b1e7a60d35f8e21c4aa90b7d6e3"


def minutes(count: float) -> int:
    return int(count * 60_000)


def mail_id(number: int) -> str:
    return f"01test{number:020d}"


def agent(name: str, number: int, **more: object) -> lifecycle.Agent:
    fields: dict[str, object] = {
        "name": name,
        "desired": "running",
        "cage": "running",
        "cage_kind": "bubblewrap",
        "revision": number,
        "generation": 2,
        "uid": 524288 + 65536 * (number + 1),
        "page_port": 8000 if name == MANAGER else 8100 + number,
        "pid": 4000 + number,
        "since_ms": now_ms() - minutes(47 * (number + 1)),
        "controls": CONTROLS,
        "spec": AgentSpec(prompt=f"You are {name}."),
    }
    return lifecycle.Agent(**{**fields, **more})  # type: ignore[arg-type]


def agents() -> list[lifecycle.Agent]:
    drawing = AgentSpec(
        model="sonnet",
        packages=["imagemagick", "inkscape"],
        allowed_recipients=["hm1nd", "operator"],
        egress=Egress(mode="learn", allow=["pypi.org:443"]),
    )
    return [
        agent(MANAGER, 0),
        agent("iris", 1, spec=drawing),
        agent("atlas", 2, spec=AgentSpec(model="opus", packages=["git", "ripgrep"], env={"EDITOR": "vi"})),
        agent("quill", 3),
        agent(
            "bento", 4, cage="broken", detail="started 5 times in 10 minutes; the last exit was 137 (memory)"
        ),
        agent("mothership-of-the-long-name-27", 5, desired="stopped", cage="stopped", pid=0),
        agent("ghost", 6, since_ms=now_ms() - minutes(1)),
        agent("gone", 7, desired="destroyed", cage="absent", pid=0),
    ]


def peers() -> list[broker.Peer]:
    def peer(name: str, state: broker.HarnessState, **more: object) -> broker.Peer:
        fields = {
            "name": name,
            "connected": True,
            "state": state,
            "generation": 2,
            "version": "0.1.0",
            "model": "haiku",
        }
        return broker.Peer(**{**fields, "since_ms": now_ms(), **more})  # type: ignore[arg-type]

    return [
        peer(
            MANAGER,
            "running",
            status="waiting for the operator to look at proposal 7",
            turn="t-81",
            unacked=1,
        ),
        peer("iris", "idle", status="three sketches of the lighthouse are in /state/out", model="sonnet"),
        peer("atlas", "waiting-operator", model="opus", status="cannot go on without an answer", unacked=2),
        peer("quill", "idle", holds=["operator"], unacked=4),
        peer("ghost", "unknown", connected=False),
    ]


def receipts() -> list[broker.Receipt]:
    now = now_ms()
    number = 0
    found: list[int] = []

    def mail(
        ago: float,
        sender: str,
        to: str,
        body: str,
        state: broker.ReceiptState = "acked",
        *,
        more: int = 1,
        **rest: object,
    ) -> broker.Receipt:
        nonlocal number
        number += more
        at = now - minutes(ago)
        steps = ("stored", "offered", "seen", "acked")
        reached = steps[: steps.index(state) + 1] if state in steps else steps[:1]
        instants = {f"{step}_ms": at + index * 800 for index, step in enumerate(reached)}
        fields = {
            "id": mail_id(number),
            "sender": sender,
            "recipient": to,
            "kind": "message",
            "attempts": 1,
            "body": body,
            "seq": len(found) + 1,
        }
        found.append(number)
        return broker.Receipt(**{**fields, "state": state, **instants, **rest})  # type: ignore[arg-type]

    long = "\n".join(f"{line:3}  the tide table for the week, line {line}" for line in range(1, 60))
    return [
        mail(96, "operator", MANAGER, "spawn an agent called iris who draws"),
        mail(
            95,
            MANAGER,
            "operator",
            "I have proposed iris. She is waiting for your approval.",
            in_reply_to=mail_id(1),
        ),
        mail(90, "hive", MANAGER, "proposal 1 was approved", kind="news"),
        mail(71, "operator", "iris", "hello! please draw the lighthouse at dusk, three variants"),
        mail(
            70,
            "iris",
            "atlas",
            "which way does the lighthouse on the north pier face? I want the light to fall right.",
        ),
        mail(69, "atlas", "iris", "West-north-west. The lamp is 23 m above the sea.", in_reply_to=mail_id(5)),
        mail(40, "quill", "operator", long, "acked"),
        mail(31, "operator", "iris", "stand-up in ten minutes: one line each, please", "acked"),
        mail(31, "operator", "atlas", "stand-up in ten minutes: one line each, please", "seen", more=0),
        mail(31, "operator", "quill", "stand-up in ten minutes: one line each, please", "stored", more=0),
        mail(
            12,
            "atlas",
            "bento",
            "are you there?",
            "dead",
            attempts=5,
            reason="offered 5 times, no turn ended",
        ),
        mail(
            9,
            "iris",
            "operator",
            "Three sketches are ready: /state/out/dusk-1.png to dusk-3.png. Number two is the best.",
            "stored",
        ),
        mail(
            6, "operator", MANAGER, "iris would like a bigger model for the final version", "seen", attempts=2
        ),
        mail(2, "quill", "operator", HOSTILE, "stored"),
        mail(1, "operator", "atlas", "which branch is the release on?", "offered"),
    ]


def questions() -> list[broker.Question]:
    now = now_ms()
    return [
        broker.Question(
            id=mail_id(201),
            asker="atlas",
            recipient="operator",
            state="open",
            asked_ms=now - minutes(11),
            deadline_ms=now + minutes(4.3),
            text="A test fails on the release branch (net/test_retry.py). Shall I fix it, or revert the commit that broke it?",
            choices=["fix it on the branch", "revert the commit", "leave it and tell the team"],
            default="leave it and tell the team",
        ),
        broker.Question(
            id=mail_id(202),
            asker="iris",
            recipient="operator",
            text="What is the picture for? A poster wants other proportions than a web page.",
            choices=[],
            state="open",
            asked_ms=now - minutes(3),
        ),
        broker.Question(
            id=mail_id(203),
            asker="quill",
            recipient="iris",
            text="May I quote your tide table?",
            choices=["yes", "no"],
            state="open",
            asked_ms=now - minutes(20),
            deadline_ms=now + minutes(40),
        ),
        broker.Question(
            id=mail_id(204),
            asker="iris",
            recipient="operator",
            text="Dusk or dawn?",
            choices=["dusk", "dawn"],
            state="answered",
            asked_ms=now - minutes(80),
            answer="dusk",
            answered_by="operator",
            answered_ms=now - minutes(78),
        ),
        broker.Question(
            id=mail_id(205),
            asker="quill",
            recipient="operator",
            text="Keep the old drafts?",
            choices=["yes", "no"],
            state="expired",
            asked_ms=now - minutes(300),
            deadline_ms=now - minutes(240),
            default="yes",
            answer="yes",
        ),
    ]


def reminders() -> list[broker.Reminder]:
    now = now_ms()
    return [
        broker.Reminder(
            id=mail_id(301),
            agent="iris",
            text="look at the light again",
            due_ms=now + minutes(14),
            created_ms=now,
        ),
        broker.Reminder(
            id=mail_id(302),
            agent="quill",
            text="weekly summary for the operator",
            due_ms=now + minutes(3000),
            created_ms=now - minutes(90_000),
            cron="0 9 * * MON",
            zone="Europe/Berlin",
            catch_up="skip",
            set_by="operator",
            fired=6,
            last_ms=now - minutes(7_080),
        ),
    ]


def proposals() -> list[approvals.Proposal]:
    now = now_ms()

    def proposal(
        number: int, name: str, state: approvals.ProposalState, message: str, ago: float, **more: object
    ) -> approvals.Proposal:
        fields = {
            "number": number,
            "kind": "change_config",
            "agent": name,
            "state": state,
            "requester": MANAGER,
            "message": message,
        }
        fields |= {
            "created_ms": now - minutes(ago),
            "tags": [f"proposal/{number}"],
            "commit": "c0ffee" * 6,
            "base": "beef" * 10,
        }
        return approvals.Proposal(**{**fields, **more})  # type: ignore[arg-type]

    decided = {"decided_ms": now - minutes(20), "decided_by": "operator"}
    return [
        proposal(7, "iris", "proposed", "iris needs a bigger model and a font package for the poster", 5),
        proposal(6, "lyra", "proposed", "an agent that writes the captions", 16, kind="create_agent"),
        proposal(5, "atlas", "building", "ripgrep for atlas", 24, **decided),
        proposal(4, "quill", "denied", "give quill curl", 44, **decided, reason="it has no network anyway"),
        proposal(
            3,
            "bento",
            "failed",
            "more packages for bento",
            60,
            **decided,
            reason="the new generation did not become healthy within 60 s; back to generation 1",
        ),
        proposal(
            1,
            "iris",
            "deployed",
            "an agent who draws",
            95,
            kind="create_agent",
            **decided,
            tags=["proposal/1", "approved/1", "building/1", "deployed/1"],
        ),
    ]


def detail(request: approvals.ShowProposal) -> approvals.ProposalDetail:
    found = next((one for one in proposals() if one.number == request.number), None)
    if found is None:
        raise NotFound(f"there is no proposal {request.number}")
    effect = [
        approvals.EffectLine(field="prompt", risk="low", before="(4 lines)", after="(6 lines)"),
        approvals.EffectLine(
            field="model",
            risk="medium",
            before="sonnet",
            after="opus",
            note="about 5 times the price of sonnet",
        ),
        approvals.EffectLine(
            field="packages",
            risk="medium",
            before="imagemagick, inkscape",
            after="imagemagick, inkscape, fonts-inter",
        ),
        approvals.EffectLine(
            field="allowed_recipients",
            risk="high",
            before="hm1nd, operator",
            after="everybody",
            note="iris could write to every agent",
        ),
    ]
    toml = [
        "@@ -1,3 +1,2 @@",
        '-model = "sonnet"',
        '+model = "opus"',
        '-packages = ["imagemagick", "inkscape"]',
        '+packages = ["imagemagick", "inkscape", "fonts-inter"]',
        '-allowed_recipients = ["hm1nd", "operator"]',
    ]
    prompt = [
        "@@ -1,4 +1,6 @@",
        " You are iris. You draw.",
        " You keep sketches in /state/sketches.",
        "+When a drawing is to be printed, make it at 300 dpi,",
        "+with <U+202E>a bleed of 3 mm.",
        " Ask when you do not know what a drawing is for.",
    ]
    return approvals.ProposalDetail(
        proposal=found,
        effect=effect if found.state != "denied" else [],
        diff=[
            approvals.FileDiff(path="agent.toml", change="changed", lines=toml),
            approvals.FileDiff(
                path="prompt.md",
                change="changed",
                lines=prompt,
                warnings=["line 4 has an invisible character (U+202E), shown as <U+202E>"],
            ),
        ],
        rationale="The poster is A2. The bigger model keeps the perspective right, and Inter is what the printer asked for.\n\n"
        + HOSTILE,
        digest=DIGEST,
        blocked="" if found.state == "proposed" else f"it is already {found.state}",
    )


def deploys() -> list[updater.Deploy]:
    now = now_ms()
    return [
        updater.Deploy(
            id=mail_id(401),
            agent="atlas",
            proposal=5,
            step="drained",
            started_ms=now - minutes(1),
            updated_ms=now - 9_000,
            detail="waiting for the new generation",
        ),
        updater.Deploy(
            id=mail_id(402),
            agent="bento",
            proposal=3,
            step="failed",
            started_ms=now - minutes(60),
            updated_ms=now - minutes(58),
            detail="not healthy within 60 s",
        ),
        updater.Deploy(
            id=mail_id(403),
            agent="iris",
            proposal=1,
            step="recorded",
            started_ms=now - minutes(91),
            updated_ms=now - minutes(90),
        ),
    ]


def report() -> gateway.GatewayReport:
    usage = [
        gateway.Usage(agent=MANAGER, requests=81, errors=0, input_tokens=212_400, output_tokens=18_022),
        gateway.Usage(agent="iris", requests=40, errors=1, input_tokens=88_120, output_tokens=9_870),
    ]
    return gateway.GatewayReport(mode="rehearsal", upstream="", usage=usage)


def config(m: approvals.ReadConfig) -> approvals.Config:
    files = with_egress(files_for("You draw."), Egress(mode="learn" if m.agent == "iris" else "none"))
    return approvals.Config(agent=m.agent, revision=1, commit="c" * 40, files=files, spec=resolve(files))


def way_out(m: gateway.EgressStatus) -> gateway.EgressReport:
    if m.agent != "iris":
        return gateway.EgressReport(
            agent=m.agent, known=True, mode="none", allow=[], open=0, learned=[], decisions=[]
        )
    now = now_ms()
    reached = gateway.EgressDecision(
        at_ms=now - minutes(1),
        host="pypi.org",
        port=443,
        verdict="allowed",
        reason="listed",
        address="151.101.0.223",
        bytes_up=1_834,
        bytes_down=2_400_112,
        ended_ms=now,
    )
    still = msgspec.structs.replace(reached, host="github.com", reason="learn", bytes_down=88, ended_ms=0)
    detail = "metadata.example is 169.254.169.254 (link-local); it is let out only when [egress] allow lists it as well"
    refused = gateway.EgressDecision(
        at_ms=now - minutes(2),
        host="metadata.example",
        port=80,
        verdict="refused",
        reason="special-address",
        detail=detail,
        times=12,
        ended_ms=now,
    )
    return gateway.EgressReport(
        agent="iris",
        known=True,
        mode="learn",
        allow=["pypi.org:443"],
        open=1,
        learned=["github.com:443", "pypi.org:443"],
        decisions=[still, reached, refused],
    )


class Hive:
    """The five services the dashboard calls."""

    def __init__(self, paths: Paths, *, empty: bool = False) -> None:
        a, b, g, li, u = approvals, broker, gateway, lifecycle, updater
        self.approvals = Peer(
            paths,
            "approvals",
            [a.Approve, a.Deny, a.Proposals, a.Propose, a.ReadConfig, a.ShowProposal, a.Spawn],
        )
        self.broker = Peer(
            paths,
            "broker",
            [
                b.AckInbox,
                b.Answer,
                b.CancelReminder,
                b.History,
                b.Inbox,
                b.MessageStatus,
                b.Peers,
                b.Questions,
                b.Remind,
                b.Reminders,
                b.Send,
                b.SetHold,
                b.DropMail,
                b.RetryMail,
                b.Search,
            ],
        )
        self.gateway = Peer(paths, "gateway", [g.EgressStatus, g.GatewayStatus])
        self.lifecycle = Peer(
            paths, "lifecycle", [li.Agents, li.Destroy, li.Logs, li.Restart, li.Start, li.Stop]
        )
        self.updater = Peer(paths, "updater", [u.Deploys, u.PurgeAgent, u.Rebuild])
        self.all = [self.approvals, self.broker, self.gateway, self.lifecycle, self.updater]
        self._fill(empty)

    def _fill(self, empty: bool) -> None:
        people = [agents()[0]] if empty else agents()
        mail = [] if empty else receipts()[::-1]
        asked = [] if empty else questions()
        self.approvals.answers = {
            approvals.Approve: self._approve,
            approvals.Deny: lambda m: proposals()[0],
            approvals.Propose: approvals.Proposed(number=9),
            approvals.Proposals: approvals.ProposalList(proposals=[] if empty else proposals()),
            approvals.ReadConfig: config,
            approvals.ShowProposal: detail,
            approvals.Spawn: approvals.Proposed(number=8),
        }
        self.broker.answers = {
            broker.History: lambda m: broker.ReceiptList(receipts=mail if not m.before else []),
            broker.Inbox: broker.ReceiptList(
                receipts=[r for r in mail if r.recipient == "operator" and r.state != "acked"]
            ),
            broker.MessageStatus: lambda m: broker.ReceiptList(receipts=[r for r in mail if r.id == m.id]),
            broker.Peers: broker.PeerList(peers=peers()[:1] if empty else peers()),
            broker.Questions: lambda m: broker.QuestionList(
                questions=[q for q in asked if not m.open_only or q.state == "open"]
            ),
            broker.Remind: broker.Reminded(id=mail_id(303), due_ms=now_ms() + minutes(60)),
            broker.Reminders: broker.ReminderList(reminders=[] if empty else reminders()),
            broker.Search: broker.Found(receipts=[]),
            broker.Send: lambda m: broker.Sent(id=mail_id(900), recipients=m.to),
        }
        self.gateway.answers = {gateway.EgressStatus: way_out, gateway.GatewayStatus: report()}
        self.lifecycle.answers = {
            lifecycle.Agents: lifecycle.AgentList(agents=people),
            lifecycle.Destroy: people[0],
            lifecycle.Logs: lifecycle.LogText(text="up\n"),
            lifecycle.Restart: people[0],
            lifecycle.Start: people[0],
            lifecycle.Stop: people[0],
        }
        self.updater.answers = {
            updater.Deploys: updater.DeployList(deploys=[] if empty else deploys()),
            updater.PurgeAgent: updater.Purge(
                id="purge", agent="iris", step="asked", started_ms=1, updated_ms=1
            ),
            updater.Rebuild: deploys()[0],
        }

    def _approve(self, m: approvals.Approve) -> approvals.Proposal:
        if m.digest != DIGEST:
            raise StaleApproval("what you saw is not what would be deployed")
        return proposals()[0]

    def start(self) -> None:
        for peer in self.all:
            peer.start()

    def stop(self) -> None:
        for peer in self.all:
            peer.stop()
