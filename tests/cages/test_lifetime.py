"""How a cage begins and ends, whoever dies first."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from libhive.names import agent_name
from libhive.paths import Paths
from libhive.problems import Conflict
from services.lifecycle.cages import Running, kernel
from services.lifecycle.cages.bubblewrap import Bubblewrap
from services.lifecycle.cages.keeper import Kept, read_record
from services.lifecycle.sweep import sweep
from tests.cages.conftest import KINDS, Hutch

STUBBORN = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(1000)"
IRIS = agent_name("iris")


def environment_of(paths: Paths) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "PYTHONSAFEPATH": "1",
        "HIVE_RUN_DIR": str(paths.run),
        "HIVE_STATE_DIR": str(paths.state),
    }


def parts(cage: Running) -> dict[str, int]:
    assert cage.init is not None
    return {
        "keeper": cage.keeper.pid,
        "outer bwrap": int(kernel.status(cage.init.pid)["PPid"]),
        "first process": cage.init.pid,
        "program": cage.program,
    }


@pytest.mark.parametrize("part", ["keeper", "outer bwrap", "first process", "program"])
async def test_sigkill_of_any_part_leaves_no_process(hutch: Hutch, part: str) -> None:
    cage = await hutch.start("iris")
    await hutch.run("iris", "sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &")
    everything = [process for pid in _in_namespace_of(cage) if (process := kernel.Process.open(pid))]
    assert len(everything) >= 3
    os.kill(parts(cage)[part], signal.SIGKILL)
    async with asyncio.timeout(5):
        await hutch.cages.ended(cage)
        for process in everything:
            await process.wait()
            process.close()
    assert not hutch.processes()
    await hutch.cages.kill(cage)  # as the reconciler does with what is left
    assert not hutch.groups()


@pytest.mark.parametrize("kind", KINDS)
async def test_stop_asks_first(hutch: Hutch) -> None:
    cage = await hutch.start("iris")
    assert (await hutch.run("iris", "true")).exit_code == 0
    await hutch.cages.stop(cage, 30.0)
    assert (hutch.paths.agent_state(IRIS) / "last-words").read_text() == "asked to end"
    ended = hutch.cages.status(cage)
    assert ended is not None
    assert ended.exit_code == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_who_does_not_listen_is_killed_after_the_grace_time(hutch: Hutch) -> None:
    cage = await hutch.start("iris", program=("-c", STUBBORN))
    while "deaf" not in hutch.log("iris"):
        await asyncio.sleep(0.01)
    began = asyncio.get_running_loop().time()
    await hutch.cages.stop(cage, 0.3)
    assert 0.3 <= asyncio.get_running_loop().time() - began < 3
    assert not hutch.processes()


@pytest.mark.parametrize("kind", KINDS)
async def test_another_lifecycle_adopts_it(hutch: Hutch) -> None:
    cage = await hutch.start("iris")
    adopted = await hutch.cages.adopt(IRIS)
    assert adopted is not None
    assert (adopted.record, adopted.program, adopted.controls) == (cage.record, cage.program, cage.controls)
    await hutch.cages.kill(adopted)
    assert hutch.cages.status(cage) is not None


async def test_a_cage_of_another_kind_or_without_its_keeper_is_not_adopted(hutch: Hutch) -> None:
    other = Hutch("process", hutch.paths)
    await other.start("iris")
    assert await hutch.cages.adopt(IRIS) is None
    assert not hutch.processes()
    await hutch.start("iris")
    (hutch.paths.cage(IRIS) / "cage.json").unlink()
    assert await hutch.cages.adopt(IRIS) is None
    assert not hutch.processes()


async def test_a_keeper_whose_record_was_never_written_does_not_begin(
    hutch: Hutch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when lifecycle is killed between the two."""
    spawned: list[subprocess.Popen[bytes]] = []

    def die(self: Kept, plan: object, child: subprocess.Popen[bytes]) -> Running:
        spawned.append(child)
        assert child.stdin is not None
        child.stdin.close()
        raise Conflict("killed here")

    monkeypatch.setattr(Kept, "_record", die)
    with pytest.raises(Conflict):
        await hutch.start("iris")
    assert await asyncio.to_thread(spawned[0].wait, 5) == 125
    assert read_record(hutch.paths.cage(IRIS)) is None
    assert "up" not in hutch.log("iris")
    assert not hutch.processes()


async def test_a_program_that_cannot_start_says_why(hutch: Hutch) -> None:
    hutch.cages.create(plan := hutch.plan("iris"))
    plan.spec_file.unlink()
    with pytest.raises(Conflict, match=r"did not start: bwrap: .*spec\.json"):
        await hutch.cages.start(plan)
    assert not hutch.processes()


@pytest.mark.parametrize("kind", ["bubblewrap", "process"])
async def test_what_a_killed_lifecycle_left_of_a_cage_is_cleared_by_the_next_start(hutch: Hutch) -> None:
    """Its groups too, though nobody may remember them."""
    cage = await hutch.start("iris")
    made = hutch.groups()
    assert made or os.geteuid() != 0
    (hutch.paths.cage(IRIS) / "cage.json").unlink()
    assert await hutch.cages.adopt(IRIS) is None
    await hutch.cages.ended(cage)
    await hutch.start("iris")
    assert hutch.groups() == made


