"""Everything in this directory once more, as an ordinary user; when root runs the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
UID = "47110"
OF_THE_SERVICE = (
    "test_a_life",
    "test_exec_runs_inside_the_cage",
    "test_sigkill_of_lifecycle_leaves_the_cages_and_the_next_one_adopts_them",
)

# a clone, a virtual environment or a Python below a closed home is made reachable at its own path, in a mount
# namespace of this run: everything is bound aside, the closed home is covered, everything is bound back
REACHABLE = """
set -e
stage=$1; shift
mount -t tmpfs -o mode=755 tmpfs "$stage"
i=0; for tree in $TREES; do mkdir "$stage/$i"; mount --bind "$tree" "$stage/$i"; i=$((i + 1)); done
for closed in $CLOSED; do mount -t tmpfs -o mode=755 tmpfs "$closed"; done
i=0; for tree in $TREES; do mkdir -p "$tree"; mount --bind "$stage/$i" "$tree"; i=$((i + 1)); done
exec setpriv --reuid "$0" --regid "$0" --clear-groups -- "$@"
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="already an ordinary user: the other files have shown it")
def test_all_of_it_as_an_ordinary_user() -> None:
    files = [str(path) for path in sorted(Path(__file__).parent.glob("test_*.py")) if path != Path(__file__)]
    run_as_user([*files, *(f"{ROOT}/tests/lifecycle/test_service.py::{name}" for name in OF_THE_SERVICE)])


def run_as_user(files: Sequence[str], first: str = "") -> None:
    """These tests, by a user who is nobody else; `first` is done in the run's own mount namespace, as root."""
    home = Path(tempfile.mkdtemp(prefix="hive-user-", dir="/tmp"))
    os.chown(home, int(UID), int(UID))
    trees = list(dict.fromkeys((ROOT, Path(sys.prefix), Path(sys.base_prefix))))
    closed = [tree for tree in map(first_closed, trees) if tree]
    line = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        f"{ROOT}/pyproject.toml",
        *files,
    ]
    script = REACHABLE if closed else 'exec setpriv --reuid "$0" --regid "$0" --clear-groups -- "$@"'
    line = ["sh", "-c", first + script, UID, *(["/mnt"] if closed else []), *line]
    try:
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "--", *line],
            cwd=home,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(home),
                "PYTHONPATH": str(ROOT),
                "PYTHONSAFEPATH": "1",
                "PYTHONDONTWRITEBYTECODE": "1",
                "TREES": " ".join(str(tree) for tree in trees if not tree.is_relative_to("/usr")),
                "CLOSED": " ".join(dict.fromkeys(map(str, closed))),
            },
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        shutil.rmtree(home)
    assert done.returncode == 0, done.stdout + done.stderr


def first_closed(path: Path) -> Path | None:
    """The topmost directory on the way to it that others may not pass through."""
    on_the_way = [*reversed(path.parents), path]
    return next((directory for directory in on_the_way if not directory.stat().st_mode & 0o001), None)
