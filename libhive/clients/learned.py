"""From what an agent used while it learned to the one proposal that lists exactly that."""

from __future__ import annotations

from libhive.clients.approvals import Approvals
from libhive.clients.gateway import Gateway
from libhive.link import Link
from libhive.messages.approvals import Proposed
from libhive.problems import Conflict
from libhive.spec import AGENT_TOML, Egress, with_egress


async def propose_learned(link: Link, agent: str, id: str | None = None) -> Proposed:
    """Raises Conflict when the agent does not learn, or a proposal for it waits already."""
    report, config = await Gateway(link).egress(agent, limit=1), await Approvals(link).read_config(agent)
    if report.mode != "learn" or config.spec.egress.mode != "learn":
        raise Conflict(
            f"{agent} does not learn: its [egress] mode is {config.spec.egress.mode}",
            'to begin, propose mode = "learn" for it; what it then uses is collected',
        )
    found = Egress(mode="allow" if report.learned else "none", allow=report.learned)
    files = with_egress(config.files, found)
    what = f"the {len(report.learned)} destinations" if len(report.learned) != 1 else "the one destination"
    message = f"{agent} may reach {what} that it used while it learned, and nothing else"
    return await Approvals(link).propose(agent, {AGENT_TOML: files[AGENT_TOML]}, message, id=id)
