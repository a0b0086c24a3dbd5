"""Hosts without control groups: the tests of limits look at what is left there, but where everything must be shown they fail."""

from __future__ import annotations

import os

import pytest


def there_are_none(none: bool) -> bool:
    """`none`, said aloud: in CI root's cages have groups, or half of these tests would show nothing."""
    if none and os.environ.get("CI") and os.geteuid() == 0:
        pytest.fail("this host gives root's cages no control groups: limits cannot be shown here")
    return none
