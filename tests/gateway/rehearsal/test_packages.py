from __future__ import annotations

import tomllib

import pytest

from services.gateway.rehearsal.packages import CannotEdit, add, packages_in


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", 'packages = ["jq"]\n'),
        ('model = "haiku"', 'model = "haiku"\npackages = ["jq"]\n'),
        ('packages = []\nmodel = "x"\n', 'packages = ["jq"]\nmodel = "x"\n'),
        ("packages = [\"a\", 'b']\n", 'packages = ["a", "b", "jq"]\n'),
        ('packages = [\n  "a",  # why\n  "b",\n]\n', 'packages = [\n  "jq",\n  "a",  # why\n  "b",\n]\n'),
        ('# c\n[env]\nX = "1"\n', '# c\npackages = ["jq"]\n[env]\nX = "1"\n'),
        (
            'model = "x" # m\n\n[mcp_servers.a]\ncommand = "y"\n',
            'model = "x" # m\npackages = ["jq"]\n\n[mcp_servers.a]\ncommand = "y"\n',
        ),
    ],
)
def test_a_package_is_added_and_nothing_else(before: str, after: str) -> None:
    assert add(before, ["jq"]) == after
    assert "jq" in tomllib.loads(after)["packages"]


@pytest.mark.parametrize(
    "text", ["[env]\npackages = [\n]\n", 'x = """\npackages = []\n"""\n', 'packages = "jq"\n']
)
def test_what_it_cannot_edit_it_leaves(text: str) -> None:
    with pytest.raises(CannotEdit):
        add(text, ["curl"])


def test_no_toml() -> None:
    with pytest.raises(CannotEdit):
        packages_in("packages = [")
