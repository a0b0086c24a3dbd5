"""/opt/hyperhive: each version whole in a directory of its own, and `current`, which names the one that is used.

    versions/<id>/venv, libexec, share     claude/<id>     current -> versions/<id>     venv -> current/venv ...

A version is made beside the one that runs, which goes on undisturbed. The one before stays: cages that were started from
it have it bound until they are built anew.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from deploy.setup import setup

OPT = Path("/opt/hyperhive")
VERSIONS, CLAUDES, CURRENT = OPT / "versions", OPT / "claude", OPT / "current"
WHOLE = ".whole"
KEPT = 2
STABLE = ("venv", "libexec", "share")
BINARY = Path("claude_agent_sdk/_bundled/claude")
SERVICES = ("approvals", "broker", "dashboard", "gateway", "lifecycle", "updater")
REQUIREMENTS = setup.HOME / "requirements"


def make(wheels: Path | None, claude: Path | None) -> Path:
    """The version that this checkout is. What is there already, and whole, stays. `claude` is a binary to be used where it
    lies, instead of one of our own."""
    version = VERSIONS / _id()
    if not _is_whole(version):
        shutil.rmtree(version, ignore_errors=True)
        version.mkdir(parents=True)
        with setup.progress("Python environment and packages"):
            _make_venv(version / "venv", wheels)
    if claude:
        _check_claude(claude)
    else:
        with setup.progress("Claude Code"):
            claude = _own_claude(wheels) / BINARY
    _make_rest(version, claude)
    (version / WHOLE).write_text(_dependencies())
    return version


def use(version: Path) -> bool:
    """Makes it the one that units start; False when it was already."""
    for name in STABLE:
        _point(OPT / name, Path("current") / name)
    return _point(CURRENT, version.relative_to(OPT))


def used() -> Path | None:
    return CURRENT.resolve() if CURRENT.is_symlink() else None


def forget_old() -> None:
    """All but the newest, and the CLIs that none of them uses."""
    found = sorted(VERSIONS.iterdir(), key=lambda version: version.stat().st_mtime, reverse=True)
    kept = [version for version in found if version != used()][: KEPT - 1]
    for version in found:
        if version not in (*kept, used()):
            shutil.rmtree(version)
    claudes = {(version / "libexec" / "claude").resolve() for version in VERSIONS.iterdir()}
    for claude in CLAUDES.glob("*"):
        if (claude / BINARY).resolve() not in claudes:
            shutil.rmtree(claude)


def _id() -> str:
    return f"{setup.project_digest()[:12]}-{_digest(_made_from())}"


def _made_from() -> Iterator[Path]:
    """Beside the sources: what else ends up in a version."""
    yield from (REQUIREMENTS / name for name in ("run.txt", "build.txt", "claude.txt"))
    yield from sorted((setup.HOME / "docs").glob("*.md"))
    yield from _libexec()


def _libexec() -> list[Path]:
    """What units start that is not of the environment: it runs as root, so it uses nothing of it."""
    return [path for path in sorted((setup.HOME / "deploy" / "systemd").iterdir()) if not path.suffix]


def _is_whole(version: Path) -> bool:
    """As far as the services can be loaded."""
    services = ", ".join(f"services.{name}.__main__" for name in SERVICES)
    command = [
        str(version / "venv" / "bin" / "python"),
        "-I",
        "-c",
        f"import libhive.admin.__main__, {services}",
    ]
    return (version / WHOLE).exists() and subprocess.run(
        command, capture_output=True, check=False
    ).returncode == 0


def _dependencies() -> str:
    return f"{_digest([REQUIREMENTS / 'run.txt'])} {sys.version}"


def _make_venv(venv: Path, wheels: Path | None) -> None:
    """Without pip, which only the tools have that are removed afterwards. What it depends on is taken from the version in
    use when that has the same: then an upgrade needs next to no network."""
    setup.run([sys.executable, "-m", "venv", "--without-pip", str(venv)])
    has_all = _take_dependencies(venv)
    with tempfile.TemporaryDirectory(prefix="hyperhive-install-") as place:
        tools = Path(place) / "tools"
        setup.run([sys.executable, "-m", "venv", str(tools)])
        python = str(tools / "bin" / "python")
        pip = [python, "-m", "pip", "--disable-pip-version-check", "--no-input"]
        locked = ["--quiet", "--require-hashes", "--only-binary", ":all:", *_from(wheels)]
        setup.run([*pip, "install", *locked, "-r", str(REQUIREMENTS / "build.txt")])
        into = [*pip, "--python", str(venv / "bin" / "python")]
        if not has_all:
            setup.run([*into, "install", *locked, "-r", str(REQUIREMENTS / "run.txt")])
        own = ["--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", place, str(setup.HOME)]
        setup.run([*pip, "wheel", "--quiet", *own])
        wheel = next(Path(place).glob("hyperhive-*.whl"))
        setup.run([*into, "install", "--quiet", "--no-deps", "--no-index", str(wheel)])


def _take_dependencies(venv: Path) -> bool:
    before = used()
    if not before or not _is_whole(before) or (before / WHOLE).read_text() != _dependencies():
        return False
    ours, theirs = (next(place.glob("lib/python3*/site-packages")) for place in (venv, before / "venv"))
    setup.run(["cp", "-a", "--reflink=auto", f"{theirs}/.", str(ours)])
    for own in (ours / "libhive", ours / "services", *ours.glob("hyperhive-*.dist-info")):
        shutil.rmtree(own)
    return True


def _check_claude(binary: Path) -> None:
    """Units run it: nobody but root may be able to change it."""
    if not binary.is_file() or not os.access(binary, os.X_OK):
        raise setup.SetUpError(
            f"CLAUDE={binary} is not a program", "leave it out, and Claude Code is downloaded"
        )
    for path in (binary.resolve(), *binary.resolve().parents):
        found = path.stat()
        if found.st_uid != 0 or (found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX):
            raise setup.SetUpError(
                f"others than root could change {path}", "leave CLAUDE out, and an own copy is made"
            )


def _own_claude(wheels: Path | None) -> Path:
    """By the digest of what it is; what `make up` has downloaded for this checkout is not downloaded again."""
    wanted = REQUIREMENTS / "claude.txt"
    claude = CLAUDES / _digest([wanted])
    if (claude / WHOLE).exists():
        return claude
    shutil.rmtree(claude, ignore_errors=True)
    claude.parent.mkdir(exist_ok=True)
    there = setup.CLAUDE / ".made-from"
    if there.is_file() and there.read_text() == setup.digest([wanted]):
        (claude / BINARY).parent.mkdir(parents=True)
        setup.run(["cp", "--reflink=auto", str(setup.CLAUDE / BINARY), str(claude / BINARY)])
    else:
        _download_claude(claude, wanted, wheels)
    (claude / BINARY).chmod(0o755)
    (claude / WHOLE).touch()
    return claude


def _download_claude(claude: Path, wanted: Path, wheels: Path | None) -> None:
    with tempfile.TemporaryDirectory(prefix="hyperhive-install-") as place:
        setup.run([sys.executable, "-m", "venv", place])
        pip = [f"{place}/bin/python", "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
        options = ["--quiet", "--require-hashes", "--only-binary", ":all:", "--no-deps", "--no-compile"]
        setup.run([*pip, *options, *_from(wheels), "--target", str(claude), "-r", str(wanted)])


def _make_rest(version: Path, claude: Path) -> None:
    libexec, docs = version / "libexec", version / "share" / "doc"
    libexec.mkdir(exist_ok=True)
    docs.mkdir(parents=True, exist_ok=True)
    for program in _libexec():
        shutil.copyfile(program, libexec / program.name)
        (libexec / program.name).chmod(0o755)
    _point(libexec / "claude", claude.resolve())
    for page in (setup.HOME / "docs").glob("*.md"):
        shutil.copyfile(page, docs / page.name)


def _from(wheels: Path | None) -> list[str]:
    return ["--no-index", "--find-links", str(wheels)] if wheels else []


def _point(link: Path, target: Path) -> bool:
    if link.is_symlink() and link.readlink() == target:
        return False
    fresh = link.with_name(f".{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.rename(link)
    return True


def _digest(paths: Iterator[Path] | list[Path]) -> str:
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()[:12]
