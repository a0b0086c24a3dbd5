"""Every command, in alphabetical order: its arguments, its one line of help, and examples to copy."""

from __future__ import annotations

import argparse
import difflib
from argparse import ArgumentParser, Namespace
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from libhive.admin import (
    access,
    agents,
    arguments,
    backup,
    doctor,
    egress,
    events,
    garbage,
    history,
    mail,
    overview,
    proposals,
    receipts,
    reminders,
    restore,
    roots,
)
from libhive.admin.session import Session
from libhive.logs import safe_text

DEPLOY_SECONDS = 300.0
PURGE_SECONDS = 60.0
Run = Callable[[Session, Namespace], Awaitable[int]]


class Command(NamedTuple):
    name: str
    help: str
    run: Run
    needs: tuple[str, ...]
    """Services without which it cannot begin: asked first, so that a dead one is told within two seconds."""
    arguments: Callable[[ArgumentParser], object]
    examples: str = ""
    detail: str = ""
    """What its --help says beyond the one line."""
    refuses: Callable[[Namespace], str] = lambda given: ""
    """Why what was given cannot be begun, if so: that is wrong usage."""


def _agent(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", type=arguments.agent, help="an agent")


def _nothing(parser: ArgumentParser) -> None:
    pass


def _answer(parser: ArgumentParser) -> None:
    parser.add_argument(
        "id", metavar="ID", nargs="?", type=arguments.ending, help="a question's id, or an end of it"
    )
    parser.add_argument(
        "text",
        metavar="TEXT",
        nargs="*",
        help="the answer, or a choice's number; asked for when it is missing",
    )


def _approve(parser: ArgumentParser) -> None:
    _number(parser)
    _wait_for_deploy(parser)


def _wait_for_deploy(parser: ArgumentParser) -> None:
    text = f"how long to watch the deploy (default {DEPLOY_SECONDS:g}; 0: not at all)"
    parser.add_argument(
        "--wait", metavar="SECONDS", type=arguments.seconds, default=DEPLOY_SECONDS, help=text
    )


def _number(parser: ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", type=arguments.number, help="a proposal's number")


def _backup(parser: ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", type=arguments.file, help="where to; it must not be there yet"
    )


def _deny(parser: ArgumentParser) -> None:
    _number(parser)
    parser.add_argument("--reason", required=True, metavar="TEXT", help="told to whoever asked")


def _destroy(parser: ArgumentParser) -> None:
    _agent(parser)
    parser.add_argument("--yes", "-y", action="store_true", help="without being asked for its name")


def _purge(parser: ArgumentParser) -> None:
    _agent(parser)
    parser.add_argument("--yes", "-y", action="store_true", help="without being asked for its name")
    text = f"how long to watch it (default {PURGE_SECONDS:g}; 0: not at all)"
    parser.add_argument("--wait", metavar="SECONDS", type=arguments.seconds, default=PURGE_SECONDS, help=text)


def _events(parser: ArgumentParser) -> None:
    parser.add_argument("--follow", "-f", action="store_true", help="go on with what happens from now on")
    parser.add_argument(
        "--lines", "-n", metavar="N", type=arguments.lines, default=50, help="how many of the past (50)"
    )


def _exec(parser: ArgumentParser) -> None:
    _agent(parser)
    text = "how long it may take, 1 to 600 (30)"
    parser.add_argument("--timeout", metavar="SECONDS", type=arguments.timeout, default=30, help=text)
    parser.add_argument(
        "command", metavar="-- COMMAND", nargs="*", help="what to run; options go after the --"
    )


def _inbox(parser: ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="what was read before as well")
    parser.add_argument("--peek", action="store_true", help="leave it unread")


def _login(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--stdin", action="store_true", help="read it from standard input instead of the keyboard"
    )
    kinds = ("api_key", "oauth_token")
    parser.add_argument("--kind", choices=kinds, help="what it is, when its beginning does not tell")


def _logs(parser: ArgumentParser) -> None:
    parser.add_argument(
        "name", metavar="NAME", type=arguments.agent, help="an agent; with --service a service"
    )
    parser.add_argument("--service", action="store_true", help="the log of a service, or of the supervisor")
    parser.add_argument("--follow", "-f", action="store_true", help="go on with what is written from now on")
    parser.add_argument(
        "--lines", "-n", metavar="N", type=arguments.lines, default=100, help="how many (100)"
    )


def _proposals(parser: ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="those that have ended as well")


def _restore(parser: ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", type=arguments.file, help="what hive-admin backup has made")
    parser.add_argument("--yes", "-y", action="store_true", help="without being asked")


def _send(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", type=arguments.recipient, help="an agent, manager, or all")
    parser.add_argument("text", metavar="TEXT", nargs="+", help="the message; - reads it from standard input")
    parser.add_argument(
        "--wait", metavar="SECONDS", type=arguments.seconds, help="wait for the reply and print it"
    )


def _spawn(parser: ArgumentParser) -> None:
    _agent(parser)
    prompt = parser.add_mutually_exclusive_group(required=True)
    prompt.add_argument("--prompt", metavar="TEXT", help="who the agent is and what it does")
    prompt.add_argument("--prompt-file", metavar="FILE", help="the same, from a file; - is standard input")
    parser.add_argument("--model", type=arguments.model, help="haiku unless said otherwise")
    parser.add_argument(
        "--package", metavar="P", type=arguments.package, action="append", default=[], help="may be repeated"
    )
    parser.add_argument("--yes", "-y", action="store_true", help="approve it at once")
    _wait_for_deploy(parser)


COMMANDS = (
    Command("agents", "who lives here and what each is doing", overview.agents, ("lifecycle",), _nothing),
    Command(
        "answer",
        "answer an agent's question; alone it lists the open ones",
        mail.answer,
        ("broker",),
        _answer,
        "hive-admin answer\nhive-admin answer 7f3k2m blue",
    ),
    Command(
        "approve",
        "let a proposal happen, exactly as it is shown",
        proposals.approve,
        ("approvals",),
        _approve,
        "hive-admin approve 1",
    ),
    Command(
        "backup",
        "save what is durable of the hive in one file, while it runs",
        backup.backup,
        ("approvals", "broker", "gateway", "lifecycle", "updater"),
        _backup,
        "hive-admin backup /mnt/disk/hive-2026-11-23.tar.gz",
        "The databases, the configurations with their history, the agents' /state. Not in it: the model's\n"
        "credential, browsers' sessions, logs. The file is read back before it is said to be done, can be read\n"
        "by you alone, and holds all mail in clear.",
    ),
    Command(
        "cancel-reminder",
        "end a reminder, an agent's or one of yours",
        reminders.cancel,
        ("broker",),
        reminders.cancel_arguments,
        "hive-admin reminders\nhive-admin cancel-reminder 7f3k2m",
    ),
    Command(
        "deny",
        "refuse a proposal",
        proposals.deny,
        ("approvals",),
        _deny,
        'hive-admin deny 2 --reason "no network for iris, please"',
    ),
    Command(
        "destroy",
        "end an agent; its mail, state and configuration are kept",
        agents.destroy,
        ("lifecycle",),
        _destroy,
        "hive-admin destroy iris\nhive-admin destroy iris --yes",
        refuses=agents.unconfirmed,
    ),
    Command("doctor", "look for what is wrong here, and what mends it", doctor.doctor, (), _nothing),
    Command(
        "drop",
        "give up a message that is dead, or that nobody has taken yet",
        receipts.drop,
        ("broker",),
        receipts.drop_arguments,
        'hive-admin drop 01m0000000000000000000abcd iris --reason "asked again"',
    ),
    Command(
        "egress",
        "an agent's way out to the network: what it may reach, and what it did",
        egress.egress,
        ("gateway",),
        egress.egress_arguments,
        egress.EXAMPLES,
        egress.DETAIL,
    ),
    Command(
        "events",
        "what has happened",
        events.events,
        ("broker",),
        _events,
        "hive-admin events --follow",
        "From the records, oldest first: each message, each proposal and its decision, and how far\n"
        "each deploy has come. With --follow, everything that happens from now on as well.",
    ),
    Command(
        "exec",
        "run a command inside an agent's cage; exits with its code (124: it took too long)",
        agents.execute,
        ("lifecycle",),
        _exec,
        "hive-admin exec iris -- ls -la /state",
    ),
    Command(
        "gc",
        "what is left over of agents that are no more, and removing it",
        garbage.collect,
        ("lifecycle",),
        garbage.arguments,
        garbage.EXAMPLES,
        garbage.DETAIL,
    ),
    Command(
        "inbox",
        "read your mail",
        mail.inbox,
        ("broker",),
        _inbox,
        "hive-admin inbox\nhive-admin inbox --peek --json",
    ),
    Command("link", "a new one-time link to the dashboard", access.link, ("dashboard",), _nothing),
    Command(
        "login",
        "give the hive an API key, or the token of `claude setup-token`",
        access.login,
        ("gateway",),
        _login,
        "hive-admin login\nhive-admin login --stdin < key-file",
    ),
    Command("logout", "forget it; the rehearsal model answers again", access.logout, ("gateway",), _nothing),
    Command(
        "logs",
        "what an agent's cage, or a service, has logged",
        agents.logs,
        (),
        _logs,
        "hive-admin logs iris --follow\nhive-admin logs broker --service",
    ),
    Command(
        "message",
        "where a message is: each step of its way to each of its recipients",
        receipts.message,
        ("broker",),
        receipts.message_arguments,
    ),
    Command(
        "proposal",
        "what a proposal does, its exact diff, and why",
        proposals.proposal,
        ("approvals",),
        _number,
        "hive-admin proposal 1",
    ),
    Command("proposals", "what waits for your decision", proposals.proposals, ("approvals",), _proposals),
    Command(
        "purge",
        "remove an agent for ever; only its configuration is kept, in the archive",
        agents.purge,
        ("updater",),
        _purge,
        "hive-admin purge iris\nhive-admin purge iris --yes",
        "Its mail, questions, reminders and /state are removed, and its logs. A purge that has begun goes on\n"
        "until it is done, also when a service is away or is killed.",
        refuses=agents.unconfirmed_purge,
    ),
    Command(
        "rebuild",
        "bring an agent up anew from its approved configuration",
        agents.rebuild,
        ("updater",),
        _agent,
    ),
    Command(
        "remind",
        "schedule a prompt for an agent",
        reminders.remind,
        ("broker",),
        reminders.remind_arguments,
        reminders.EXAMPLES,
        reminders.DETAIL,
        refuses=reminders.without_cron,
    ),
    Command(
        "reminders",
        "what will still remind whom, the next first",
        reminders.reminders,
        ("broker",),
        reminders.reminders_arguments,
    ),
    Command("restart", "stop and start an agent's cage", agents.restart, ("lifecycle",), _agent),
    Command(
        "restore",
        "put a backup in the place of the hive's state; the hive must be stopped",
        restore.restore,
        (),
        _restore,
        "make down\nhive-admin restore /mnt/disk/hive-2026-11-23.tar.gz\nmake up",
        "The file is checked as a whole before anything is changed, and what was there is kept beside it.",
        refuses=restore.unconfirmed,
    ),
    Command(
        "retention",
        "what is over for long enough to be removed, and removing it",
        history.retention,
        ("broker",),
        history.retention_arguments,
        history.RETENTION_EXAMPLES,
        history.RETENTION_DETAIL,
    ),
    Command(
        "retry",
        "offer a dead message again",
        receipts.retry,
        ("broker",),
        receipts.retry_arguments,
        "hive-admin retry 01m0000000000000000000abcd iris",
    ),
    Command(
        "roots",
        "what cages have for their /usr when it is not the host's, and what is in it",
        roots.roots,
        ("lifecycle",),
        roots.roots_arguments,
        roots.EXAMPLES,
    ),
    Command(
        "search",
        "find messages by their words, by agent, conversation and time",
        history.search,
        ("broker",),
        history.search_arguments,
        history.SEARCH_EXAMPLES,
        history.SEARCH_DETAIL,
    ),
    Command(
        "send",
        "write to an agent",
        mail.send,
        ("broker",),
        _send,
        'hive-admin send hm1nd "spawn an agent called iris who draws"\nhive-admin send iris hello --wait 60',
    ),
    Command(
        "spawn",
        "propose a new agent",
        agents.spawn,
        ("approvals",),
        _spawn,
        'hive-admin spawn iris --prompt "You draw." --package imagemagick\n'
        "hive-admin spawn rex --prompt-file rex.md --yes",
    ),
    Command("start", "start an agent's cage", agents.start, ("lifecycle",), _agent),
    Command("status", "the hive at a glance", overview.status, (), _nothing),
    Command("stop", "stop an agent's cage, and keep it stopped", agents.stop, ("lifecycle",), _agent),
)

EXIT_CODES = (
    "exit codes: 0 done, 1 refused or not done in time (no reply, a deploy still under way), 2 wrong usage,"
    " 3 a service is unavailable"
)


def parse(argv: list[str]) -> Namespace:
    """Ends the process with 2 and the usage of the command that was meant, when it is wrong."""
    top, names = parser(), [command.name for command in COMMANDS]
    if argv and not argv[0].startswith("-") and argv[0] not in names:
        near = difflib.get_close_matches(argv[0], names, 1)
        top.error(f"there is no command {argv[0]!r:.40}" + (f"; did you mean {near[0]}?" if near else ""))
    cut = argv.index("--") if argv[:1] == ["exec"] and "--" in argv else len(argv)
    given, unknown = top.parse_known_args(argv[:cut])
    if unknown:
        _refuse_unknown(given, unknown)
    if cut < len(argv):
        given.command += argv[cut + 1 :]  # the command's alone, whatever it looks like
    if complaint := given.command_.refuses(given):
        given.parser_.error(complaint)
    return given


def _refuse_unknown(given: Namespace, unknown: list[str]) -> None:
    complaint = f"unrecognized arguments: {safe_text(' '.join(unknown))}"
    if given.command_.name == "exec":
        complaint += f"; what belongs to the command goes after --: hive-admin exec {given.name} -- COMMAND"
    given.parser_.error(complaint)


def parser() -> ArgumentParser:
    top = ArgumentParser(
        prog="hive-admin",
        description="The operator's hand in the hive.",
        epilog=EXIT_CODES,
        allow_abbrev=False,
    )
    common = ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print what was answered as JSON")
    group = top.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        examples = "examples:\n  " + command.examples.replace("\n", "\n  ") if command.examples else None
        sub = group.add_parser(
            command.name,
            help=command.help,
            description=f"{command.help[0].upper()}{command.help[1:]}.\n{command.detail}".rstrip(),
            epilog=examples,
            parents=[common],
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.arguments(sub)
        sub.set_defaults(command_=command, parser_=sub)
    return top
