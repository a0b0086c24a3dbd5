"""The model of the disk, and how a trace is read."""

from __future__ import annotations

from pathlib import Path
from random import Random

from tests.powercut.disk import SECTOR_BYTES, Content, Disk, Image
from tests.powercut.draw import survivors
from tests.powercut.strace import Event, Name, Reader, Resize, Said, Sync, SyncNames, Write

A, B = b"a" * SECTOR_BYTES, b"b" * SECTOR_BYTES


def disk(*events: Event) -> Disk:
    found = Disk()
    for number, event in enumerate(events):
        found.feed(number, event)
    return found


def content(image: Image, file: int = 0) -> bytes:
    found = image.contents[file]
    return bytes(found.data).ljust(found.size, b"\0")


def test_a_sync_covers_what_had_been_written_when_it_began() -> None:
    there = disk(Write(0, 0, A), Write(0, 0, B), Sync(0, since=1))
    assert content(there.cut([])) == A
    assert [one.change for one in there.pending] == [Write(0, 0, B)]


def test_a_sync_of_one_file_covers_no_other_and_no_name() -> None:
    there = disk(Name((("f", 0),)), Write(0, 0, A), Write(1, 0, B), Sync(0, since=3))
    assert len(there.pending) == 2
    assert there.cut([]).names == {}
    there.feed(4, SyncNames(since=4))
    assert there.cut([]).names == {"f": 0}


def test_what_survived_is_applied_in_order() -> None:
    there = disk(Write(0, 0, A + A), Sync(0, since=1), Write(0, 0, B), Resize(0, 3), Write(0, 1, b"c"))
    first, cut_off, last = (one.change for one in there.pending)
    assert content(there.cut([first])) == B + A
    assert content(there.cut([last])) == b"ac" + (A + A)[2:]
    assert content(there.cut([cut_off, last])) == b"aca"
    assert content(there.cut([])) == A + A


def test_a_rename_is_one_change() -> None:
    there = disk(
        Name((("old", 0),)), SyncNames(since=1), Write(0, 0, A), Name((("old", None), ("new", 0))), Sync(0, 4)
    )
    assert there.cut([]).names == {"old": 0}
    assert there.cut([there.pending[0].change]).names == {"new": 0}


def test_zeros_at_the_end_are_counted_and_not_kept() -> None:
    log = Content()
    log.write(0, bytes(1 << 20))
    log.write(700, b"x\0")
    assert (len(log.data), log.size) == (701, 1 << 20)
    log.write(698, bytes(8))
    assert bytes(log.data) == bytes(701)
    log.apply(Resize(0, 10))
    log.write(20, b"y")
    assert (bytes(log.data), log.size) == (bytes(20) + b"y", 21)


def test_an_image_has_its_holes_and_sizes(tmp_path: Path) -> None:
    there = disk(Name((("f", 0),)), Write(0, SECTOR_BYTES, A), Write(0, 4096, bytes(10)))
    there.cut([one.change for one in there.pending]).save(tmp_path)
    assert (tmp_path / "f").read_bytes() == (bytes(SECTOR_BYTES) + A).ljust(4106, b"\0")


def test_every_subset_and_torn_sectors_are_drawn() -> None:
    there = disk(Write(0, 0, A), Write(0, SECTOR_BYTES, A), Write(0, 100, B + B))
    random = Random(1)
    drawn = {content(there.cut(survivors(random, there.pending))) for _ in range(2000) if there.pending}
    whole = {
        content(there.cut([one.change for bit, one in enumerate(there.pending) if mask >> bit & 1]))
        for mask in range(1, 8)
    }
    assert whole <= drawn
    torn = A.ljust(100 + 2 * SECTOR_BYTES, b"\0")[: 2 * SECTOR_BYTES] + b"b" * 100
    assert torn in drawn


# ---- traces


def encode(data: bytes | str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in (data.encode() if isinstance(data, str) else data))


def fd(number: int, path: str) -> str:
    return f"{number}<{encode(path)}>"


def read(tmp_path: Path, *lines: str) -> list[Event]:
    (tmp_path / "life.strace").write_text("\n".join(lines))
    reader = Reader("/s")
    reader.read(tmp_path / "life.strace")
    return reader.events


def opened(name: str, number: int) -> str:
    path = encode(f"/s/{name}")
    return f'1 openat(AT_FDCWD<\\x2f>, "{path}", O_RDWR|O_CREAT|O_CLOEXEC, 0644) = {fd(number, f"/s/{name}")}'


def test_a_trace_is_read(tmp_path: Path) -> None:
    assert read(
        tmp_path,
        opened("db", 3),
        opened("db-shm", 4),
        f'1 pwrite64({fd(3, "/s/db")}, "{encode(b"abc")}", 3, 512) = 2',
        f'1 pwrite64({fd(4, "/s/db-shm")}, "{encode(b"abc")}", 3, 512) = 3',
        f'1 pwrite64({fd(3, "/elsewhere")}, "{encode(b"abc")}", 3, 512) = 3',
        f"1 ftruncate({fd(3, '/s/db')}, 9) = 0",
        f"1 fdatasync({fd(3, '/s/db')}) = -1 EIO (Input/output error)",
        f"1 fdatasync({fd(3, '/s/db')}) = 0",
        f"1 fsync({fd(5, '/s')}) = 0",
        f'1 unlink("{encode("/s/db")}") = 0',
        "1 +++ exited with 0 +++",
    ) == [
        *(Name((("db", 0),)), Write(0, 512, b"ab"), Resize(0, 9), Sync(0, 3), SyncNames(4)),
        Name((("db", None),)),
    ]


def test_a_sync_in_one_thread_does_not_cover_a_write_that_came_while_it_ran(tmp_path: Path) -> None:
    data = f'{fd(3, "/s/db")}, "{encode(b"a")}", 1'
    assert read(
        tmp_path,
        opened("db", 3),
        f"1 pwrite64({data}, 0) = 1",
        f"1 fdatasync({fd(3, '/s/db')} <unfinished ...>",
        f"2 pwrite64({data}, 1) = 1",
        "1 <... fdatasync resumed>)  = 0",
    ) == [Name((("db", 0),)), Write(0, 0, b"a"), Write(0, 1, b"a"), Sync(0, since=2)]


def test_a_reply_counts_once_it_has_left_whole(tmp_path: Path) -> None:
    frame = bytes.fromhex("83a17601a27265a46f6e6531a4626f647980")  # {"v": 1, "re": "one1", "body": {}}
    sent = len(frame).to_bytes(4, "big") + frame
    door, bus = fd(7, "socket:[11]"), fd(8, "socket:[12]")
    assert read(
        tmp_path,
        f'1 sendto({bus}, "{encode(bytes.fromhex("ff00000000000000017f"))}", 10, 0, NULL, 0) = 10',
        f'1 sendto({door}, "{encode(sent)}", {len(sent)}, 0, NULL, 0) = 9',
        opened("db", 3),
        f'1 sendto({door}, "{encode(sent[9:])}", {len(sent) - 9}, 0, NULL, 0) = {len(sent) - 9}',
        f'1 sendto({bus}, "{encode(sent)}", {len(sent)}, 0, NULL, 0) = {len(sent)}',
    ) == [Name((("db", 0),)), Said("one1", True, {})]
