"""What is put outside /opt/hyperhive, and the record of it there: an upgrade removes what is no longer of it, uninstall
removes it all, and `hive-admin doctor` compares."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from deploy.install.versions import OPT
from deploy.setup import setup

DEPLOY = setup.HOME / "deploy"
PLACES = (
    ("systemd", "*.service", "/etc/systemd/system", 0o644),
    ("systemd", "*.slice", "/etc/systemd/system", 0o644),
    ("systemd", "*.target", "/etc/systemd/system", 0o644),
    ("sysusers", "*.conf", "/etc/sysusers.d", 0o644),
    ("tmpfiles", "*.conf", "/etc/tmpfiles.d", 0o644),
    ("polkit", "*.rules", "/etc/polkit-1/rules.d", 0o644),
    ("bin", "*", "/usr/local/bin", 0o755),
)
RECORD = OPT / "installed.json"
SETTINGS = Path("/etc/hyperhive/hive.env")


def put() -> list[Path]:
    """Returns those that are new or were changed."""
    wanted = dict(_wanted())
    before = recorded()
    foreign = [path for path, _ in wanted.values() if path.exists() and str(path) not in before]
    if foreign and before:
        setup.say(f"  replacing what was there, and not of hyperhive: {' '.join(map(str, foreign))}")
    changed = [target for source, (target, mode) in wanted.items() if _copy(source, target, mode)]
    for old in before.keys() - {str(target) for target, _ in wanted.values()}:
        Path(old).unlink(missing_ok=True)
    hashes = {str(target): _hash(target) for target, _ in wanted.values()}
    RECORD.write_text(json.dumps({"files": hashes}, indent=2, sort_keys=True) + "\n")
    if not SETTINGS.exists():
        SETTINGS.parent.mkdir(exist_ok=True)
        shutil.copyfile(DEPLOY / "install" / "hive.env", SETTINGS)
    return changed


def remove() -> None:
    for path in recorded():
        Path(path).unlink(missing_ok=True)
    RECORD.unlink(missing_ok=True)


def recorded() -> dict[str, str]:
    """Path and hash of each file that was put somewhere."""
    try:
        return dict(json.loads(RECORD.read_text())["files"])
    except FileNotFoundError:
        return {}


def _wanted() -> Iterator[tuple[Path, tuple[Path, int]]]:
    for folder, pattern, place, mode in PLACES:
        for source in sorted((DEPLOY / folder).glob(pattern)):
            yield source, (Path(place) / source.name, mode)


def _copy(source: Path, target: Path, mode: int) -> bool:
    if target.is_file() and target.read_bytes() == source.read_bytes():
        target.chmod(mode)
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.new")
    shutil.copyfile(source, fresh)
    fresh.chmod(mode)
    fresh.rename(target)
    return True


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