async def test_a_control_that_is_missing_is_named_and_the_cage_ended(
    hutch: Hutch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "is_read_only", lambda pid, place: False)
    with pytest.raises(Conflict, match="`read-only-doors`, `read-only-root`"):
        await hutch.start("iris")
    assert not hutch.processes()


async def test_a_filter_that_is_not_loaded_is_noticed(hutch: Hutch, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: a cage that is started without its seccomp filter."""
    from services.lifecycle.cages import bubblewrap

    real = bubblewrap._bwrap

    def without_filter(*arguments: object) -> list[str]:
        argv = real(*arguments)  # type: ignore[arg-type]
        at = argv.index("--seccomp")
        return argv[:at] + argv[at + 2 :]

    monkeypatch.setattr(bubblewrap, "_bwrap", without_filter)
    with pytest.raises(Conflict, match="`seccomp`"):
        await hutch.start("iris")


async def test_the_sweep_ends_them_all(hutch: Hutch) -> None:
    await hutch.start("iris")
    await hutch.start("mallory", 2)
    assert (await hutch.run("iris", "true")).exit_code == 0  # from now on it listens to SIGTERM
    (hutch.paths.cage(agent_name("mallory")) / "cage.json").unlink()
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "services.lifecycle.sweep"],
        env=environment_of(hutch.paths),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "iris, mallory" in done.stderr
    assert not hutch.processes()
    assert list(hutch.paths.run.glob("cages/*/*")) == []
    assert (hutch.paths.agent_state(IRIS) / "last-words").exists()
    assert await sweep(hutch.paths) == []


async def test_destroy_keeps_the_state_and_follows_no_link(hutch: Hutch) -> None:
    cage = await hutch.start("iris")
    outside = hutch.paths.agent_state(agent_name("outside"))
    outside.mkdir()
    (outside / "kept").touch()
    await hutch.run(
        "iris", "sh", "-c", f"ln -s {outside} /run/page/link; mkdir -p /run/page/deep; echo 1 >/state/note"
    )
    depth = 20 if hutch.cages.kind == "nspawn" else 1500  # there it has room for no more
    deep = f"import os\nos.chdir('/run/page/deep')\nfor _ in range({depth}): os.mkdir('d'); os.chdir('d')"
    assert (await hutch.python("iris", deep)).exit_code == 0
    await hutch.cages.kill(cage)
    await hutch.cages.destroy(IRIS)
    assert (outside / "kept").exists()
    assert (hutch.paths.agent_state(IRIS) / "note").exists()
    assert not list(hutch.paths.page_dir(IRIS).glob("*"))
    assert not list(hutch.paths.cage(IRIS).iterdir())


async def test_what_an_agent_left_behind_is_reaped(hutch: Hutch) -> None:
    """Orphans become children of the cage's first process, and no zombies."""
    await hutch.start("iris")
    await hutch.run("iris", "sh", "-c", "(sleep 0.05 &) ; (sleep 0.05 &)")
    await asyncio.sleep(0.3)
    done = await hutch.run("iris", "sh", "-c", "grep -l '^State:.Z' /proc/[0-9]*/status; true")
    assert done.output == ""


def test_a_host_that_forbids_user_namespaces_is_told_so(short_paths: Paths) -> None:
    """In a user namespace that may have one more below it, and bwrap would need a second."""
    script = 'echo 1 >/proc/sys/user/max_user_namespaces && exec unshare --user --map-user 1000 -- "$0" "$@"'
    done = subprocess.run(
        ["unshare", "-r", "sh", "-c", script, sys.executable, "-m", "services.lifecycle.check"],
        env=environment_of(short_paths) | {"HIVE_CLAUDE": "/bin/true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    sentence, hint = done.stderr.strip().splitlines()
    assert sentence.startswith("this host does not let bubblewrap make a cage: bwrap: ")
    assert hint.strip()


def test_this_host_can_make_cages(short_paths: Paths) -> None:
    check = [sys.executable, "-m", "services.lifecycle.check"]
    environment = environment_of(short_paths) | {"HIVE_CLAUDE": "/bin/true"}
    done = subprocess.run(check, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_missing_or_old_bwrap_is_named_with_what_mends_it(
    hutch_paths: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(hutch_paths))
    with pytest.raises(Conflict, match="bwrap is not installed") as caught:
        _bubblewrap().check()
    assert caught.value.hint.startswith("sudo apt-get install bubblewrap")
    (hutch_paths / "bwrap").write_text("#!/bin/sh\necho bubblewrap 0.4.1\n")
    (hutch_paths / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{hutch_paths}:/usr/bin:/bin")
    with pytest.raises(Conflict, match=r"0\.4\.1 is too old"):
        _bubblewrap().check()


@pytest.fixture
def hutch_paths(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    return tmp_path


def _bubblewrap() -> Bubblewrap:
    return Bubblewrap(Paths(Path("/tmp/none"), Path("/tmp/none")))


def _in_namespace_of(cage: Running) -> list[int]:
    assert cage.init is not None
    wanted = kernel.namespace(cage.init.pid, "pid_for_children")
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return [pid for pid in pids if kernel.namespace(pid, "pid") == wanted]
