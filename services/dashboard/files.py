"""The front end's files, held in memory: no path that a request names ever reaches the file system."""

from __future__ import annotations

import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from libhive.problems import NotFound

STATIC = Path(__file__).parent / "static"
_KINDS = {".js": "text/javascript", ".css": "text/css"}


@dataclass(frozen=True, slots=True)
class File:
    body: bytes
    kind: str
    tag: str

    def reply(self, request: Request) -> Response:
        headers = {"etag": self.tag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == self.tag:
            return Response(b"", 304, headers)
        return Response(self.body, 200, headers, self.kind)


class Files:
    def __init__(self, root: Path = STATIC) -> None:
        self._files = {
            str(path.relative_to(root)): _read(path) for path in sorted(root.rglob("*")) if path.is_file()
        }

    def named(self, name: str) -> File:
        return self._files[name]

    async def on_static(self, request: Request) -> Response:
        file = self._files.get(request.path_params["path"])
        if file is None:
            raise NotFound("there is no such file")
        return file.reply(request)


def _read(path: Path) -> File:
    body = path.read_bytes()
    kind = _KINDS.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "text/plain"
    return File(body, kind, f'"{hashlib.sha256(body).hexdigest()[:20]}"')
