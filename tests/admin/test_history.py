"""Looking back, and what becomes of a message: search, retention, message, retry, drop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from libhive.admin.history import instant, looked_for
from libhive.clock import now_ms
from libhive.messages import base, broker
from libhive.names import MANAGER
from libhive.problems import BadRequest, Conflict
from tests.admin import samples
from tests.admin.conftest import Stage

ID = samples.ID
DONE = base.Done()
NONE = broker.Found(receipts=[])


SEARCHES: list[tuple[list[str], broker.Search]] = [
    ([], broker.Search()),
    (["light*", "at dusk"], broker.Search(text='light* "at dusk"')),
    (['"at dusk" lamp'], broker.Search(text='"at dusk" lamp')),
    (["x", "--agent", "manager", "--limit", "7"], broker.Search(text="x", agent=MANAGER, limit=7)),
    (["--agent", "operator", "--thread", ID], broker.Search(agent="operator", root=ID)),
    (["--before", "77"], broker.Search(before=77)),
    (["--since", "2026-11-24T09:00+00:00"], broker.Search(since_ms=1_795_510_800_000)),
]


@pytest.mark.parametrize(("argv", "request_"), SEARCHES, ids=[" ".join(argv) for argv, _ in SEARCHES])
async def test_a_search_asks_for_what_was_typed(
    stage: Stage, argv: list[str], request_: broker.Search
) -> None:
    stage.says = {broker.Search: NONE}
    ended = await stage.admin("search", *argv)
    assert (ended.code, ended.out, ended.err) == (0, "nothing found\n", "")
    assert [asked for asked in stage.asked if isinstance(asked, broker.Search)] == [request_]


@pytest.mark.parametrize(
    "argv",
    [
        ["search", "--limit", "0"],
        ["search", "--limit", "501"],
        ["search", "--since", "yesterday"],
        ["search", "--agent", "Nobody"],
        ["search", "--thread", "x"],
        ["retention", "--days", "0"],
        ["retry"],
        ["drop", "short"],
        ["drop", ID, "--reason", "x" * 501],
    ],
    ids=" ".join,
)
async def test_what_cannot_be_asked_is_wrong_usage(stage: Stage, argv: list[str]) -> None:
    ended = await stage.admin(*argv)
    assert (ended.code, ended.out, stage.asked) == (2, "", [])


def test_an_instant_may_be_so_long_ago() -> None:
    two_hours, three_days = instant("2h"), instant("3d")
    assert 7_200_000 <= now_ms() - two_hours < 7_260_000
    assert now_ms() - three_days >= 3 * 86_400_000


def test_quotes_that_the_shell_took_are_put_back() -> None:
    assert looked_for(["a", "b c", '"d e" f', " g "]) == 'a "b c" "d e" f  g '


def pages(*found: broker.Found) -> Callable[[Any], broker.Found]:
    rest = list(found)
    return lambda asked: rest.pop(0)


async def test_a_search_shows_a_line_for_each_and_where_to_go_on(stage: Stage) -> None:
    one, two, three = (samples.receipt(f"sketch {n}\nof the pier", seq=n, state="acked") for n in (9, 8, 7))
    stage.says = {
        broker.Search: pages(
            broker.Found(receipts=[one], before=9),
            broker.Found(receipts=[], before=8),
            broker.Found(receipts=[two], before=8),
        )
    }
    ended = await stage.admin("search", "sketch", "--limit", "2")
    head, first, second, more = ended.out.splitlines()
    assert head.split() == ["when", "from", "to", "state", "id", "what"]
    assert first.split()[-8:] == ["operator", "acked", ID, "sketch", "9", "of", "the", "pier"]
    assert "sketch 8" in second
    assert "--before 8" in more
    limits = [asked.limit for asked in stage.asked if isinstance(asked, broker.Search)]
    assert limits == [2, 1, 1], "what the broker gives in parts is asked for until there are as many"
    stage.says = {broker.Search: broker.Found(receipts=[three])}
    assert (await stage.admin("search", "--json")).json["before"] == 0


async def test_a_refused_search_says_why(stage: Stage) -> None:
    stage.says = {broker.Search: BadRequest("a quotation mark is missing", "like this")}
    ended = await stage.admin("search", '"x')
    assert (ended.code, ended.out) == (1, "")
    assert "a quotation mark is missing (bad-request)\n  like this" in ended.err


async def test_retention_is_a_dry_run_until_it_is_applied(stage: Stage) -> None:
    weight = {
        "days": 30,
        "messages": 1200,
        "questions": 1,
        "bytes": 2_500_000,
        "oldest_ms": 1,
        "newest_ms": 2,
    }
    stage.says = {broker.Retain: lambda asked: broker.Retained(**weight, applied=asked.apply)}
    ended = await stage.admin("retention", "--days", "30")
    assert "would remove 1,200 messages and 1 question, 2.5 MB of text" in ended.out
    assert "hive-admin retention --days 30 --apply" in ended.out
    ended = await stage.admin("retention", "--days", "30", "--apply")
    assert ended.out.startswith("removed 1,200 messages")
    asked = [asked for asked in stage.asked if isinstance(asked, broker.Retain)]
    assert asked == [broker.Retain(days=30), broker.Retain(days=30, apply=True)]


async def test_retention_without_a_setting_says_that_everything_is_kept(stage: Stage) -> None:
    stage.says = {broker.Retain: broker.Retained(days=0, messages=0)}
    ended = await stage.admin("retention")
    assert "kept for ever" in ended.out
    assert "HIVE_BROKER_RETENTION_DAYS" in ended.out
    stage.says = {broker.Retain: broker.Retained(days=7, messages=0)}
    assert "nothing is over for more than 7 days" in (await stage.admin("retention")).out


def receipt(recipient: str, state: str, **more: object) -> broker.Receipt:
    return samples.receipt("the tide table", sender="operator", recipient=recipient, state=state, **more)


def several() -> broker.ReceiptList:
    at = 1_795_000_000_000
    came = {"offered_ms": at + 1_000, "seen_ms": at + 2_000, "turn": "t-81"}
    return broker.ReceiptList(
        receipts=[
            receipt("iris", "acked", attempts=2, **came, acked_ms=at + 60_000),
            receipt("atlas", "dead", attempts=5, **came, ended_ms=at + 61_000, reason="offered 5 times"),
            receipt("quill", "stored", reason="paused: the operator is asked"),
            receipt("bento", "dead", attempts=5, ended_ms=at + 61_000, reason="offered 5 times"),
        ]
    )


async def test_a_message_shows_each_step_to_each_recipient(stage: Stage) -> None:
    stage.says = {broker.MessageStatus: several()}
    ended = await stage.admin("message", ID)
    shown = [" ".join(line.split()) for line in ended.out.splitlines()]
    assert shown[:2] == [f"message {ID} from operator", "the tide table"]
    steps = {
        name: shown[shown.index(f"to {name}: {state}") :]
        for name, state in (("iris", "acked"), ("atlas", "dead"), ("quill", "stored"))
    }
    iris = [line.split() for line in steps["iris"][2:6]]
    assert [line[0] for line in iris] == ["stored", "offered", "seen", "acked"]
    assert (iris[1][3:], iris[2][3:]) == (["2", "times"], ["turn", "t-81"])
    atlas = steps["atlas"][2:7]
    assert atlas[3].startswith("dead")
    assert atlas[3].endswith("offered 5 times")
    assert f"hive-admin retry {ID} atlas" in atlas[4]
    assert f"hive-admin drop {ID} atlas" in atlas[4]
    assert steps["quill"][2].endswith("paused: the operator is asked")
    whole = (await stage.admin("message", ID, "--json")).json["receipts"]
    assert (whole[0]["turn"], whole[1]["ended_ms"]) == ("t-81", 1_795_000_061_000)


async def test_a_dead_message_is_tried_again_or_dropped(stage: Stage) -> None:
    stage.says = {broker.MessageStatus: several(), broker.RetryMail: DONE, broker.DropMail: DONE}
    assert (await stage.admin("retry", ID, "atlas")).code == 0
    assert (await stage.admin("drop", ID, "quill", "--reason", "asked again")).code == 0
    assert [asked for asked in stage.asked if isinstance(asked, broker.RetryMail | broker.DropMail)] == [
        broker.RetryMail(id=ID, recipient="atlas"),
        broker.DropMail(id=ID, recipient="quill", reason="asked again"),
    ]


async def test_which_recipient_is_meant_need_not_be_said_when_it_is_plain(stage: Stage) -> None:
    stage.says = {broker.MessageStatus: several(), broker.RetryMail: DONE}
    ended = await stage.admin("retry", ID)
    assert (ended.code, ended.out) == (1, "")
    assert "name one: atlas, bento" in ended.err
    ended = await stage.admin("retry", ID, "carol")
    assert "it went to: iris, atlas, quill, bento" in ended.err
    assert not [asked for asked in stage.asked if isinstance(asked, broker.RetryMail)]
    stage.says[broker.MessageStatus] = broker.ReceiptList(receipts=several().receipts[:2])
    assert (await stage.admin("retry", ID)).code == 0
    assert stage.asked[-1] == broker.RetryMail(id=ID, recipient="atlas")


async def test_what_is_under_way_is_neither_tried_again_nor_dropped(stage: Stage) -> None:
    stage.says = {broker.MessageStatus: broker.ReceiptList(receipts=[receipt("iris", "seen", attempts=1)])}
    for verb in ("retry", "drop"):
        ended = await stage.admin(verb, ID)
        assert (ended.code, ended.out) == (1, "")
        assert "seen for iris (conflict)" in ended.err
    stage.says[broker.DropMail] = Conflict("this message is seen", "it is in a turn")
    assert "it is in a turn" in (await stage.admin("drop", ID, "iris")).err
