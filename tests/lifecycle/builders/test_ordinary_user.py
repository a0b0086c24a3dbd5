"""The enclosure once more, of an ordinary user with a range of subordinate ids; when root runs the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cages.test_ordinary_user import UID, run_as_user

HERE = Path(__file__).parent
TESTS = (
    "test_workshop.py::test_a_build_is_root_of_nothing_but_its_own",
    "test_workshop.py::test_a_failed_build_says_its_last_words_to_each_who_asked_and_leaves_nothing",
    "test_workshop.py::test_the_enclosure_dies_with_whoever_started_it_and_the_next_one_cleans_up",
    "test_workshop.py::test_what_is_built_has_nothing_that_is_more_than_a_file_for_all_to_read",
    "test_debian.py::test_the_real_mmdebstrap_fails_with_its_own_words",
    "test_nix.py::test_a_closure_is_built_and_found",
)
RANGES = f"""
t=$(mktemp -d); cp /etc/passwd "$t/passwd"; echo "hive-test:x:{UID}:{UID}::/:/bin/sh" >>"$t/passwd"
echo "hive-test:700000:65536" >"$t/subuid"; cp "$t/subuid" "$t/subgid"
for name in passwd subuid subgid; do touch "/etc/$name"; mount --bind "$t/$name" "/etc/$name"; done
rm -r "$t"
"""
"""A user whom newuidmap knows, in the mount namespace of this run alone."""


@pytest.mark.skipif(os.geteuid() != 0, reason="already an ordinary user: the other files have shown it")
def test_it_as_an_ordinary_user() -> None:
    run_as_user([f"{HERE}/{name}" for name in TESTS], first=RANGES)
