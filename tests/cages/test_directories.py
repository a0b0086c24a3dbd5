"""What a cage has left behind is removed, however much it is, and nothing that it points to."""

from __future__ import annotations

from pathlib import Path

import pytest

from libhive.problems import Conflict
from services.lifecycle.cages import directories


def test_thirty_thousand_files_and_a_deep_tree_are_removed(tmp_path: Path) -> None:
    page = tmp_path / "page"
    page.mkdir()
    for number in range(30_000):
        (page / f"{'a' * 60}{number}").touch()
    (page / "/".join(["d"] * 200)).mkdir(parents=True)
    directories.clear(page)
    assert list(page.iterdir()) == []


def test_a_link_is_removed_and_not_followed(tmp_path: Path) -> None:
    outside, page = tmp_path / "outside", tmp_path / "page"
    for directory in (outside, page):
        directory.mkdir()
    (outside / "kept").touch()
    (page / "link").symlink_to(outside)
    directories.clear(page)
    assert (outside / "kept").exists()
    page.rmdir()
    page.symlink_to(outside)
    directories.clear(page)
    assert (outside / "kept").exists()


def test_what_cannot_be_removed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Conflict, match="cannot be emptied"):
        directories.clear(tmp_path)
