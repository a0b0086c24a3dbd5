"""The turn loop: mail -> prompt -> turn -> acknowledgement, and what to do when a turn fails.

The CLI's results are not one to one with the prompts it gets. A prompt that comes while a tool runs joins the running
turn; one that comes while the model speaks makes a turn of its own afterwards. What is true, and measured: between
`command_lifecycle started` and the next `result` a prompt belongs to that result, and to no other. So a mail is
settled by the first good result after its prompt has started.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from libhive.clock import Clock, iso, now_ms
from libhive.harness import policy, procs
from libhive.harness import prompt as words
from libhive.harness.cli import CannotStart, Claude, Event, OnEvent, SessionLost
from libhive.harness.mailbox import Mailbox
from libhive.harness.model import ModelChoice
from libhive.harness.policy import Outcome, Trouble
from libhive.harness.session import Session
from libhive.harness.settings import Settings
from libhive.harness.status import Status
from libhive.harness.transcript import Entry, Transcript
from libhive.harness.turn import Turn, plain, plain_list, said
from libhive.messages.broker import Mail
from libhive.problems import NoSpace, Problem, Unavailable

log = logging.getLogger("hive.harness")

TICK_SECONDS = 5.0
WAIT_STEP_SECONDS = 30.0
TURNS_HANDED_OVER = 5
SIGN_OF_TOOLS = "mcp__hive__send"

MakeClaude = Callable[[bool, OnEvent], Claude]
"""Makes the process object: whether it resumes, and what is awaited for each of its events."""


class Turns:
    def __init__(
        self,
        settings: Settings,
        mailbox: Mailbox,
        transcript: Transcript,
        session: Session,
        model: ModelChoice,
        status: Status,
        make_claude: MakeClaude,
        clock: Clock = now_ms,
    ) -> None:
        self._settings, self._mailbox, self._transcript, self._status = settings, mailbox, transcript, status
        self.session, self._model, self._make_claude, self._clock = session, model, make_claude, clock
        self.turn: Turn | None = None
        self.held: dict[str, Mail] = {}
        """Offered to us and not settled, in the order it came."""
        self.questions: set[str] = set()
        """Those that wait for the operator."""
        self.failures = 0
        """How often in a row the same has gone wrong."""
        self.news = asyncio.Condition()
        """Notified after each event of the CLI."""
        self.on_entry: Callable[[Entry], None] = lambda _: None
        self._failing: Outcome | None = None
        self._prompts: dict[str, list[Mail]] = {}
        """What the CLI was given and has not begun with."""
        self._tries: Counter[str] = Counter()
        self._claude: Claude | None = None
        self._trouble: asyncio.Future[Trouble] = asyncio.get_running_loop().create_future()
        self._wake = asyncio.Event()
        self._heard = time.monotonic()
        self._handlers: dict[str, Callable[[Event], None]] = {
            "assistant": self._on_assistant,
            "command_lifecycle": self._on_lifecycle,
            "rate_limit_event": self._on_rate_limit,
            "system.api_retry": self._on_api_retry,
            "system.init": self._on_init,
            "user": self._on_user,
        }
        mailbox.in_hand = lambda: set(self.held)
        mailbox.on_holds = self._rest

    @property
    def ending(self) -> bool:
        """The CLI is about to be stopped; what its turn still does would not count."""
        return self._trouble.done()

    # ---- what others ask for

    async def drain(self, seconds_max: float) -> None:
        """A running turn gets a short while to end; what it took comes back to the next harness otherwise."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds_max), self.news:
                await self.news.wait_for(lambda: self.turn is None and not self._prompts)

    async def interrupt(self) -> bool:
        """The operator cuts the running turn; its mail counts as dealt with."""
        turn, claude = self.turn, self._claude
        if turn is None or claude is None or self.ending:
            return False
        turn.interrupted = True
        await claude.control("interrupt")
        return True

    async def choose_model(self, model: str) -> None:
        """Raises Conflict or Unavailable. It is also a reason to try again: another model may have another limit."""
        if self._claude is not None and self._claude.alive:
            await self._claude.control("set_model", model=model)
        self._model.choose(model)
        now = self._status.now
        self._status.set(now.state, now.detail, turn=now.turn, model=model, until_ms=now.until_ms)
        self._wake.set()

    async def take_waiting(self) -> list[str]:
        """Mail that waits in the CLI's queue, taken into the running turn: its blocks."""
        taken: list[Mail] = []
        for id in list(self._prompts):
            mails = await self._withdraw(id)
            if mails and self.turn is not None:
                self._joined(mails, self.turn.id)
                taken += mails
        return [words.frame(mail, self._tries[mail.id]) for mail in taken]

    # ---- the loop

    async def run(self) -> None:
        self.questions = await self._mailbox.questions_to_operator()
        while True:
            trouble = await self._live()
            if trouble is not None:
                await self._recover(trouble)
            else:
                self._hold(await self._mailbox.next())

    async def _live(self) -> Trouble | None:
        """One life of the CLI, from its start until it has to be stopped, or has nothing to do for long."""
        self._trouble = asyncio.get_running_loop().create_future()
        self.turn = None
        self._prompts.clear()
        self.session.mend()
        claude = self._claude = self._make_claude(self.session.exists(), self._on_event)
        try:
            return await self._serve(claude)
        except SessionLost as problem:
            return Trouble(Outcome.SESSION_LOST, problem.message)
        except CannotStart as problem:
            return Trouble(Outcome.CANNOT_START, problem.message)
        except Unavailable as problem:
            return Trouble(Outcome.TOOLS_MISSING, problem.message)
        finally:
            await claude.stop()

    async def _serve(self, claude: Claude) -> Trouble | None:
        await claude.start()
        self._heard = time.monotonic()
        if self.held:
            await self._say(list(self.held.values()))
        self._rest()
        feeding = asyncio.get_running_loop().create_task(self._feed(), name="feed")
        try:
            while True:
                waiting: set[asyncio.Future[Any]] = {self._trouble, claude.gone, feeding}
                await asyncio.wait(waiting, timeout=TICK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if feeding.done():
                    await feeding
                if self._trouble.done():
                    return self._trouble.result()
                if claude.gone.done():
                    return self._crashed(claude)
                if self._idle_for_long():
                    return None
                self._watch()
        finally:
            feeding.cancel()

    async def _feed(self) -> None:
        while True:
            if fresh := self._hold(await self._mailbox.next()):
                await self._say(fresh)

    def _hold(self, mails: Sequence[Mail]) -> list[Mail]:
        """What of this the model has yet to see. What a turn has settled before is only acknowledged again."""
        settled = self._transcript.settled(mail.id for mail in mails)
        if settled:
            self._transcript.owe_again(list(settled))
            self._mailbox.owe()
        fresh = [mail for mail in mails if mail.id not in settled and mail.id not in self.held]
        self.held |= {mail.id: mail for mail in fresh}
        self.questions -= {mail.question for mail in fresh if mail.kind == "answer"}
        return fresh

    async def _say(self, mails: list[Mail]) -> None:
        assert self._claude is not None
        id = str(uuid.uuid4())
        self._prompts[id] = mails
        if self.turn is None:
            self._status.set("running")  # from here on it is not drained, though the turn has no name yet
        text = words.prompt(mails, self._tries, self.session.handover if self.turn is None else "")
        with contextlib.suppress(OSError):  # it has just gone, which is noticed elsewhere
            await self._claude.say(text, id)

    async def _withdraw(self, id: str) -> list[Mail]:
        """Takes back a prompt that the CLI has not begun with; nothing when it was too late."""
        assert self._claude is not None
        try:
            gone = (await self._claude.control("cancel_async_message", message_uuid=id)).get("cancelled")
        except Problem:
            return []
        return self._prompts.pop(id, []) if gone else []

    def _rest(self) -> None:
        """The state between turns. While one runs, or something is wrong, that is what is shown."""
        if self.turn is not None or self._prompts or self.ending or self._claude is None:
            return
        holds = self._mailbox.holds
        if "operator" in holds:
            self._status.set("paused", "the operator has paused it", model=self._model.current)
        elif self.questions:
            self._status.set(
                "waiting-operator", "a question waits for the operator", model=self._model.current
            )
        else:
            detail = "held for an update" if holds else ""
            self._status.set("idle", detail, model=self._model.current)

    def _idle_for_long(self) -> bool:
        return not self.held and self.turn is None and self._silence() > self._settings.idle_seconds_max

    def _silence(self) -> float:
        return time.monotonic() - self._heard

    def _watch(self) -> None:
        """Reports; what hangs is cut where it hangs: the model's stream by forward.py, a command by its tool."""
        if self.turn is not None and self._silence() > self._settings.silence_seconds_max:
            self._status.detail(f"no sign of life for {int(self._silence()) // 60} minutes")

    # ---- when it goes wrong

    def _fail(self, trouble: Trouble) -> None:
        if not self._trouble.done():
            self._trouble.set_result(trouble)

    def _crashed(self, claude: Claude) -> Trouble:
        procs.end_tenants(self._settings.state)
        last_words = " ".join(claude.last_words)
        why = f"the CLI ended with status {claude.gone.result()}" + (f": {last_words}" if last_words else "")
        self._fail(Trouble(Outcome.CRASHED, why))
        return self._trouble.result()

    async def _recover(self, trouble: Trouble) -> None:
        self.failures = self.failures + 1 if trouble.outcome is self._failing else 1
        self._failing = trouble.outcome
        step = policy.next_step(trouble.outcome, self.failures, self._clock(), trouble.resets_at_ms)
        log.warning("%s: %s", trouble.outcome, trouble.why, extra={"times": self.failures, "mail": step.mail})
        self.turn = None
        self._wake.clear()
        self._status.last_error = f"{trouble.outcome}: {trouble.why}"
        again = f"; next try at {iso(step.until_ms)}" if step.until_ms else ""
        self._status.set(step.state, f"{trouble.outcome}: {trouble.why}{again}", until_ms=step.until_ms)
        if step.fresh_session:
            self.session.renew(words.handover(trouble.why, self._transcript.last_turns(TURNS_HANDED_OVER)))
        if step.mail == "give-back" and self.held:
            self.held.clear()
            self._tries.clear()
            await self._mailbox.give_back()
        await self._wait_until(step.until_ms)

    async def _wait_until(self, until_ms: int) -> None:
        """Until then, or until somebody changes what was wrong. A clock that is set back does not prolong it."""
        deadline = time.monotonic() + max(0, until_ms - self._clock()) / 1000
        while not self._wake.is_set():
            left = min(deadline - time.monotonic(), (until_ms - self._clock()) / 1000)
            if left <= 0:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, WAIT_STEP_SECONDS)):
                    await self._wake.wait()

    # ---- what the CLI says

    async def _on_event(self, event: Event, raw: bytes) -> None:
        self._heard = time.monotonic()
        kind = str(event.get("type"))
        if kind == "system":
            kind = f"system.{event.get('subtype')}"
        try:
            if kind == "result":
                entry = await self._finish(event, raw)
            else:
                entry = await self._transcript.append(self._turn_of(event), kind, raw)
            self.on_entry(entry)
            if kind in self._handlers and not self.ending:
                self._handlers[kind](event)
        except NoSpace as problem:
            self._fail(Trouble(Outcome.NO_SPACE, problem.message))
        async with self.news:
            self.news.notify_all()

    def _turn_of(self, event: Event) -> str:
        if self.turn is not None:
            return self.turn.id
        return str(event.get("command_uuid", "")) if event.get("state") == "started" else ""

    def _on_lifecycle(self, event: Event) -> None:
        id = str(event.get("command_uuid"))
        if event.get("state") == "started" and (mails := self._prompts.pop(id, None)):
            self._joined(mails, id)

    def _joined(self, mails: list[Mail], id: str) -> None:
        """The model has these from here on, in a turn that they begin or join."""
        if self.turn is None:
            written_to = self._transcript.written_to(mails[0].id)
            self.turn = Turn(id, self.session.id, self._clock(), list(mails), written_to)
            self._status.set("running", turn=id)
        else:
            self.turn.mails += mails
        self._mailbox.saw([mail.id for mail in mails], self.turn.id)

    def _on_init(self, event: Event) -> None:
        servers = {
            str(s.get("name")): str(s.get("status")) for s in map(plain, plain_list(event.get("mcp_servers")))
        }
        if servers.get("hive") != "connected":
            self._fail(
                Trouble(Outcome.TOOLS_MISSING, f"the hive's tools: {servers.get('hive', 'not there')}")
            )
        elif SIGN_OF_TOOLS not in plain_list(event.get("tools")):
            self._fail(
                Trouble(Outcome.TOOLS_MISSING, "the CLI is connected to the hive and has none of its tools")
            )
        for name, status in servers.items():
            if status == "failed":
                self._status.last_error = f"the tool server {name} failed"

    def _on_assistant(self, event: Event) -> None:
        if self.turn is not None:
            self.turn.hear_assistant(event)
            if not self.turn.error:
                self._status.set("running", turn=self.turn.id)

    def _on_user(self, event: Event) -> None:
        if self.turn is not None and not event.get("isReplay"):
            self._status.set("running", turn=self.turn.id)

    def _on_api_retry(self, event: Event) -> None:
        what = f"the model's API: {event.get('error')} ({event.get('error_status') or 'no answer'})"
        trying = f"{what}, trying again ({event.get('attempt')} of {event.get('max_retries')})"
        if event.get("error") == "authentication_failed":
            self._status.set("needs-login", trying, turn=self._status.now.turn)
        else:
            self._status.detail(trying)

    def _on_rate_limit(self, event: Event) -> None:
        if self.turn is not None:
            self.turn.hear_rate_limit(event)

    async def _finish(self, result: Event, raw: bytes) -> Entry:
        """A turn's end. It stays the running one until it is stored, for that is when it has ended."""
        turn = self.turn
        if turn is None or self.ending:
            return await self._stray(result, raw)
        outcome = policy.outcome_of(result, turn.error, interrupted=turn.interrupted)
        settles = policy.POLICIES[outcome].mail == "ack"
        entry = await self._transcript.end_turn(turn.end(result, outcome, settles=settles), raw)
        self.turn = None
        if settles:
            self._settled(turn)
        else:
            self._tries.update(mail.id for mail in turn.mails)
            self._fail(Trouble(outcome, said(result), turn.resets_at_ms))
        return entry

    async def _stray(self, result: Event, raw: bytes) -> Entry:
        """The result of something that no mail has caused."""
        if result.get("is_error") and self._claude is not None and self._claude.ready:
            self._fail(Trouble(Outcome.FAILED, said(result)))
        return await self._transcript.append("", "result", raw)

    def _settled(self, turn: Turn) -> None:
        for mail in turn.mails:
            self.held.pop(mail.id, None)
            self._tries.pop(mail.id, None)
        self.failures, self._failing = 0, None
        self.session.handed_over()
        self._mailbox.owe()
        self._rest()
