from __future__ import annotations

import pickle
import traceback
from pathlib import Path

import pytest

from libhive.messages.gateway import Login
from libhive.problems import BadRequest, Conflict
from services.gateway.credential import Keeper
from services.gateway.secret import Credential, check


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "gateway" / "credential.json"


def test_kept_and_found_again(place: Path, canary: str) -> None:
    Keeper.open(place).keep(Credential("api_key", canary))
    assert place.stat().st_mode & 0o777 == 0o600
    assert place.parent.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in place.parent.iterdir()] == ["credential.json"]
    again = Keeper.open(place)
    assert again.credential == Credential("api_key", canary)
    again.forget()
    again.forget()
    assert Keeper.open(place).credential is None


def test_what_a_power_cut_left_of_a_write_is_no_obstacle(place: Path, canary: str) -> None:
    keeper = Keeper.open(place)
    keeper.keep(Credential("api_key", "first-one"))
    (place.parent / ".credential.json.new").write_text("{")
    assert Keeper.open(place).credential == Credential("api_key", "first-one")
    keeper.keep(Credential("oauth_token", canary))
    assert Keeper.open(place).credential == Credential("oauth_token", canary)


def test_a_link_in_its_place_is_not_written_through(place: Path, tmp_path: Path) -> None:
    keeper = Keeper.open(place)
    place.symlink_to(tmp_path / "elsewhere")
    keeper.keep(Credential("api_key", "some-secret"))
    assert not (tmp_path / "elsewhere").exists()


def test_others_may_not_read_it(place: Path) -> None:
    Keeper.open(place).keep(Credential("api_key", "some-secret"))
    place.chmod(0o644)
    Keeper.open(place)
    assert place.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        '{"kind": "api_key"}',
        '{"kind": "x", "secret": "%s"}',
        '{"kind": "api_key", "secret": "%s\\n"}',
    ],
)
def test_a_damaged_file_is_said_without_what_it_holds(place: Path, canary: str, content: str) -> None:
    place.parent.mkdir()
    place.write_text(content.replace("%s", canary))
    with pytest.raises(Conflict) as caught:
        Keeper.open(place)
    said = "".join(traceback.format_exception(caught.value))
    assert canary not in said
    assert "hive-admin login" in caught.value.hint


def test_it_does_not_show_itself(canary: str) -> None:
    credential = Credential("api_key", canary)
    assert canary not in f"{credential!r} {credential} {[credential]}"
    assert credential.hide_in(f"no {canary}!") == "no ***!"
    assert pickle.loads(pickle.dumps(credential)) == credential
    assert canary not in f"{Login(kind='api_key', secret=canary)!r}"


def test_the_wrong_kind_is_refused_at_once() -> None:
    with pytest.raises(BadRequest, match="looks like an API key"):
        check(Credential("oauth_token", "sk-ant-api03-xyz"))
    with pytest.raises(BadRequest, match="setup-token"):
        check(Credential("api_key", "sk-ant-oat01-xyz"))
    check(Credential("api_key", "something-of-another-provider"))
