"""`python3 mirror.py DIRECTORY`, in a container: an apt repository of what is installed there, without any network.

What `minbase` and the hive's agents need to run is one package, repacked from the container's own files: dpkg then has a
handful to configure and not ninety. The others have only their names, and `hive-held` does not end until it may.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

INFO = Path("/var/lib/dpkg/info")
REAL = ("python3",)
NAMES = ("apt", "bash", "ca-certificates", "curl", "git", "procps", "python3", "hive-held")
LEFT_OUT = re.compile(
    r"/usr/share/(?!base-|debconf|keyrings)|/usr/lib/.*/(gconv|perl|perl-base|security)/|/usr/bin/perl"
)
"""What no maintainer script here and no agent's harness uses."""
DIRECTORIES = ("dev", "proc", "run", "sys", "tmp")
ETC = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\n_apt:x:42:65534::/nonexistent:/usr/sbin/nologin\n",
    "group": "root:x:0:\n",
}
HELD = "#!/bin/sh\ntouch /held\nuntil [ -e /go ]; do sleep 0.05; done\n"
"""What the package runs at its installation."""


def main(place: Path) -> None:
    place.mkdir(parents=True)
    base = place / "base"
    _copy_installed(base)
    controls = [_pack(place, base, "hive-base", "Essential: yes\n")]
    for name in NAMES:
        empty = place / name
        empty.mkdir()
        controls.append(
            _pack(place, empty, name, "Depends: hive-base\n", HELD if name == "hive-held" else "")
        )
    index = "\n".join(controls).encode()
    (place / "Packages").write_bytes(index)
    suite = platform.freedesktop_os_release()["VERSION_CODENAME"]
    digest = f"{hashlib.sha256(index).hexdigest()} {len(index)} Packages"
    (place / "Release").write_text(f"Suite: {suite}\nCodename: {suite}\nSHA256:\n {digest}\n")


def _copy_installed(base: Path) -> None:
    base.mkdir()
    for name in ("bin", "lib", "lib64", "sbin"):
        (base / "usr" / name).mkdir(parents=True)
        (base / name).symlink_to(f"usr/{name}")
    for path in sorted(_files()):
        target = base / path.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(target):
            shutil.copy2(path, target, follow_symlinks=False)
    for name in DIRECTORIES:
        (base / name).mkdir(exist_ok=True)
    (base / "usr/share/base-passwd/hive").write_text("of the mirror\n")
    for name, text in ETC.items():
        (base / "etc" / name).write_text(text)


def _files() -> set[Path]:
    """With their directories as they are, since /bin is a link."""
    found = set()
    for package in _wanted():
        for listing in (
            INFO / f"{package}.list",
            INFO / f"{package}:amd64.list",
            *INFO.glob(f"{package}:*.list"),
        ):
            for line in listing.read_text().splitlines() if listing.is_file() else []:
                path = Path(line).parent.resolve() / Path(line).name
                kind = path.lstat().st_mode if os.path.lexists(path) else 0
                if (stat.S_ISREG(kind) or stat.S_ISLNK(kind)) and not LEFT_OUT.match(str(path)):
                    found.add(path)
    return found - {Path(f"/{name}") for name in ("bin", "lib", "lib64", "sbin")}


def _wanted() -> set[str]:
    """What is essential and what an agent starts with, and what these need."""
    needs, wanted, essential = {}, set(), []
    for paragraph in Path("/var/lib/dpkg/status").read_text().split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z-]+): (.*)$", paragraph, re.MULTILINE))
        if name := fields.get("Package"):
            listed = f"{fields.get('Pre-Depends', '')},{fields.get('Depends', '')}"
            needs[name] = re.findall(r"[a-z0-9][a-z0-9+.-]+(?=[ :,|(]|$)", re.sub(r"\([^)]*\)", "", listed))
            essential += [name] if fields.get("Essential") == "yes" else []
    more = {*essential, *REAL}
    while more:
        wanted |= more
        more = {other for name in more for other in needs[name] if other in needs} - wanted
    return wanted


def _pack(place: Path, tree: Path, name: str, more: str, postinst: str = "") -> str:
    """Its paragraph in the index."""
    architecture = subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
    ).stdout.strip()
    control = (
        f"Package: {name}\nVersion: 1.0\nArchitecture: {architecture}\nPriority: optional\n{more}"
        "Maintainer: nobody <nobody@localhost>\nDescription: of the tests\n"
    )
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(control)
    if postinst:
        (tree / "DEBIAN/postinst").write_text(postinst)
        (tree / "DEBIAN/postinst").chmod(0o755)
    package = place / f"{name}.deb"
    subprocess.run(
        ["dpkg-deb", "-Znone", "--root-owner-group", "--build", str(tree), str(package)], check=True
    )
    shutil.rmtree(tree)
    content = package.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return f"{control}Filename: ./{name}.deb\nSize: {len(content)}\nSHA256: {digest}\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
