"""What a proposal would change, field by field, computed from the two resolved configurations alone."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from libhive import destinations
from libhive.messages.approvals import EffectLine, Risk
from libhive.names import MANAGER
from libhive.spec import AgentSpec, Egress, EgressMode, Limits, McpServer, RootKind
from services.approvals.diff import visible

RISKS: Final[tuple[Risk, ...]] = ("high", "medium", "low", "none")


ROOTS: Final[Mapping[RootKind, str]] = {
    "debian": "its programs are Debian packages of its own, no longer this host's",
    "host": "it sees every program of this host",
    "nix": "it sees every program of this host, and a closure of Nix",
}


def compare(
    agent: str, before: AgentSpec | None, after: AgentSpec, *, comes_back: bool = False
) -> list[EffectLine]:
    """Riskiest first. Every field of AgentSpec is looked at: one without a comparison of its own is high
    risk."""
    lines = [] if before else [_line("agent", "medium", "", f"a new agent, {agent}")]
    if comes_back:
        lines.append(_line("agent", "medium", "destroyed", "comes back, with its mailbox and its /state"))
    if agent == MANAGER:
        lines.append(
            _line(
                "agent",
                "medium",
                MANAGER,
                MANAGER,
                note="the manager, which alone may propose and start agents",
            )
        )
    for field in AgentSpec.__struct_fields__:
        compared = COMPARISONS.get(field, _unknown(field))(before, after)
        lines += compared
    if not lines:
        lines.append(_line("files", "none", "", "comments or layout only: what the agent is stays the same"))
    return sorted(lines, key=lambda line: RISKS.index(line.risk))


def with_missing(lines: list[EffectLine], missing: frozenset[str], hint: str) -> list[EffectLine]:
    """The packages that this host does not have, said where they are asked for."""
    return [
        msgspec.structs.replace(line, note=f"not installed on this host, so the deploy would fail; {hint}")
        if line.field == "packages" and line.after in missing
        else line
        for line in lines
    ]


def _model(before: AgentSpec | None, after: AgentSpec) -> list[EffectLine]:
    old = before.model if before else ""
    return [_line("model", "low", old, after.model)] if old != after.model else []


def _prompt(before: AgentSpec | None, after: AgentSpec) -> list[EffectLine]:
    """The text itself is in the diff. More than half of it new is another agent under an old name."""
    old = before.prompt if before else ""
    if old == after.prompt:
        return []
    kept = set(old.splitlines()) & set(after.prompt.splitlines())
    mostly_new = len(kept) * 2 < len(set(after.prompt.splitlines()))
    return [_line("prompt", "medium" if mostly_new else "low", _size(old), _size(after.prompt))]


def _packages(before: AgentSpec | None, after: AgentSpec) -> list[EffectLine]:
    old, new = set(before.packages if before else ()), set(after.packages)
    added = [_line("packages", "medium", "", name) for name in sorted(new - old)]
    return added + [_line("packages", "low", name, "") for name in sorted(old - new)]


def _root(before: AgentSpec | None, after: AgentSpec) -> list[EffectLine]:
    """The host's own is what every agent has had that does not say."""
    old = before.root if before else "host"
    return [_line("root", "medium", old, after.root, note=ROOTS[after.root])] if old != after.root else []


def _inputs(before: AgentSpec | None, after: AgentSpec) -> list[EffectLine]:
    old = before.inputs if before else ""
    note = "its root is built anew, from the packages as they are now"
    return [_line("inputs", "low", old, after.inputs, note=note)] if old != after.inputs else []


def _recipients(before: AgentSpec | None, after: AgentSpec) -> list[EffectLine]:
    new = after.allowed_recipients
    if before is None:
        return [_line("allowed_recipients", "low", "", _names(new))]
    old = before.allowed_recipients
    if _same(old, new):
        return []
    widened = new is None or (old is not None and not set(new) <= set(old))
    return [_line("allowed_recipients", "high" if widened else "low", _names(old), _names(new))]


def _env(before: AgentSpec | None, after: AgentSpec) -> list[EffectLine]:
    return _each("env", "medium", before.env if before else {}, after.env, _quoted)


