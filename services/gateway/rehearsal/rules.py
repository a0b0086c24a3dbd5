"""What the rehearsal model plays. RULES is read from the top: the first rule that fits a mail plays it.

A rule's `play` is a generator: it yields tool calls, is sent their results, and returns what to tell whoever wrote
(to the operator that becomes the answer to her mail; an agent is only told what is sent to it). A call that fails
raises Refused at its `yield`. Where nothing is to be called, it simply returns the words. A new rule is a line in
RULES, its few lines above, and a row in docs/rehearsal.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from libhive.names import HIVE, MANAGER, OPERATOR, AgentName, agent_name
from libhive.problems import BadRequest
from libhive.spec import AGENT_TOML
from services.gateway.rehearsal import packages
from services.gateway.rehearsal.reading import Mail, PastCall, Result

HIVE_TOOLS = "mcp__hive__"
SEND = HIVE_TOOLS + "send"
READ_CHARACTERS_MAX = 1_000
"""How much of a mail a pattern sees."""
SAID_CHARACTERS_MAX = 20_000
SECONDS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}


@dataclass(frozen=True, slots=True)
class Call:
    tool: str
    input: dict[str, Any]


class Refused(Exception):  # noqa: N818 - an expected outcome, not an error of the program
    """A tool call failed; the text is what the tool said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One mail as a rule sees it."""

    me: str
    mail: Mail
    past: dict[str, PastCall]
    words: dict[str, str] = field(default_factory=dict)
    """The named groups of the rule's pattern."""

    @property
    def asker(self) -> str:
        return "you" if self.mail.sender == OPERATOR else self.mail.sender


