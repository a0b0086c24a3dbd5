from __future__ import annotations

import pytest

from libhive.problems import BadRequest
from services.gateway.settings import Settings


def test_defaults() -> None:
    settings = Settings.from_environment({})
    assert settings == Settings()
    assert settings.upstream_url == "https://api.anthropic.com"


def test_other_places() -> None:
    for url in (
        "http://127.0.0.1:8080",
        "http://[::1]:1",
        "http://localhost/base/",
        "https://proxy.example/anthropic",
    ):
        assert Settings.from_environment({"HIVE_UPSTREAM_URL": url}).upstream_url == url.rstrip("/")
    assert not Settings.from_environment({"HIVE_REHEARSAL": "off"}).rehearsal


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HIVE_UPSTREAM_URL", "http://api.anthropic.com"),
        ("HIVE_UPSTREAM_URL", "ftp://x"),
        ("HIVE_UPSTREAM_URL", "https://user:pw@x"),
        ("HIVE_UPSTREAM_URL", "https://x?y"),
        ("HIVE_UPSTREAM_URL", "api.anthropic.com"),
        ("HIVE_REHEARSAL", "maybe"),
        ("HIVE_UPSTREAM_SILENCE_SECONDS", "-1"),
        ("HIVE_UPSTREAM_SILENCE_SECONDS", "nan"),
    ],
)
def test_what_cannot_be(name: str, value: str) -> None:
    with pytest.raises(BadRequest, match=name):
        Settings.from_environment({name: value})
