"""Reaching the page that a harness serves, in a directory that its cage can write.

A path there is not to be followed: a symbolic link could name any socket of the host. The socket is opened without
following links, must be a socket, and is then reached through its descriptor.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from libhive.problems import Unavailable


@contextmanager
def page_socket(path: Path) -> Iterator[str]:
    """A path that leads to exactly the socket that lies here now. Raises Unavailable when there is none."""
    try:
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable("the agent has no page: its cage was never started") from error
    try:
        descriptor = os.open(path.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        raise Unavailable(
            "the agent's harness is not there", "is the agent running? hive-admin agents"
        ) from error
    finally:
        os.close(directory)
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise Unavailable("what the cage has put at its page's place is not a socket")
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
