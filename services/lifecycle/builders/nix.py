"""Packages of Nix beside the host's own /usr: a closure in a store of its own, which the cage has as /nix.

The store is the root's alone, so nothing of the host needs to be prepared for it, no daemon and no users of its own;
and a cage cannot see the host's, where there is one.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from libhive.problems import Conflict
from libhive.spec import AgentSpec, RootKind
from services.lifecycle.builders.debian import PATH, PROXIES
from services.lifecycle.builders.recipe import Contents, Recipe, Work

RECIPE_VERSION = 1
_PASSED = ("NIX_CONFIG", "NIX_SSL_CERT_FILE", *PROXIES, *(name.upper() for name in PROXIES))
EXPRESSION = """
{ source, names }:
let
  isAddress = builtins.match "https?://.*" source != null;
  packages = import (if isAddress then fetchTarball source else source) { };
  wanted = builtins.filter (name: builtins.isString name && name != "") (builtins.split " " names);
  find = name: packages.${name} or (throw "there is no package ${name} in ${source}");
in derivation {
  name = "hive-root";
  system = "builtin";
  builder = "builtin:buildenv";
  derivations = map (name: [ "true" 5 1 (find name) ]) wanted;
  manifest = builtins.toFile "packages" names;
  preferLocalBuild = true;
  allowSubstitutes = false;
}
"""
"""One directory of links to all that is wanted, by what Nix itself brings; of the packages only their own files."""

_ARCHIVED = 'env=$("$@") && ln -s "${env#/nix/}" root/nix/env && exec tar -C root --exclude=./nix/var --exclude="*.drv" -c .'


class NixBuilder:
    kind: RootKind = "nix"

    def __init__(self, nixpkgs: str, prefix: Path = Path(sys.base_prefix)) -> None:
        self._nixpkgs, self._prefix = nixpkgs, prefix

    async def check(self, spec: AgentSpec) -> None:
        self.recipe(spec)

    def recipe(self, spec: AgentSpec) -> Recipe:
        if self._prefix.is_relative_to("/nix"):
            raise Conflict(
                "this hive itself lies in /nix/store, which a cage with a store of its own could not see",
                'use root = "host"',
            )
        if not self._nixpkgs:
            raise Conflict(
                'nobody said where the packages of root = "nix" are defined',
                "set HIVE_NIXPKGS to a directory of nixpkgs, or the address of an archive of it",
            )
        return Recipe(
            builder="nix",
            version=RECIPE_VERSION,
            source=self._nixpkgs,
            architecture=os.uname().machine,
            variant="",
            packages=tuple(sorted(set(spec.packages))),
            inputs=spec.inputs,
        )

    async def work(self, recipe: Recipe, stage: Path) -> Work:
        if shutil.which("nix-build") is None:
            raise Conflict(
                'nix is not installed: it makes the roots of agents with root = "nix"',
                "sudo apt-get install -y nix-bin",
            )
        environ = {name: os.environ[name] for name in _PASSED if name in os.environ}
        own = {"HOME": str(stage), "LC_ALL": "C.UTF-8", "PATH": PATH, "TMPDIR": str(stage)}
        return Work(argv=command_line(recipe, stage), environ=environ | own, output="archive")

    def accept(self, recipe: Recipe, tree: Path, contents: Contents) -> None:
        """What Nix has built is what was asked for, or it would have failed."""


def command_line(recipe: Recipe, stage: Path) -> list[str]:
    """The builds are made in Nix's own sandbox within the enclosure."""
    return [
        *("sh", "-c", _ARCHIVED, "nix-root"),
        "nix-build",
        *("--store", f"{stage}/root"),
        *("--option", "build-users-group", ""),
        *("--option", "sandbox", "true"),
        *("--option", "sandbox-fallback", "false"),
        "--no-out-link",
        *("--argstr", "source", recipe.source),
        *("--argstr", "names", " ".join(recipe.packages)),
        *("--expr", EXPRESSION),
    ]
