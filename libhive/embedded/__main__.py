"""`python -m libhive.embedded up|down`: what the Makefile calls."""

from __future__ import annotations

import sys

from libhive.embedded.down import down
from libhive.embedded.settings import Settings
from libhive.embedded.up import explained, say, up
from libhive.problems import Problem


def main(arguments: list[str]) -> int:
    if arguments not in (["up"], ["down"]):
        say("usage: python -m libhive.embedded up|down")
        return 2
    try:
        settings = Settings.read()
        return up(settings) if arguments == ["up"] else down(settings, say)
    except Problem as problem:
        say(explained(problem))
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
