"""One agent's bare repository, through dulwich's object and ref stores alone: no index, no work tree, no
hooks, no git configuration and no replace refs are ever looked at. What a method has written is on stable
storage when it returns.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar

from dulwich.errors import ChecksumMismatch, FileFormatException
from dulwich.object_store import DiskObjectStore
from dulwich.objects import Blob, Commit, ObjectID, ShaFile, Tag, Tree
from dulwich.refs import DiskRefsContainer, Ref

from libhive.names import AgentName, agent_name
from libhive.paths import make_private
from libhive.problems import BadRequest, Conflict, NoSpace, NotFound, StaleApproval

O = TypeVar("O", bound=ShaFile)  # noqa: E741

MAIN: Final = Ref(b"refs/heads/main")
TAGS: Final = Ref(b"refs/tags/")
COMMITTER: Final = b"hyperhive <hyperhive@hive.invalid>"
FILE_MODE: Final = 0o100644
HISTORY_MAX: Final = 100_000
_CONFIG: Final = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n"


@dataclass(frozen=True, slots=True)
class Written:
    commit: str
    tree: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A commit as it is in the repository."""

    tree: str
    parents: tuple[str, ...]
    message: str
    files: dict[str, str]


@dataclass(frozen=True, slots=True)
class TagRef:
    """`object` is what the ref holds (an annotated tag's own id), `commit` where it leads to."""

    object: str
    commit: str
    message: str


