from __future__ import annotations

import asyncio
import os
import sys
from argparse import Namespace

from libhive.admin.commands import Command, parse
from libhive.admin.session import Session, print_json
from libhive.logs import safe_text
from libhive.paths import Paths
from libhive.problems import Problem, Unavailable

REFUSED, UNAVAILABLE, INTERRUPTED = 1, 3, 130


def main() -> None:
    sys.exit(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    given = parse(argv)
    try:
        return asyncio.run(_run(given))
    except Problem as problem:
        _tell(problem, as_json=given.json)
        return UNAVAILABLE if isinstance(problem, Unavailable) else REFUSED
    except KeyboardInterrupt:
        return INTERRUPTED
    except (
        BrokenPipeError
    ):  # whoever read us has seen enough; the interpreter's own last flush must not fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


async def _run(given: Namespace) -> int:
    session = Session(Paths.from_environment(), as_json=given.json)
    try:
        command: Command = given.command_
        for service in command.needs:
            await session.ping(service)
        return await command.run(session, given)
    finally:
        await session.link.close()


def _tell(problem: Problem, *, as_json: bool) -> None:
    if as_json:
        print_json({"problem": {"code": problem.code, "message": problem.message, "hint": problem.hint}})
    sys.stderr.write(safe_text(f"{problem.message} ({problem.code})\n"))
    if problem.hint:
        sys.stderr.write(safe_text(f"  {problem.hint}\n"))


if __name__ == "__main__":
    main()
