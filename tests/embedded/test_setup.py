"""deploy/setup/setup.py: what it runs is the user's own pip and apt, so what is tested here is when it runs them."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
REQUIREMENTS = sorted((ROOT / "requirements").glob("*.txt"))


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, set up to work in an empty directory."""
    spec = importlib.util.spec_from_file_location("setup_script", ROOT / "deploy" / "setup" / "setup.py")
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for name, path in {
        "HOME": ".",
        "CACHE": ".cache",
        "LOG": ".cache/setup.log",
        "IN_USE": ".in-use",
    }.items():
        monkeypatch.setattr(script, name, tmp_path / path)
    (tmp_path / ".cache").mkdir()
    return script


def pins(path: Path) -> dict[str, str]:
    """Each package's whole entry, hashes included."""
    return {
        entry.split("==")[0]: entry.rstrip("\\\n ")
        for entry in re.split(r"\n(?=\S)", path.read_text())
        if entry
    }


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_every_requirement_is_pinned_with_hashes_and_names_no_place(path: Path) -> None:
    assert pins(path)
    for entry in pins(path).values():
        assert re.match(r"^[a-z0-9-]+==\S+( \\\n    --hash=sha256:[0-9a-f]{64})+$", entry.strip()), entry
    assert "://" not in path.read_text()


@pytest.mark.parametrize("name", ["run.txt", "build.txt"])
def test_tests_run_with_what_runs(name: str) -> None:
    development = pins(ROOT / "requirements" / "dev.txt")
    for package, entry in pins(ROOT / "requirements" / name).items():
        assert development[package].split() == entry.split()


def test_a_step_is_skipped_until_what_it_is_made_from_changes(setup: ModuleType, tmp_path: Path) -> None:
    made: list[str] = []
    stamp = tmp_path / "stamps" / "one"

    def run(made_from: str, fails: bool = False) -> None:
        def make() -> None:
            made.append(made_from)
            if fails:
                raise setup.SetUpError("broken", "mend it")

        setup.steps = lambda for_tests: [setup.Step("one", stamp, made_from, make)]
        setup.wanted_packages = lambda for_tests: []
        setup.set_up(for_tests=False)

    run("a")
    run("a")
    assert made == ["a"]
    with pytest.raises(setup.SetUpError):
        run("b", fails=True)
    run("a")
    run("a")
    assert made == ["a", "b", "a"], "what failed is made again, and once"


def test_nothing_is_changed_under_a_running_hive(setup: ModuleType, tmp_path: Path) -> None:
    import fcntl

    setup.check_unused()
    with (tmp_path / ".in-use").open("w") as held:
        setup.check_unused()
        fcntl.flock(held, fcntl.LOCK_SH)
        with pytest.raises(setup.SetUpError, match="a hive runs from this checkout"):
            setup.check_unused()


@pytest.mark.parametrize(
    ("stamp", "says"),
    [(None, "`make test` has to install more"), ("old", "what it was set up from has changed")],
)
def test_what_a_running_hive_stands_in_the_way_of_is_told_as_it_is(
    setup: ModuleType, tmp_path: Path, stamp: str | None, says: str
) -> None:
    import fcntl

    path = tmp_path / "dev"
    if stamp:
        path.write_text(stamp)
    setup.steps = lambda for_tests: [setup.Step("tools for tests", path, "new", lambda: None)]
    setup.wanted_packages = lambda for_tests: []
    with (tmp_path / ".in-use").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        with pytest.raises(setup.SetUpError, match=says):
            setup.set_up(for_tests=True)


def test_the_environments_own_python_does_not_replace_it(
    setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "VENV", tmp_path / "elsewhere")
    setup.check_python()
    monkeypatch.setattr(setup, "VENV", Path(sys.prefix))
    with pytest.raises(setup.SetUpError, match="which set-up itself makes and replaces"):
        setup.check_python()


def test_a_failing_program_is_shown_with_its_last_words(setup: ModuleType) -> None:
    with pytest.raises(setup.SetUpError) as failure:
        setup.run([sys.executable, "-c", "print('earlier'); raise SystemExit('no such wheel')"])
    what, hint = failure.value.args
    assert "ended with 1" in what
    assert "no such wheel" in what
    assert "setup.log" in hint
    assert "goes on from here" in hint


def test_an_ordinary_user_gets_one_line_to_run(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(setup.SetUpError) as failure:
        setup.debian_packages(["python3-venv", "bubblewrap"])
    lines = [line for line in failure.value.args[1].splitlines() if "apt-get" in line]
    assert lines == [
        "install it with:  sudo apt-get install -y --no-install-recommends python3-venv bubblewrap"
    ]


def test_what_is_missing_is_known(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup.shutil, "which", lambda program: None)
    monkeypatch.delenv("HIVE_CAGE", raising=False)
    assert setup.wanted_packages(for_tests=False) == ["bubblewrap"]
    assert setup.wanted_packages(for_tests=True) == ["bubblewrap", *setup.TEST_PROGRAMS]
    monkeypatch.setenv("HIVE_CAGE", "process")
    assert setup.wanted_packages(for_tests=False) == []


def test_an_old_python_is_one_sentence(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup.sys, "version_info", (3, 10, 4))
    with pytest.raises(setup.SetUpError, match=r"3\.11 or newer.*3\.10\.4"):
        setup.check_python()


@pytest.mark.parametrize("argv", [[], ["up"], ["run", "test"]])
def test_wrong_usage(argv: list[str]) -> None:
    command = [sys.executable, str(ROOT / "deploy" / "setup" / "setup.py"), *argv]
    environment = {"PATH": os.environ["PATH"], "PYTHONSAFEPATH": "1"}
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 2


def test_the_makefile_has_the_targets_that_are_needed_and_no_others() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z]+):", text, re.MULTILINE)
    wanted = ["up", "down", "install", "uninstall", "test", "check", "bench", "fmt", "clean"]
    assert sorted(targets) == sorted(wanted)


PAGES = ("README.md", "CONTRIBUTING.md")


@pytest.mark.parametrize("page", PAGES)
def test_links_of_the_first_pages_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text()):
        assert (ROOT / target).exists(), f"{page} links to {target}"


def test_the_commands_of_the_readme_exist() -> None:
    from libhive.admin.commands import COMMANDS

    text = (ROOT / "README.md").read_text()
    used = set(re.findall(r"^ +hive-admin ([a-z]+)", text, re.MULTILINE))
    assert {"send", "proposals", "approve", "login", "status"} <= used
    assert used <= {command.name for command in COMMANDS}
    assert set(re.findall(r"(?:`|^ +)make ([a-z]+)", text, re.MULTILINE)) == {"up", "down", "test", "clean"}
