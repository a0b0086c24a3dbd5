"""The secret goes from the keyboard or a pipe to the gateway, and nowhere else."""

from __future__ import annotations

import asyncio
import os
import pty
import sys

import pytest

from libhive.messages import base, gateway
from tests.admin.conftest import Stage

KEY = "sk-ant-api03-canary-of-this-test"
TOKEN = "sk-ant-oat01-canary-of-this-test"


@pytest.fixture
def open_stage(stage: Stage) -> Stage:
    stage.says = {gateway.Login: base.Done()}
    return stage


@pytest.mark.parametrize(("secret", "kind"), [(KEY, "api_key"), (TOKEN, "oauth_token")])
async def test_what_it_is_is_seen_from_its_beginning(open_stage: Stage, secret: str, kind: str) -> None:
    ended = await open_stage.admin("login", "--stdin", stdin=secret + "\n")
    assert ended.code == 0
    assert open_stage.asked == [gateway.Login(kind=kind, secret=secret)]  # type: ignore[arg-type]
    assert secret not in ended.out + ended.err


async def test_an_unknown_beginning_needs_its_kind(open_stage: Stage) -> None:
    ended = await open_stage.admin("login", "--stdin", stdin="something-else-entirely\n")
    assert (ended.code, open_stage.asked) == (1, [])
    assert "--kind" in ended.err
    assert "something-else" not in ended.err
    assert (await open_stage.admin("login", "--stdin", "--kind", "api_key", stdin="something-else")).code == 0


@pytest.mark.parametrize(
    "secret", ["", "short", "two words of it", "sk-ant-api\x00nul", "sk-ant-api-" + "x" * 5000]
)
async def test_what_cannot_be_a_secret_is_refused_without_repeating_it(
    open_stage: Stage, secret: str
) -> None:
    ended = await open_stage.admin("login", "--stdin", "--kind", "api_key", stdin=secret)
    assert (ended.code, open_stage.asked) == (1, [])
    assert not secret or secret not in ended.err


async def test_a_secret_in_argv_is_not_even_possible(open_stage: Stage) -> None:
    assert (await open_stage.admin("login", KEY)).code == 2


async def test_without_a_terminal_it_does_not_wait_for_a_keyboard(open_stage: Stage) -> None:
    ended = await open_stage.admin("login", stdin=KEY)
    assert (ended.code, open_stage.asked) == (1, [])
    assert "--stdin" in ended.err


async def test_typing_it_shows_nothing(open_stage: Stage) -> None:
    leader, follower = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "libhive.admin", "login"),
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=open_stage.environment(),
        start_new_session=True,
    )
    os.close(follower)
    shown = await asyncio.to_thread(os.read, leader, 1000)
    os.write(leader, KEY.encode() + b"\n")
    assert await asyncio.wait_for(process.wait(), 10) == 0
    shown += await asyncio.to_thread(os.read, leader, 1000)
    os.close(leader)
    assert KEY.encode() not in shown
    assert open_stage.asked == [gateway.Login(kind="api_key", secret=KEY)]