class Repository:
    """Use it as a context manager; it keeps nothing between two openings but what is on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._objects = DiskObjectStore(path / "objects", fsync_object_files=True)
        self._refs = DiskRefsContainer(path)

    def __enter__(self) -> Repository:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._objects.close()

    @classmethod
    def create(cls, path: Path) -> Repository:
        """A new empty one; appears whole or not at all."""
        make_private(path.parent)
        new = path.with_name(f".new-{path.name}")
        with _room():
            shutil.rmtree(new, ignore_errors=True)
            for directory in ("objects/info", "objects/pack", "refs/heads", "refs/tags"):
                (new / directory).mkdir(mode=0o700, parents=True)
            _write_durably(new / "HEAD", f"ref: {MAIN.decode()}\n")
            _write_durably(new / "config", _CONFIG)
            for made in (new / "objects", new / "refs", new):
                sync(made)
            new.rename(path)
            sync(path.parent)
        return cls(path)

    def sweep(self) -> None:
        """Removes the lock files of writes that a kill cut short. Only for the one process that writes
        here."""
        for root in (self.path / "refs", self.path / "objects"):
            for leftover in root.rglob("*.lock"):
                leftover.unlink()

    def head(self) -> str:
        """The commit that `main` is at; empty when nothing has been approved yet."""
        return (self._refs.read_ref(MAIN) or b"").decode("ascii", "replace")

    def check_main(self, base: str, commit: str) -> None:
        """Raises StaleApproval unless `main` is at `base`, or was moved from there to `commit` before."""
        head = self.head()
        if head not in (base, commit) and not self._contains(head, commit):
            raise StaleApproval(f"main of {self.path.name} is no longer at {base[:12] or 'its beginning'}")

    def move_main(self, base: str, commit: str) -> None:
        """Doing it again does no harm, also when `main` has gone on from there. Raises as `check_main`."""
        self.check_main(base, commit)
        with _room():
            if self.head() == base:
                self._refs.set_if_equals(MAIN, None, ObjectID(commit.encode()))
            sync(self.path / "refs/heads")

    def commit(self, files: Mapping[str, str], parent: str, author: str, message: str, at_ms: int) -> Written:
        """A commit of exactly these files; no ref leads to it yet."""
        tree = Tree()
        blobs = [(path, Blob.from_string(text.encode())) for path, text in sorted(files.items())]
        for path, blob in blobs:
            tree.add(path.encode(), FILE_MODE, blob.id)
        commit = Commit()
        commit.tree = tree.id
        commit.parents = [ObjectID(parent.encode())] if parent else []
        commit.author, commit.committer = f"{author} <{author}@hive.invalid>".encode(), COMMITTER
        commit.author_time = commit.commit_time = at_ms // 1000
        commit.author_timezone = commit.commit_timezone = 0
        commit.encoding = b"UTF-8"
        commit.message = (message.rstrip("\n") + "\n").encode()
        self._add(*(blob for _, blob in blobs), tree, commit)
        return Written(commit.id.decode(), tree.id.decode())

    def snapshot(self, commit: str) -> Snapshot:
        """Raises Conflict for a commit that holds anything but plain text files at its top: what cannot be
        shown as text is never approved and never deployed."""
        found = self._get(commit, Commit)
        tree = self._get(found.tree.decode(), Tree)
        files: dict[str, str] = {}
        for entry in tree.iteritems():
            path = entry.path.decode("utf-8", "backslashreplace")
            if entry.mode != FILE_MODE:
                raise Conflict(f"{path} in commit {commit[:12]} is not a plain file (mode {entry.mode:o})")
            files[path] = _text(self._get(entry.sha.decode(), Blob), path)
        parents = tuple(parent.decode() for parent in found.parents)
        message = found.message.decode("utf-8", "replace").rstrip("\n")
        return Snapshot(found.tree.decode(), parents, message, files)

    def tag(self, name: str, commit: str, message: str, at_ms: int) -> str:
        """Makes an annotated tag and gives its own id. One that is there already stays: never moved.

        Raises Conflict when it leads to another commit.
        """
        there = self.tags(lambda each: each == name).get(name)
        if there and there.commit != commit:
            raise Conflict(f"tag {name} of {self.path.name} is there and leads to another commit")
        made = there.object if there else self._new_tag(name, commit, message, at_ms)
        for directory in ((self.path / "refs/tags" / name).parent, self.path / "refs/tags"):
            with _room():
                sync(directory)
        return made

    def tags(self, wanted: Callable[[str], bool] = bool) -> dict[str, TagRef]:
        """What the refs of the wanted tags hold and lead to, as the disk has it now."""
        names = (name.decode("utf-8", "surrogateescape") for name in self._refs.subkeys(TAGS))
        return {name: self._tag_ref(name) for name in names if wanted(name)}

    def _new_tag(self, name: str, commit: str, message: str, at_ms: int) -> str:
        tag = Tag()
        tag.name, tag.object = name.encode(), (Commit, ObjectID(commit.encode()))
        tag.tagger, tag.tag_time, tag.tag_timezone = COMMITTER, at_ms // 1000, 0
        tag.message = message.encode()
        self._add(tag)
        with _room():
            self._refs.add_if_new(Ref(TAGS + name.encode()), tag.id)
        return tag.id.decode()

    def _contains(self, head: str, commit: str) -> bool:
        """Is `commit` in the history of `head`? `main` is a line, so first parents are all there are."""
        for _ in range(HISTORY_MAX):
            if head in ("", commit):
                break
            parents = self._get(head, Commit).parents
            head = parents[0].decode() if parents else ""
        return head == commit

    def _tag_ref(self, name: str) -> TagRef:
        ref = Ref(TAGS + name.encode("utf-8", "surrogateescape"))
        target = (self._refs.read_ref(ref) or b"").decode("ascii", "replace")
        try:
            tag = self._get(target, Tag)
        except NotFound:  # a lightweight tag, or one that leads nowhere: it is what it is
            return TagRef(target, target, "")
        return TagRef(target, tag.object[1].decode(), (tag.message or b"").decode("utf-8", "replace"))

    def _get(self, name: str, kind: type[O]) -> O:
        """The object as its content hashes, not as its file is called; raises NotFound for another kind as
        well."""
        try:
            number, raw = self._objects.get_raw(ObjectID(name.encode()))
        except (KeyError, ValueError, AssertionError):
            raise NotFound(f"{self.path.name} has no object {name[:40]!r}") from None
        except (zlib.error, FileFormatException, ChecksumMismatch):
            raise Conflict(f"object {name[:12]} of {self.path.name} is damaged: it cannot be read") from None
        if number != kind.type_num:
            raise NotFound(f"object {name[:12]} of {self.path.name} is not a {kind.type_name.decode()}")
        found = ShaFile.from_raw_string(number, raw)
        assert isinstance(found, kind)
        if found.id != name.encode():
            raise Conflict(
                f"object {name[:12]} of {self.path.name} is damaged: it hashes to {found.id.decode()[:12]}"
            )
        return found

    def _add(self, *objects: ShaFile) -> None:
        """A file's name is durable only once its directory is."""
        with _room():
            for each in objects:
                self._objects.add_object(each)
            directories = {self.path / "objects" / each.id.decode()[:2] for each in objects}
            for directory in [*directories, self.path / "objects"]:
                sync(directory)


def repositories(root: Path) -> Iterator[tuple[AgentName, Path]]:
    """Every agent's repository below `root`, by name."""
    for path in sorted(root.glob("*.git")):
        with contextlib.suppress(BadRequest):  # not ours: no agent can have that name
            yield agent_name(path.stem), path


def _text(blob: Blob, path: str) -> str:
    try:
        return blob.data.decode()
    except UnicodeDecodeError:
        raise Conflict(f"{path} is not text in UTF-8") from None


def _write_durably(path: Path, text: str) -> None:
    with path.open("x") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _room() -> Iterator[None]:
    """A full disk is expected; any other failure of the disk is not, and ends the process."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace("the disk is full: this was not stored") from error
        raise
