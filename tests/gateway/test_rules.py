from __future__ import annotations

import json

import pytest

from services.gateway import rules
from services.gateway.secret import Credential

KEY = Credential("api_key", "sk-ant-api03-real")
TOKEN = Credential("oauth_token", "sk-ant-oat01-real")

CAGE = [
    ("Host", "gateway"),
    ("Authorization", "Bearer of the cage"),
    ("x-api-key", "of the cage"),
    ("Proxy-Authorization", "Basic x"),
    ("Cookie", "a=b"),
    ("Connection", "keep-alive, X-Claude-Hop"),
    ("X-Claude-Hop", "1"),
    ("Transfer-Encoding", "chunked"),
    ("TE", "trailers"),
    ("Upgrade", "h2c"),
    ("Accept-Encoding", "gzip, br"),
    ("Forwarded", "for=1.2.3.4"),
    ("Content-Type", "application/json"),
    ("User-Agent", "claude-cli/2.1.330 (external, sdk-cli)"),
    ("anthropic-version", "2023-06-01"),
    ("anthropic-beta", "a-1, b-2"),
    ("anthropic-beta", "oauth-2025-04-20,a-1"),
    ("x-app", "cli"),
    ("x-claude-code-session-id", "s"),
    ("X-Stainless-OS", "Linux"),
]


def test_the_hosts_key_replaces_what_the_cage_says() -> None:
    assert sorted(rules.upstream_headers(CAGE, KEY)) == [
        ("accept-encoding", "identity"),
        ("anthropic-beta", "a-1,b-2"),
        ("anthropic-version", "2023-06-01"),
        ("content-type", "application/json"),
        ("user-agent", "claude-cli/2.1.330 (external, sdk-cli)"),
        ("x-api-key", "sk-ant-api03-real"),
        ("x-app", "cli"),
        ("x-claude-code-session-id", "s"),
        ("x-stainless-os", "Linux"),
    ]


def test_a_token_goes_as_bearer_with_its_beta() -> None:
    headers = dict(rules.upstream_headers(CAGE, TOKEN))
    assert headers["authorization"] == "Bearer sk-ant-oat01-real"
    assert headers["anthropic-beta"] == "a-1,b-2,oauth-2025-04-20"
    assert "x-api-key" not in headers
    assert dict(rules.upstream_headers([], TOKEN))["anthropic-beta"] == "oauth-2025-04-20"


def test_what_comes_back() -> None:
    given = [
        ("content-type", "text/event-stream"),
        ("anthropic-ratelimit-unified-reset", "1795395270"),
        ("retry-after", "30"),
        ("request-id", "req_1"),
        ("set-cookie", "__cf_bm=x"),
        ("transfer-encoding", "chunked"),
        ("Connection", "close, x-inner"),
        ("x-inner", "1"),
        ("content-length", "10"),
    ]
    kept = [
        "content-type",
        "anthropic-ratelimit-unified-reset",
        "retry-after",
        "request-id",
        "content-length",
    ]
    assert [name for name, _ in rules.cage_headers(given)] == kept
    assert "content-length" not in dict(rules.cage_headers([*given, ("content-encoding", "gzip")]))


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v1/messages", "messages"),
        ("POST", "/v1/messages/count_tokens", "count_tokens"),
        ("GET", "/v1/messages", None),
        ("POST", "/v1/messages/", None),
        ("POST", "/v1/messages/batches", None),
        ("POST", "/v1/files", None),
        ("HEAD", "/api/hello", None),
        ("POST", "/v1/../v1/messages", None),
        ("POST", "//v1/messages", None),
    ],
)
def test_only_what_the_cli_calls(method: str, path: str, expected: str | None) -> None:
    assert rules.route(method, path) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"beta=true", "?beta=true"),
        (b"", ""),
        (b"a b", ""),
        (b"a#b", ""),
        (b"\xff", ""),
        (b"a" * 300, ""),
        (b"a\r\nb", ""),
    ],
)
def test_the_target(query: bytes, expected: str) -> None:
    assert rules.target("https://x/base", "messages", query) == "https://x/base/v1/messages" + expected


def test_an_error_is_said_as_the_api_says_it() -> None:
    said = json.loads(rules.error_body(529, "full"))
    assert said == {"type": "error", "error": {"type": "overloaded_error", "message": "full"}}


def test_the_last_error_lasts_until_something_succeeds() -> None:
    assert rules.last_error(401, "authentication_error: no", "") == "401 authentication_error: no"
    assert rules.last_error(400, "yours", "before") == "before"
    assert rules.last_error(200, "", "before") == ""
