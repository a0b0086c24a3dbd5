"""Style is a test: layout, import directions, types, lint, and the size of things."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SERVICES = ("approvals", "broker", "dashboard", "gateway", "lifecycle", "updater")
ROOMS = ("__init__.py", "__main__.py", "rules.py", "service.py", "settings.py", "store.py")

FUNCTION_LINES_MAX = 60
MODULE_LINES_MAX = 400
LONGER_FOR_A_REASON: dict[str, str] = {
    "libhive/admin/commands.py": "every command stands in one table",
    "libhive/messages/broker.py": "a vocabulary reads best whole",
    "services/gateway/rehearsal/rules.py": "the rule list of the rehearsal model reads best whole",
}

CHECKS = {
    "lint": ("ruff", "check", "."),
    "format": ("ruff", "format", "--check", "."),
    "types": ("mypy",),
    "imports": ("lint-imports",),
}


@pytest.mark.parametrize("check", CHECKS)
def test_check(check: str) -> None:
    program, *arguments = CHECKS[check]
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [str(Path(sys.executable).parent / program), *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_the_same_rooms(service: str) -> None:
    missing = [room for room in ROOMS if not (ROOT / "services" / service / room).exists()]
    assert not missing
    assert (ROOT / "libhive" / "messages" / f"{service}.py").exists()
    assert (ROOT / "libhive" / "clients" / f"{service}.py").exists()
    assert (ROOT / "tests" / service).is_dir()


@pytest.mark.parametrize("service", SERVICES)
def test_a_floor_plan_is_prose(service: str) -> None:
    tree = ast.parse((ROOT / "services" / service / "__init__.py").read_text())
    assert len(tree.body) == 1
    assert ast.get_docstring(tree)


def sources() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "services", "libhive"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    found = [ROOT / name for name in listed if name.endswith(".py") and (ROOT / name).exists()]
    return found or sorted([*(ROOT / "services").rglob("*.py"), *(ROOT / "libhive").rglob("*.py")])


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_longer_than_one_can_hold_in_mind(path: Path) -> None:
    text = path.read_text()
    name = str(path.relative_to(ROOT))
    if text.count("\n") > MODULE_LINES_MAX:
        assert name in LONGER_FOR_A_REASON, (
            f"{name} has {text.count(chr(10))} lines: split it, or give the reason"
        )
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{name}:{node.lineno} {node.name} has {lines} lines"


def test_whatever_may_be_longer_is() -> None:
    for name in LONGER_FOR_A_REASON:
        assert (ROOT / name).read_text().count("\n") > MODULE_LINES_MAX, f"{name} needs no reason any more"


def test_we_start_no_python_that_trusts_its_working_directory() -> None:
    """PYTHONSAFEPATH=1 wherever a process is started: else a file in the working directory can shadow a module."""
    for path in sources():
        text = path.read_text()
        if "sys.executable" in text:
            assert "PYTHONSAFEPATH" in text or "environment(" in text, path
