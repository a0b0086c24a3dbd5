"""An agent's way out to the network: what it may reach, what it did, and the end of learning."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from libhive.admin import arguments
from libhive.admin.session import Session
from libhive.admin.standing import known
from libhive.clients.learned import propose_learned
from libhive.problems import NotFound

EXAMPLES = (
    "hive-admin egress iris\nhive-admin egress iris --lines 500 --json\nhive-admin egress iris --propose"
)
DETAIL = (
    "What may be reached stands in the agent's configuration ([egress] in agent.toml), and changes by a proposal. While\n"
    'its mode is "learn", all that is public can be reached, and what is used is collected; --propose ends that with one\n'
    "proposal that lists exactly what was used."
)


def egress_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", type=arguments.agent, help="an agent")
    parser.add_argument(
        "--lines", "-n", metavar="N", type=arguments.decisions, default=40, help="how many decisions (40)"
    )
    parser.add_argument(
        "--propose", action="store_true", help="propose the list of what was used while it learned"
    )


async def egress(session: Session, given: Namespace) -> int:
    if given.propose:
        return await _propose(session, given.name)
    report = await session.gateway.egress(given.name, given.lines)
    if not report.known and not await known(session, [given.name]):
        raise NotFound(f"there is no agent {given.name!r}", "who there is: hive-admin agents")
    if not session.show(report):
        session.screen.egress(report)
    return 0


async def _propose(session: Session, name: str) -> int:
    await session.ping("approvals")
    proposed = await propose_learned(session.link, name)
    detail = await session.approvals.show(proposed.number)
    if not session.show(detail):
        session.screen.effect(detail)
        session.screen.say(f"approve it with: hive-admin approve {proposed.number}")
    return 0
