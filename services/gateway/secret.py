"""The credential as a value: it does not show itself."""

from __future__ import annotations

from dataclasses import dataclass, field

from libhive.messages.gateway import CredentialKind
from libhive.problems import BadRequest

_PREFIXES: dict[str, CredentialKind] = {"sk-ant-api": "api_key", "sk-ant-oat": "oauth_token"}
_WORDS: dict[CredentialKind, str] = {
    "api_key": "an API key",
    "oauth_token": "a token of `claude setup-token`",
}


@dataclass(frozen=True, slots=True)
class Credential:
    kind: CredentialKind
    secret: str = field(repr=False)

    def hide_in(self, text: str) -> str:
        """`text` without the secret, should an upstream have echoed it."""
        return text.replace(self.secret, "***")


def check(credential: Credential) -> None:
    """Raises BadRequest when the secret is plainly of the other kind: it would only fail later, at an agent's turn."""
    for prefix, kind in _PREFIXES.items():
        if credential.secret.startswith(prefix) and kind != credential.kind:
            raise BadRequest(
                f"this looks like {_WORDS[kind]}, not {_WORDS[credential.kind]}", f"log in with it as {kind}"
            )