def _egress(before: AgentSpec | None, after: AgentSpec) -> list[EffectLine]:
    """The mode, then what can be reached by the list that could not be before, then what no more can."""
    old, new = before.egress if before else Egress(), after.egress
    lines = []
    if old.mode != new.mode:
        risk, note = _MODES[new.mode]
        lines.append(_line("egress.mode", risk, old.mode, new.mode, note))
    reached, reaches = _in_force(old), _in_force(new)
    for text in sorted(set(new.allow) - reached):
        risk, note = _entry(text) if text in reaches else ("low", "not in force: egress.mode is none")
        if text in reaches or text not in old.allow:
            lines.append(_line("egress.allow", risk, "", text, note))
    gone = (set(old.allow) - set(new.allow)) | (reached - reaches)
    return lines + [_line("egress.allow", "low", text, "") for text in sorted(gone)]


_MODES: Final[dict[EgressMode, tuple[Risk, str]]] = {
    "none": ("low", "nothing but the model can be reached"),
    "allow": ("medium", "what the list lets through, and nothing else"),
    "learn": ("high", "everything on the internet can be reached, and sent to, until this is changed again"),
}


def _in_force(egress: Egress) -> set[str]:
    return set() if egress.mode == "none" else set(egress.allow)


def _entry(text: str) -> tuple[Risk, str]:
    entry = destinations.entry(text)
    if entry.is_wildcard:
        return "high", f"whoever can make names under {entry.host[2:]} decides where it leads"
    if entry.address is not None and (kind := destinations.special(entry.address)):
        return "high", f"a {kind} address: not the internet, but something near this host, or the host itself"
    return "medium", "an address may be this host's own" if entry.address is not None else ""


def _mcp_servers(before: AgentSpec | None, after: AgentSpec) -> list[EffectLine]:
    return _each("mcp_servers", "high", before.mcp_servers if before else {}, after.mcp_servers, _server)


def _limits(before: AgentSpec | None, after: AgentSpec) -> list[EffectLine]:
    """More of the host is a risk for everybody else on it. The defaults of a new agent go without saying."""
    old = before.limits if before else Limits()
    changes = ((name, getattr(old, name), getattr(after.limits, name)) for name in Limits.__struct_fields__)
    return [
        _line(f"limits.{name}", "medium" if new > was else "low", str(was) if before else "", str(new))
        for name, was, new in changes
        if new != was
    ]


COMPARISONS: Final[dict[str, Callable[[AgentSpec | None, AgentSpec], list[EffectLine]]]] = {
    "allowed_recipients": _recipients,
    "egress": _egress,
    "env": _env,
    "inputs": _inputs,
    "limits": _limits,
    "mcp_servers": _mcp_servers,
    "model": _model,
    "packages": _packages,
    "prompt": _prompt,
    "root": _root,
}


def _unknown(field: str) -> Callable[[AgentSpec | None, AgentSpec], list[EffectLine]]:
    def compared(before: AgentSpec | None, after: AgentSpec) -> list[EffectLine]:
        old, new = getattr(before, field, None), getattr(after, field)
        return (
            []
            if old == new
            else [_line(field, "high", _quoted(old), _quoted(new), note="no comparison knows this field")]
        )

    return compared


def _each(
    field: str,
    risk: Risk,
    before: Mapping[str, object],
    after: Mapping[str, object],
    show: Callable[[object], str],
) -> list[EffectLine]:
    """One line per entry that is added, changed or (low risk) removed."""
    return [
        _line(
            f"{field}.{name}",
            risk if name in after else "low",
            show(before[name]) if name in before else "",
            show(after[name]) if name in after else "",
        )
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


def _server(server: object) -> str:
    assert isinstance(server, McpServer)
    settings = [f"{name}={shlex.quote(value)}" for name, value in sorted(server.env.items())]
    return " ".join([*settings, shlex.join([server.command, *server.args])])


def _same(old: list[str] | None, new: list[str] | None) -> bool:
    return (None if old is None else set(old)) == (None if new is None else set(new))


def _names(names: list[str] | None) -> str:
    return "everybody" if names is None else ", ".join(sorted(set(names))) or "nobody"


def _size(text: str) -> str:
    return f"{len(text.splitlines())} lines, {len(text)} characters" if text else ""


def _quoted(value: object) -> str:
    """In quotes, so that a value cannot pass for the absence of one, nor hide a blank at its end."""
    return msgspec.json.encode(value).decode()


def _line(field: str, risk: Risk, before: str, after: str, note: str = "") -> EffectLine:
    return EffectLine(
        field=visible(field), risk=risk, before=visible(before), after=visible(after), note=note
    )