Script = Generator[Call, Result, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    name: str
    play: Callable[[Scene], Script | str]
    kind: str = "message"
    sender: Literal["anyone", "operator", "agent"] = "anyone"
    me: Literal["anyone", "manager"] = "anyone"
    says: re.Pattern[str] | None = None
    what: str = ""
    """For news."""

    def fits(self, me: str, mail: Mail) -> dict[str, str] | None:
        """The words its pattern found, if this rule is for this mail."""
        if self.kind != mail.kind or (self.what and self.what != mail.get("what")):
            return None
        if self.me == "manager" and me != MANAGER:
            return None
        if self.sender != "anyone" and (self.sender == "operator") != (mail.sender == OPERATOR):
            return None
        if self.says is None:
            return {}
        found = self.says.search(mail.body[:READ_CHARACTERS_MAX].strip())
        return {key: value or "" for key, value in found.groupdict().items()} if found else None


def script(scene: Scene) -> Script:
    for rule in RULES:
        words = rule.fits(scene.me, scene.mail)
        if words is not None:
            played = rule.play(Scene(me=scene.me, mail=scene.mail, past=scene.past, words=words))
            return _said(played) if isinstance(played, str) else played
    return _said(nothing(scene))


def _said(text: str) -> Script:
    yield from ()
    return text


def reply(scene: Scene, text: str) -> Script:
    """A message of its own that answers the mail."""
    yield send(scene.mail.sender, text, scene.mail.id)
    return text


# ---- calls


def hive(tool: str, **input: Any) -> Call:
    return Call(
        HIVE_TOOLS + tool, {key: value for key, value in input.items() if value not in ("", [], None)}
    )


def send(to: str, text: str, in_reply_to: str = "") -> Call:
    return hive("send", to=to, text=text[:SAID_CHARACTERS_MAX], in_reply_to=in_reply_to)


# ---- what is played when mail of a kind comes


def answer_question(scene: Scene) -> Script:
    """bob, asked by iris."""
    choices, question = scene.mail.choices, scene.mail.body.strip()
    text = (
        choices[0]
        if choices
        else f"This is {scene.me}, rehearsing. You asked {question!r:.300}; all is well here."
    )
    yield hive("answer", question=scene.mail.get("question"), text=text)
    return f"I answered {scene.asker}: {text}"


def pass_answer_on(scene: Scene) -> Script:
    """The answer to a question of mine: the operator hears of it."""
    answer, who = scene.mail.body.strip(), scene.mail.sender
    if who == OPERATOR:
        text = f"You chose {answer}. I go on with that."
    elif who in (HIVE, scene.me):
        text = f"No answer came in time: {answer}"
    else:
        text = f"{who} answers: {answer}"
    yield send(OPERATOR, text, scene.mail.id if who == OPERATOR else "")
    return text


def report_reminder(scene: Scene) -> Script:
    text = f"My reminder is due: {scene.mail.body.strip()}"
    yield send(OPERATOR, text)
    return text


def report_deployed(scene: Scene) -> Script:
    agent, number = scene.mail.get("agent"), scene.mail.get("proposal")
    if _was_spawned(scene):
        return (yield from _report(scene, f"{agent} is up: proposal {number} is deployed. Say hello to it."))
    return (yield from _report(scene, f"Proposal {number} is deployed: {agent} runs with it now.", agent))


def report_failed(scene: Scene) -> Script:
    agent, number, reason = (scene.mail.get(name) for name in ("agent", "proposal", "reason"))
    text = f"Proposal {number} for {agent} could not be deployed: {reason or 'no reason was given'}"
    return (yield from _report(scene, text, "" if _was_spawned(scene) else agent))


def report_decided(scene: Scene) -> Script:
    agent, number, decision = (scene.mail.get(name) for name in ("agent", "proposal", "decision"))
    if decision == "approved":
        return f"Proposal {number} for {agent} is approved; I wait for its deploy."
    text = f"Proposal {number} for {agent} was {decision or 'decided'}: {scene.mail.get('reason') or 'no reason was given'}"
    return (yield from _report(scene, text, "" if _was_spawned(scene) else agent))


def note_news(scene: Scene) -> str:
    return f"Noted: {scene.mail.get('what') or 'news'}."


# ---- what is played when the operator says so


def run_command(scene: Scene) -> Script:
    try:
        result = yield Call(
            "Bash", {"command": scene.words["command"], "description": "What the operator asked to run"}
        )
    except Refused as refused:
        return f"That failed:\n{str(refused)[:SAID_CHARACTERS_MAX]}"
    return result.text[:SAID_CHARACTERS_MAX] or "(no output)"


def set_status(scene: Scene) -> Script:
    text = scene.words["text"].strip(" .")
    yield hive("status", text=text)
    return f"My status is now: {text}"


def spawn_agent(scene: Scene) -> Script:
    try:
        name = agent_name(scene.words["name"].lower())
    except BadRequest as problem:
        return f"I cannot spawn that: {problem.message} ({problem.hint})"
    purpose = _purpose(scene.words["purpose"])
    result = yield hive(
        "request_spawn",
        name=name,
        prompt=_prompt(name, purpose),
        rationale=f"The operator asked for {name}{purpose}.",
    )
    number = result.get("number")
    return f"I proposed {name}{purpose}, as proposal {number}. Look at it and approve it: hive-admin approve {number}"


def add_package(scene: Scene) -> Script:
    """The manager, for the agent that asks or that the operator names."""
    agent = (scene.words.get("agent") or scene.mail.sender).lower()
    text = yield from _propose_packages(agent, _names(scene.words["names"]), scene)
    if scene.mail.sender != OPERATOR:
        yield send(scene.mail.sender, text, scene.mail.id)
    return text


def need_package(scene: Scene) -> Script:
    names = _names(scene.words["names"])
    if scene.me == MANAGER:
        return (yield from _propose_packages(scene.me, names, scene))
    yield send("manager", f"please add the package{'s' if len(names) > 1 else ''} {' and '.join(names)}")
    return f"I asked the manager for {' and '.join(names)}."


def set_reminder(scene: Scene) -> Script:
    text, number, unit = scene.words["text"].strip(" ."), scene.words["number"], scene.words["unit"]
    yield hive("remind", text=text, after_seconds=int(number) * SECONDS[unit])
    return f"I will be reminded in {number} {unit}{'' if number == '1' else 's'}: {text}"


def ask_somebody(scene: Scene) -> Script:
    whom = scene.words["whom"].lower()
    to = scene.mail.sender if whom == "me" else OPERATOR if whom.endswith(OPERATOR) else whom
    question, choices = _question(scene.words["question"])
    deadline = int(scene.words["number"] or 0) * SECONDS.get(scene.words["unit"], 0)
    yield hive("ask", to=to, question=question, choices=choices, deadline_seconds=deadline or None)
    return f"I asked {scene.asker if to == scene.mail.sender else to}: {question}"


def tell_somebody(scene: Scene) -> Script:
    to, text = scene.words["to"].lower(), scene.words["text"].strip()
    yield send(to, text or f"Hello {to}, this is {scene.me}.")
    return f"I wrote to {to}."


def list_peers(scene: Scene) -> Script:
    peers = (yield hive("peers")).get("peers") or []
    return "Here are: " + (
        ", ".join(f"{peer.get('name')} ({peer.get('state')})" for peer in peers) or "nobody"
    )


def list_loose_ends(scene: Scene) -> Script:
    open_ones = yield hive("loose_ends")
    kinds = {
        "asked_by_me": "question I asked",
        "asked_of_me": "question to me",
        "reminders": "reminder",
        "unacked": "mail",
    }
    counted = [
        f"{len(open_ones.get(field) or [])} {what}" for field, what in kinds.items() if open_ones.get(field)
    ]
    return "Still open: " + (", ".join(counted) or "nothing") + "."


def list_agents(scene: Scene) -> Script:
    agents = (yield hive("agents")).get("agents") or []
    return (
        "The agents: "
        + (", ".join(f"{agent.get('name')} ({agent.get('cage')})" for agent in agents) or "none")
        + "."
    )


def steer_agent(scene: Scene) -> Script:
    verb, name = scene.words["verb"].lower(), scene.words["name"].lower()
    yield hive(verb, name=name)
    return f"Done: {verb} {name}."


def show_logs(scene: Scene) -> Script:
    name = scene.words["name"].lower()
    text = str((yield hive("logs", name=name)).get("text") or "")
    return text[-SAID_CHARACTERS_MAX:] or f"{name} has logged nothing."


def greet(scene: Scene) -> Script:
    """By `send`, in my own name. An answer is not greeted back, or two agents would never stop."""
    to = "" if scene.mail.sender == OPERATOR else f" {scene.mail.sender}"
    if to and scene.mail.get("in_reply_to"):
        return nothing(scene)
    yield send(scene.mail.sender, f"Hello{to}, I am {scene.me}.", scene.mail.id)
    return f"I greeted {scene.asker}."


def explain(scene: Scene) -> str:
    return HELP.format(me=scene.me)


def nothing(scene: Scene) -> str:
    """A plain statement of a colleague needs no answer."""
    return f"Noted what {scene.mail.sender or 'nobody'} wrote."


HELP = """I am {me}, and the model that answers here is the rehearsal: it costs nothing and follows a short list of rules. I play:
- to the manager: "spawn an agent called iris who draws", "iris needs the package jq", "restart iris", "show the logs of iris"
- to any agent: "hello", "ask bob what the time is", "ask me which colour you should use: red, green or blue", "tell bob hello",
  "remind yourself in 20 seconds to stretch", "you need the package jq", "your status is drawing", "who is there?", "run: ls"
For the real model, log in on the host: hive-admin login"""


def _says(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE | re.DOTALL)


_NAME = r"[\"'`]?(?P<name>[\w-]{1,60})[\"'`]?"
_PACKAGES = r"packages?:?\s+[\"'`]?(?P<names>[a-z0-9][\w.+-]*(?:(?:\s*,\s*|\s+and\s+)(?:and\s+)?[a-z0-9][\w.+-]*){0,11})"
_WITHIN = r"(?:,?\s+within\s+(?P<number>\d{1,6})\s+(?P<unit>second|minute|hour|day)s?)?\W*$"
_MAKE = r"\b(?:spawn|create|make|launch|add|start|set\s+up|hire|want|need|like|give\s+me)\b"

RULES: tuple[Rule, ...] = (
    Rule(name="question", kind="question", play=answer_question),
    Rule(name="answer", kind="answer", play=pass_answer_on),
    Rule(name="reminder", kind="reminder", play=report_reminder),
    Rule(name="deployed", kind="news", what="deployed", play=report_deployed),
    Rule(name="deploy failed", kind="news", what="deploy_failed", play=report_failed),
    Rule(name="proposal decided", kind="news", what="proposal_decided", play=report_decided),
    Rule(name="other news", kind="news", play=note_news),
    Rule(name="run", sender="operator", play=run_command, says=_says(r"^run:\s*(?P<command>\S.*)$")),
    Rule(
        name="status",
        sender="operator",
        play=set_status,
        says=_says(r"^(?:please\s+)?(?:set\s+)?your\s+status\s+(?:is|to)\b:?\s*(?P<text>\S.{0,400})$"),
    ),
    Rule(
        name="remind",
        sender="operator",
        play=set_reminder,
        says=_says(
            r"\bremind\s+(?:yourself|me)\s+in\s+(?P<number>\d{1,6})\s+(?P<unit>second|minute|hour|day)s?[,:]?\s+"
            r"(?:to|that|of|about)?:?\s*(?P<text>\S.*)$"
        ),
    ),
    Rule(
        name="package for an agent",
        me="manager",
        sender="operator",
        play=add_package,
        says=_says(rf"\badd\s+(?:the\s+)?{_PACKAGES}\s+(?:to|for)\s+(?P<agent>[a-z][a-z0-9-]{{0,30}})"),
    ),
    Rule(
        name="an agent's package",
        me="manager",
        sender="operator",
        play=add_package,
        says=_says(
            rf"\b(?!you\b|we\b|i\b)(?P<agent>[a-z][a-z0-9-]{{0,30}})\s+needs?\s+(?:the\s+)?{_PACKAGES}"
        ),
    ),
    Rule(
        name="package asked for",
        me="manager",
        sender="agent",
        play=add_package,
        says=_says(rf"\badd\s+(?:the\s+)?{_PACKAGES}"),
    ),
    Rule(
        name="package",
        sender="operator",
        play=need_package,
        says=_says(
            r"\b(?:you\s+need|ask\s+(?:the\s+manager\s+|hm1nd\s+)?for|request|get\s+yourself)\s+(?:the\s+|a\s+)?"
            + _PACKAGES
        ),
    ),
    Rule(
        name="spawn",
        sender="operator",
        play=spawn_agent,
        says=_says(rf"{_MAKE}.{{0,60}}?\b(?:called|named|by\s+the\s+name\s+of)\s+{_NAME}(?P<purpose>.*)$"),
    ),
    Rule(
        name="spawn by name",
        sender="operator",
        play=spawn_agent,
        says=_says(rf"\bspawn\s+(?:(?:an?|the|new|another|agent)\s+)*{_NAME}(?P<purpose>.*)$"),
    ),
    Rule(
        name="ask",
        sender="operator",
        play=ask_somebody,
        says=_says(rf"\bask\s+(?P<whom>(?:the\s+)?[a-z][a-z0-9-]{{0,30}}),?\s+(?P<question>\S.*?){_WITHIN}"),
    ),
    Rule(
        name="tell",
        sender="operator",
        play=tell_somebody,
        says=_says(
            r"^(?:please\s+)?(?:tell|write\s+to)\s+(?!me\b)(?P<to>[a-z][a-z0-9-]{0,30})(?:\s+that\b|:)?\s+(?P<text>\S.*)$"
        ),
    ),
    Rule(
        name="greet a colleague",
        sender="operator",
        play=tell_somebody,
        says=_says(r"\b(?:greet|say\s+(?:hello|hi)\s+to)\s+(?P<to>[a-z][a-z0-9-]{0,30})(?P<text>)"),
    ),
    Rule(
        name="peers",
        sender="operator",
        play=list_peers,
        says=_says(r"\bwho(?:\s+else)?\s+is\s+(?:there|here)\b"),
    ),
    Rule(
        name="loose ends",
        sender="operator",
        play=list_loose_ends,
        says=_says(r"\bloose\s+ends\b|\bwhat\s+is\s+open\b"),
    ),
    Rule(
        name="agents",
        sender="operator",
        me="manager",
        play=list_agents,
        says=_says(r"\b(?:list|show)\s+(?:the\s+)?agents\b"),
    ),
    Rule(
        name="start, stop, restart",
        sender="operator",
        me="manager",
        play=steer_agent,
        says=_says(rf"^(?:please\s+)?(?P<verb>start|stop|restart)\s+{_NAME}\W*$"),
    ),
    Rule(
        name="logs",
        sender="operator",
        me="manager",
        play=show_logs,
        says=_says(rf"\blogs?\s+(?:of|from|for)\s+{_NAME}"),
    ),
    Rule(
        name="greeting",
        play=greet,
        says=_says(r"^\W*(?:hello|hi|hey|hiya|howdy|greetings|good\s+(?:morning|afternoon|evening))\b"),
    ),
    Rule(name="help", sender="operator", play=explain),
    Rule(name="statement", play=nothing),
)


# ---- the pieces they are made of


def _was_spawned(scene: Scene) -> bool:
    """Whether the proposal that the news are about is one I made for a new agent; as far as this conversation goes back."""
    number = scene.mail.get("proposal")
    return any(
        call.name == HIVE_TOOLS + "request_spawn"
        and call.result is not None
        and str(call.result.get("number")) == number
        for call in scene.past.values()
    )


def _report(scene: Scene, text: str, agent: str = "") -> Script:
    """To the operator, and to the agent it is about."""
    yield send(OPERATOR, text)
    if agent and agent != scene.me:
        yield send(agent, text)
    return text


def _prompt(name: AgentName, purpose: str) -> str:
    return f"""You are {name}, an agent of this hive{purpose or " who helps where it can"}.

- Do what the operator asks of you, and answer her briefly with `send`.
- When you need to know something, use `ask`: a colleague for what they know, the operator for what she must decide.
- When you need a package or another setting, ask the manager for it and say why.
- Keep notes of what should outlast a restart in /state. Never promise what you have not done.
"""


def _purpose(rest: str) -> str:
    """What follows the name, as it goes on after "an agent": ` who draws`, `, to write tests`."""
    text = " ".join(rest.split()).strip(" .,;:!?-\"'`")
    text = re.sub(r"^(?:and|please)\s+", "", text)
    if not text:
        return ""
    if re.match(r"(?:who|that|which)\s", text):
        return f" {text}"
    if re.match(r"(?:to|for|in|with|as)\s", text):
        return f", {text}"
    return f" who {text}" if re.match(r"\w+s\b", text) else f" for {text}"


def _question(text: str) -> tuple[str, list[str]]:
    """The question as the agent asks it, and the choices behind its last colon."""
    head, colon, tail = text.rpartition(":")
    choices = [choice.strip(" .?!\"'`") for choice in re.split(r",\s*(?:or\s+)?|\s+or\s+", tail)]
    choices = [choice[:200] for choice in choices if choice]
    if not colon or not 2 <= len(choices) <= 12:
        head, choices = text, []
    words = head.strip(" .?!,")
    words = re.sub(
        r"^(which|what|where|when|who|how)\b(.*?)\s+you\s+(should|can|may|must|shall|will)\b",
        r"\1\2 \3 I",
        words,
        flags=re.IGNORECASE,
    )
    words = re.sub(
        r"^(?:whether|if)\s+you\s+(should|can|may|must|shall|will)\b", r"\1 I", words, flags=re.IGNORECASE
    )
    words = re.sub(r"^(what|who|where|how)\s+(.+)\s+(is|are)$", r"\1 \3 \2", words, flags=re.IGNORECASE)
    words = re.sub(r"\byour\b", "my", words, flags=re.IGNORECASE)
    return words[:1].upper() + words[1:] + "?", list(dict.fromkeys(choices))


def _names(text: str) -> list[str]:
    names = (name.strip(" .,").lower() for name in re.split(r"\s*,\s*|\s+and\s+", text))
    return list(dict.fromkeys(name for name in names if name))


def _propose_packages(agent: str, names: Iterable[str], scene: Scene) -> Generator[Call, Result, str]:
    files = (yield hive("read_config", agent=agent)).get("files")
    text = files.get(AGENT_TOML, "") if isinstance(files, dict) else ""
    try:
        missing = [name for name in names if name not in packages.packages_in(text)]
        if not missing:
            return f"{agent} has that in its configuration already."
        changed = packages.add(text, missing)
    except packages.CannotEdit as error:
        return f"I cannot edit {AGENT_TOML} of {agent}: {error}"
    wanted = " and ".join(missing)
    message = f"Add the package{'s' if len(missing) > 1 else ''} {wanted}"
    rationale = f"{'The operator' if scene.mail.sender == OPERATOR else agent} asked for it: {scene.mail.body.strip():.300}"
    result = yield hive(
        "propose_config", agent=agent, files={AGENT_TOML: changed}, message=message, rationale=rationale
    )
    return f"I proposed {wanted} for {agent} as proposal {result.get('number')}; the operator decides."
