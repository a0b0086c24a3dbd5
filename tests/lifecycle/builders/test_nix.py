"""A real closure by the real nix-build, offline: its packages are unpacked by what Nix itself brings, no shell needed."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from libhive.problems import Conflict
from libhive.spec import AgentSpec
from services.lifecycle.builders.nix import NixBuilder
from tests.lifecycle.builders.conftest import Shop

PACKAGES = """{ ... }: {
  greeter = derivation {
    name = "greeter-1.2";
    system = "builtin";
    builder = "builtin:unpack-channel";
    src = ./greeter.tar;
    channelName = "bin";
  };
}
"""


@pytest.fixture
def nixpkgs() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hive-nixpkgs-") as place:
        path = Path(place)
        path.chmod(0o755)
        fill(path)
        yield path


def fill(path: Path) -> None:
    (path / "default.nix").write_text(PACKAGES)
    (path / "programs").mkdir()
    greet = path / "programs/greet"
    greet.write_text("#!/bin/sh\necho hello from a closure\n")
    greet.chmod(0o755)
    subprocess.run(["tar", "-C", str(path), "-cf", str(path / "greeter.tar"), "programs"], check=True)


async def test_a_closure_is_built_and_found(
    shop: Shop, nixpkgs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIX_CONFIG", "substituters =")
    shop._builders = dict(shop._builders) | {"nix": NixBuilder(str(nixpkgs))}
    spec = AgentSpec(root="nix", packages=["greeter"])
    tree = await shop.made(spec)
    assert tree
    assert (tree / "nix/env").readlink().parts[0] == "store"
    (root,) = shop.all({})
    assert shop.whole(root).packages["greeter"] == "1.2"
    with pytest.raises(Conflict, match="there is no package no-such-package-1 in"):
        await shop.made(AgentSpec(root="nix", packages=["greeter", "no-such-package-1"]))
    assert shop.roots.unfinished() == []


async def test_what_it_cannot_do_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = AgentSpec(root="nix")
    with pytest.raises(Conflict, match="nobody said where") as caught:
        await NixBuilder("").check(spec)
    assert "HIVE_NIXPKGS" in caught.value.hint
    with pytest.raises(Conflict, match="lies in /nix/store"):
        await NixBuilder("/x", prefix=Path("/nix/store/x-python3")).check(spec)
    builder = NixBuilder("/x")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Conflict, match="nix is not installed"):
        await builder.work(builder.recipe(spec), Path("/mnt"))
