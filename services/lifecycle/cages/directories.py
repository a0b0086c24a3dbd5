"""The directories of a cage on the host. What a cage can write is never followed, listed or searched from here."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
from pathlib import Path

import msgspec

from libhive.doorway import make_doors
from libhive.paths import make_private
from libhive.problems import Conflict
from services.lifecycle.cages.plan import Plan

ETC = {
    "group": "root:x:0:\nagent:x:1000:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "passwd": "root:x:0:0::/:/usr/sbin/nologin\nagent:x:1000:1000::/state:/bin/bash\n"
    "nobody:x:65534:65534::/:/usr/sbin/nologin\n",
}
CLEAR_SECONDS_MAX = 60
MODEL_CHOICE = "model.json"
"""The harness's, in the agent's state."""
ETC_FILES = tuple(sorted(ETC))


def make(plan: Plan) -> None:
    """All of them, with their owners. A directory that is there stays the same one: a cage may have it bound."""
    make_private(plan.run.parent, 0o711)
    make_private(plan.run, 0o711)
    make_private(plan.log.parent.parent)
    make_private(plan.log.parent)
    make_doors(plan.doors, plan.uid)
    _owned(plan.page, plan.uid)
    _owned(plan.state, plan.uid)
    for name, text in ETC.items():
        _readable(plan.run / name, text.encode(), plan.uid)
    _readable(plan.spec_file, msgspec.json.format(msgspec.json.encode(plan.spec)), plan.uid)


def clear(*directories: Path) -> None:
    """Empties them. The page's directory is as deep and as full as its agent wanted, so this is find's work: it needs
    no list of names, and follows no link. Raises Conflict when something stays."""
    for directory in directories:
        if directory.is_dir() and not directory.is_symlink():
            _empty(directory)


def remove(*places: Path) -> None:
    """Directories with all that is in them, and files."""
    for place in places:
        clear(place)
        with contextlib.suppress(FileNotFoundError):
            place.rmdir() if place.is_dir() and not place.is_symlink() else place.unlink()


def forget_choices(state: Path) -> None:
    """What was chosen at run time ends with the agent. Nothing in there is followed, only its name is removed."""
    with contextlib.suppress(OSError):
        directory = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.unlink(MODEL_CHOICE, dir_fd=directory)
        finally:
            os.close(directory)


def _empty(directory: Path) -> None:
    command = ["find", str(directory), "-xdev", "-mindepth", "1", "-delete"]
    try:
        subprocess.run(command, check=True, timeout=CLEAR_SECONDS_MAX, capture_output=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise Conflict(
            f"{directory} cannot be emptied: {error}", f"empty it by hand: sudo {shlex.join(command)}"
        ) from error


def _owned(directory: Path, uid: int) -> None:
    """The cage's own directory."""
    directory.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        _expect_owner(directory, uid)
    else:
        os.chown(directory, uid, uid if os.geteuid() == 0 else -1)


def _expect_owner(directory: Path, uid: int) -> None:
    owner = directory.stat(follow_symlinks=False).st_uid
    if owner == uid:
        return
    if os.geteuid() == 0 and owner == 0 and not any(directory.iterdir()):
        os.chown(directory, uid, uid)  # made by us a moment before we were killed
        return
    raise Conflict(
        f"{directory} belongs to user {owner}, its cage runs as {uid}",
        f"give it over with: sudo chown -R -h {uid}:{uid} {directory}"
        if os.geteuid() == 0
        else "use another HIVE_STATE_DIR",
    )


def _readable(path: Path, content: bytes, uid: int) -> None:
    """Written whole or not at all, for the cage's user to read, and for no other."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(content)
    temporary.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(temporary, 0, uid)
    temporary.rename(path)
