"""Full-text search: what it finds, in which order, page by page, however far the index has come."""

from __future__ import annotations

import asyncio
import random
import unicodedata
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pysqlite3.dbapi2
import pytest

from libhive.messages import broker as say
from libhive.problems import BadRequest, TooMany, Unavailable
from libhive.testing.hive import Hive
from services.broker import finder, indexer
from services.broker.words import Scratch
from tests.broker.looking_back import Archive

LAGS = {"nothing indexed": 0, "half indexed": 1, "all indexed": 1_000_000}


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    archive = Archive(tmp_path / "broker.sqlite")
    yield archive
    archive.close()


@pytest.fixture(params=LAGS.values(), ids=LAGS.keys())
def slices(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many slices of the index are made before the search."""
    monkeypatch.setattr(indexer, "SLICE_ROWS_MAX", 3)
    return int(request.param)


SAID = [
    "The lighthouse at dusk, three variants",
    "LIGHTHOUSE facing west-north-west",
    "Éclair, größer, ŁÓDŹ and naïve café",
    "light house, two words",
    'say "stop" AND go OR near (the) end*',
    "日本語の文 and emoji 🎉 party",
]
FOUND: list[tuple[str, list[int]]] = [
    ("lighthouse", [0, 1]),
    ("  LightHouse\t", [0, 1]),
    ("light*", [0, 1, 3]),
    ("lighthouse dusk", [0]),
    ('"lighthouse dusk"', []),
    ('"lighthouse at"', [0]),
    ('"at dusk" variants', [0]),
    ('"three var"*', [0]),
    ("north-west", [1]),
    ("west-west", []),
    ("eclair", [2]),
    ("CAFÉ naive", [2]),
    ("grosser", []),
    ("AND", [2, 4, 5]),
    ("stop OR nothing", []),
    ("near(", [4]),
    ("body:stop", []),
    ("^stop", [4]),
    ("日本語の文", [5]),
    ("party", [5]),
    ("", [0, 1, 2, 3, 4, 5]),
    ("   ", [0, 1, 2, 3, 4, 5]),
]


@pytest.mark.parametrize(("text", "expected"), FOUND, ids=[text for text, _ in FOUND])
async def test_words_phrases_and_beginnings(
    archive: Archive, slices: int, text: str, expected: list[int]
) -> None:
    for body in SAID:
        await archive.say("alice", "bob", body)
    await archive.index(slices)
    assert await archive.bodies(text) == [SAID[index] for index in reversed(expected)]


NONSENSE = ['"open', 'one "two" "', "-", "foo -", "🎉", '""', "*", '"" *', "... !", "\0", "a " * 40]


@pytest.mark.parametrize("text", [text for text in NONSENSE if text != "\0"], ids=repr)
async def test_what_no_text_can_match_is_refused(archive: Archive, text: str) -> None:
    await archive.say("alice", "bob", "foo - bar")
    with pytest.raises(BadRequest):
        await archive.search(text)


async def test_no_text_is_ever_a_command_to_the_index(archive: Archive) -> None:
    """Whatever is typed is found or refused, and the same with and without the index."""
    chance = random.Random(5)
    parts = [
        "a",
        "bob",
        '"',
        "*",
        "-",
        "(",
        ")",
        ":",
        "^",
        "+",
        "NEAR",
        "AND",
        "NOT ",
        " ",
        "\0",
        "\\",
        "'",
        "é",
        ";--",
        "{",
        ",",
    ]
    for _ in range(20):
        await archive.say("alice", "bob", "".join(chance.choices(parts, k=12)).strip() or "a")
    texts = ["".join(chance.choices(parts, k=chance.randint(1, 9))) for _ in range(300)]

    async def outcome(text: str) -> Any:
        try:
            return await archive.bodies(text)
        except BadRequest as problem:
            return problem.message

    before = [await outcome(text) for text in texts]
    await archive.index()
    assert [await outcome(text) for text in texts] == before
    assert sum(isinstance(found, list) for found in before) > 50


@pytest.fixture
async def talk(archive: Archive, slices: int) -> dict[str, str]:
    """A conversation, and something beside it; an hour between each."""
    ids = {}
    hour = 3_600_000
    ids["ask"] = await archive.say("alice", "bob", "which lamp?")
    archive.now += hour
    ids["answer"] = await archive.say("bob", "alice", "the red lamp", ids["ask"])
    archive.now += hour
    ids["beside"] = await archive.say("carol", ["bob", "dora"], "no lamp here")
    archive.now += hour
    ids["thanks"] = await archive.say("alice", "bob", "thanks", ids["answer"])
    archive.now += hour
    ids["myself"] = await archive.say("alice", "alice", "buy a lamp", kind="reminder")
    await archive.index(slices)
    return ids


async def test_by_agent_on_either_side(archive: Archive, talk: dict[str, str]) -> None:
    assert await archive.bodies(agent="alice") == ["buy a lamp", "thanks", "the red lamp", "which lamp?"]
    assert await archive.bodies(agent="dora") == ["no lamp here"]
    assert await archive.bodies("lamp", agent="bob") == ["no lamp here", "the red lamp", "which lamp?"]
    assert await archive.bodies(agent="nobody") == []


@pytest.mark.parametrize("named_by", ["ask", "answer", "thanks"])
async def test_by_thread_named_by_any_of_its_messages(
    archive: Archive, talk: dict[str, str], named_by: str
) -> None:
    assert await archive.bodies(root=talk[named_by]) == ["thanks", "the red lamp", "which lamp?"]
    assert await archive.bodies("lamp", root=talk[named_by]) == ["the red lamp", "which lamp?"]
    assert await archive.bodies(root=talk[named_by], agent="carol") == []
    assert await archive.bodies(root="0" * 26) == []


async def test_by_time_from_an_instant_on_and_before_another(archive: Archive, talk: dict[str, str]) -> None:
    (thanks, *_) = (await archive.search("thanks")).receipts
    assert await archive.bodies(since_ms=thanks.stored_ms) == ["buy a lamp", "thanks"]
    assert await archive.bodies(until_ms=thanks.stored_ms, agent="alice") == ["the red lamp", "which lamp?"]
    assert await archive.bodies("lamp", since_ms=thanks.stored_ms, until_ms=thanks.stored_ms + 1) == []


async def test_every_recipient_has_a_receipt_of_its_own(archive: Archive, talk: dict[str, str]) -> None:
    found = (await archive.search("here")).receipts
    assert [(receipt.id, receipt.recipient) for receipt in found] == [
        (talk["beside"], "dora"),
        (talk["beside"], "bob"),
    ]


async def test_time_is_exact_though_the_clock_has_jumped(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer, "SPAN_ROWS", 7)
    monkeypatch.setattr(indexer, "SLICE_ROWS_MAX", 2)
    chance, instants = random.Random(6), []
    for number in range(120):
        archive.now += chance.choice([1_000, 1_000, 1_000, 1_000, 40_000, -35_000])
        instants.append(archive.now)
        await archive.say("alice", "bob", f"tick {number}")
    for _ in range(3):
        await archive.index(15)
        for _ in range(20):
            since, until = sorted(chance.choices(instants, k=2))
            expected = [f"tick {n}" for n, at in enumerate(instants) if since <= at < until][::-1]
            assert await archive.bodies(since_ms=since, until_ms=until, limit=500) == expected
            assert await archive.bodies("tick", since_ms=since, until_ms=until, limit=500) == expected


@pytest.mark.parametrize(
    "asked", [{}, {"text": "number"}, {"agent": "bob"}, {"text": "numb*", "agent": "alice"}]
)
async def test_pages_by_key_do_not_move_when_more_is_said(
    archive: Archive, slices: int, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finder, "CHUNK_ROWS", 4)
    monkeypatch.setattr(finder, "UNINDEXED_ROWS", 4)
    for number in range(25):
        await archive.say("alice", "bob", f"number {number}")
        await archive.say("carol", "carol", "beside it", kind="reminder")
    await archive.index(slices)
    seen: list[str] = []
    before = 0
    while True:
        found = await archive.search(limit=3, before=before, **asked)
        assert len(found.receipts) <= 3
        seen += [receipt.body for receipt in found.receipts if receipt.body != "beside it"]
        await archive.say("alice", "bob", "number newer")
        if not (before := found.before):
            break
    assert seen == [f"number {number}" for number in reversed(range(25))]


async def test_the_last_page_says_that_it_is_the_last(archive: Archive) -> None:
    for number in range(6):
        await archive.say("alice", "bob", f"number {number}")
    assert [len(page) for page in await archive.pages("number", limit=3)] == [3, 3]


async def test_a_reply_has_as_much_as_the_wire_carries(tmp_path: Path, slices: int) -> None:
    archive = Archive(tmp_path / "broker.sqlite", list_bytes_max=300_000)
    for number in range(7):
        await archive.say("alice", "bob", f"{number} " + "\U0001f600" * 30_000)  # 120 kB each
    await archive.index(slices)
    pages = await archive.pages("", limit=500)
    assert [[receipt.body[0] for receipt in page] for page in pages] == [
        ["6", "5"],
        ["4", "3"],
        ["2", "1"],
        ["0"],
    ]
    archive.close()


async def test_a_search_whose_time_is_up_goes_on_from_there(
    tmp_path: Path, slices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finder, "CHUNK_ROWS", 4)
    monkeypatch.setattr(finder, "UNINDEXED_ROWS", 4)
    archive = Archive(tmp_path / "broker.sqlite", search_seconds_max=0)
    for number in range(40):
        await archive.say("alice", "bob" if number % 10 else "carol", f"number {number}")
    await archive.index(slices)
    pages = await archive.pages("number")
    assert len(pages) >= 10
    assert [receipt.body for page in pages for receipt in page] == [
        f"number {n}" for n in reversed(range(40))
    ]
    pages = await archive.pages("number", agent="carol")
    assert [receipt.body for page in pages for receipt in page] == [f"number {n}" for n in (30, 20, 10, 0)]
    archive.close()


async def test_a_search_that_takes_too_long_for_a_first_step_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finder, "INTERRUPT_EVERY_STEPS", 1)
    archive = Archive(tmp_path / "broker.sqlite", search_seconds_max=-1)
    await archive.say("alice", "bob", "hello")
    await archive.index()
    with pytest.raises(TooMany, match="too long"):
        await archive.search("hel*")
    archive.close()


# ---- the index


async def test_the_index_follows_what_is_said_and_rests_when_nothing_is(archive: Archive) -> None:
    running = asyncio.create_task(archive.searching.run())
    for number in range(80):
        await archive.say("alice", "bob", f"number {number}")
    async with asyncio.timeout(20):
        while (await archive.run("SELECT upto FROM progress WHERE what = 'search'")) != [(80,)]:
            await asyncio.sleep(0.02)
    async with asyncio.timeout(20):
        while not archive.searching._indexer._touched._waiters:
            await asyncio.sleep(0.02)
    running.cancel()
    assert not await archive.searching._indexer.slice()
    assert len(await archive.bodies("number", limit=500)) == 80


async def test_a_body_is_in_the_index_once_however_often_the_indexer_starts_anew(tmp_path: Path) -> None:
    for start in range(3):
        archive = Archive(tmp_path / "broker.sqlite")
        await archive.say("alice", "bob", f"start number {start}")
        await archive.index()
        assert await archive.run("SELECT count(*) FROM mail_words WHERE mail_words MATCH 'start'") == [
            (start + 1,)
        ]
        archive.close()


DAMAGES = {
    "its pages": "UPDATE mail_words_data SET block = x'deadbeef' WHERE id > 10",
    "its structure": "UPDATE mail_words_data SET block = x'00000001ffffffff7f' WHERE id = 10",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
async def test_a_damaged_index_is_made_anew(tmp_path: Path, damage: str) -> None:
    archive = Archive(tmp_path / "broker.sqlite")
    for number in range(50):
        await archive.say("alice", "bob", f"number {number}")
    await archive.index()
    await archive.run(damage)
    with pytest.raises(Unavailable, match="made anew"):
        await archive.search("number")
    assert len(await archive.bodies("number", limit=500)) == 50
    await archive.index()
    assert await archive.run("SELECT upto FROM progress WHERE what = 'search'") == [(50,)]
    assert len(await archive.bodies("number", limit=500)) == 50
    archive.close()


async def test_the_indexer_survives_a_damaged_index_too(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "broker.sqlite")
    for number in range(50):
        await archive.say("alice", "bob", f"number {number}")
    await archive.index()
    await archive.run(DAMAGES["its structure"])
    archive.close()
    archive = Archive(tmp_path / "broker.sqlite")
    await archive.say("alice", "bob", "one more number")
    running = asyncio.create_task(archive.searching.run())
    async with asyncio.timeout(20):
        while (await archive.run("SELECT upto FROM progress WHERE what = 'search'")) != [(51,)]:
            await asyncio.sleep(0.02)
    running.cancel()
    assert len(await archive.bodies("number", limit=500)) == 51
    archive.close()


def test_the_words_of_a_text_are_told_apart_from_its_marks() -> None:
    """Of every character: it is refused as a word just when FTS5 does not index it."""
    with closing(pysqlite3.dbapi2.connect(":memory:", isolation_level=None)) as connection:
        scratch = Scratch(connection)
        odd = [
            char
            for char in map(chr, range(33, 0x250))
            if char != '"'
            and unicodedata.category(char)[0] in "LN"
            and not scratch.matches(char, f'"{char}"')
        ]
    assert odd == []


async def test_through_the_bus_as_the_operator_asks() -> None:
    async with Hive() as hive:
        await hive.start("broker")
        for name in ("alice", "bob"):
            await hive.open_mailbox(name)
        alice, bob = await hive.join("alice"), await hive.join("bob")
        ids = [(await alice.send("bob", f"sketch number {number}")).id for number in range(5)]
        found = await hive.operator.search("sketch", agent="bob", limit=3)
        assert [receipt.id for receipt in found.receipts] == ids[:1:-1]
        found = await hive.operator.search("sketch", agent="bob", limit=3, before=found.before)
        assert ([receipt.id for receipt in found.receipts], found.before) == (ids[1::-1], 0)
        with pytest.raises(BadRequest):
            await hive.operator.search('"open')
        with pytest.raises(BadRequest):
            await alice.door.call(say.Search(text="sketch"))
        for mail in await bob.recv():
            await bob.ack(mail.id)
        dry = await hive.operator.retain(1)
        assert (dry.messages, dry.applied) == (0, False)
        assert len(await hive.operator.history()) == 5
