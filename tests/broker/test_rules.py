from __future__ import annotations

import pytest

from libhive.messages.broker import BODY_CHARACTERS_MAX
from libhive.problems import TooMany
from services.broker import rules


def test_a_message_to_everybody_is_not_copied_without_end() -> None:
    everybody = [f"agent-{number}" for number in range(1_000)]
    rules.check_copies(everybody, "x" * 8_000)
    rules.check_copies(everybody[:100], "x" * BODY_CHARACTERS_MAX)
    with pytest.raises(TooMany, match="60,000 characters to 1000 recipients") as refused:
        rules.check_copies(everybody, "x" * BODY_CHARACTERS_MAX)
    assert "to fewer" in refused.value.hint
