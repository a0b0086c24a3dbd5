"""Which model: the configuration's, or what the operator chose on the agent's page since that was last changed."""

from __future__ import annotations

from pathlib import Path

import msgspec

from libhive.harness.session import write_whole
from libhive.spec import ModelName


class _Choice(msgspec.Struct, frozen=True, kw_only=True):
    model: ModelName
    option: str
    """The configuration's model when this was chosen; another one since then ends the choice."""


class ModelChoice:
    def __init__(self, state: Path, option: str) -> None:
        self._file, self.option = state / "model.json", option
        self.current = self._chosen() or option

    def choose(self, model: str) -> None:
        choice = _Choice(model=model, option=self.option)
        write_whole(self._file, msgspec.json.encode(choice))
        self.current = model

    def _chosen(self) -> str:
        try:
            choice = msgspec.json.decode(self._file.read_bytes(), type=_Choice)
        except (OSError, msgspec.DecodeError):
            return ""
        return choice.model if choice.option == self.option else ""
