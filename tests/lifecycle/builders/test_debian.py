from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
import pytest

from libhive.messages.lifecycle import Root
from libhive.problems import BadRequest, Conflict
from libhive.spec import AgentSpec
from services.lifecycle.builders import debian
from services.lifecycle.builders.debian import DebianBuilder
from services.lifecycle.builders.enclosed import doing, last_words
from services.lifecycle.builders.recipe import Contents, Recipe
from services.lifecycle.builders.tree import dpkg_packages, store_packages
from services.lifecycle.builders.users import subordinate
from tests.lifecycle.builders.conftest import Shop

SOURCES = "Types: deb\nURIs: file:///nowhere/debian\nSuites: bookworm\nComponents: main\nTrusted: yes\n"


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    _fill(tmp_path)
    return tmp_path


def _fill(etc: Path) -> None:
    (etc / "os-release").write_text('ID=debian\nVERSION_CODENAME="bookworm"\n')
    (etc / "apt/sources.list.d").mkdir(parents=True)
    (etc / "apt/sources.list.d/debian.sources").write_text(SOURCES)


def recipe(etc: Path, *packages: str, inputs: str = "") -> Recipe:
    return DebianBuilder(etc).recipe(AgentSpec(root="debian", packages=list(packages), inputs=inputs))


def test_everything_that_decides_what_is_in_it_is_in_the_key(etc: Path) -> None:
    one = recipe(etc, "jq", "git")
    assert one.key == recipe(etc, "git", "jq", "jq").key
    changes = {
        "version": 2,
        "source": "trixie",
        "architecture": "x",
        "variant": "apt",
        "packages": (),
        "inputs": "2",
    }
    assert set(changes) == {*Recipe.__struct_fields__} - {"builder"}
    keys = {msgspec.structs.replace(one, **{name: value}).key for name, value in changes.items()}
    assert len({one.key, *keys}) == 7


def test_the_command_line(etc: Path) -> None:
    sources = debian.sources(etc / "apt")
    argv = debian.command_line(recipe(etc, "jq"), sources, {"Acquire::http::Proxy": "http://proxy.test:8"})
    assert argv[0] == "mmdebstrap"
    assert {"--mode=unshare", "--variant=minbase", '--aptopt=Acquire::http::Proxy "http://proxy.test:8"'} <= {
        *argv
    }
    assert "--include=bash,ca-certificates,curl,git,jq,procps,python3" in argv
    assert argv[-3:] == ["bookworm", "-", str(sources[0])]


def test_a_list_with_a_password_is_left_out_and_so_is_what_is_no_list(etc: Path) -> None:
    place = etc / "apt/sources.list.d"
    for name in ("secret.list", "off.list.disabled", "empty.list", "extra.list"):
        (place / name).write_text("# nothing\n" if name == "empty.list" else "deb http://x.test/ y main\n")
    (place / "secret.list").chmod(0o600)
    assert [path.name for path in debian.sources(etc / "apt")] == ["debian.sources", "extra.list"]


def test_a_host_that_is_not_debian_says_so(tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="which release of Debian"):
        debian.suite(tmp_path / "os-release")
    with pytest.raises(Conflict, match="no source of packages"):
        debian.sources(tmp_path)


def test_a_name_that_apt_would_take_as_a_wish_to_remove_is_refused(etc: Path) -> None:
    with pytest.raises(BadRequest, match="not the name"):
        recipe(etc, "bash-")


def test_a_program_that_is_missing_is_named_with_its_package(
    etc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    monkeypatch.setenv("PATH", str(etc))
    with pytest.raises(Conflict, match="mmdebstrap is not installed") as caught:
        asyncio.run(DebianBuilder(etc).work(recipe(etc), Path("/mnt")))
    assert caught.value.hint == "sudo apt-get install -y mmdebstrap"


def test_another_python_than_the_hives_or_another_package_than_asked_for_is_refused(etc: Path) -> None:
    made = recipe(etc, "jq")
    contents = Contents(packages=dict.fromkeys(made.packages, "1"))
    builder = DebianBuilder(etc, interpreter=Path("/usr/bin/python3.99"))
    with pytest.raises(
        Conflict, match=r"the hive runs on /usr/bin/python3\.99, which bookworm does not have"
    ):
        builder.accept(made, etc, contents)
    (etc / "usr/bin").mkdir(parents=True)
    (etc / "usr/bin/python3.99").touch()
    builder.accept(made, etc, contents)
    with pytest.raises(Conflict, match="something else for jq"):
        builder.accept(made, etc, Contents(packages={name: "1" for name in made.packages if name != "jq"}))
    DebianBuilder(etc, interpreter=Path("/opt/python/bin/python3")).accept(made, etc, contents)


async def test_the_real_mmdebstrap_fails_with_its_own_words(shop: Shop) -> None:
    """Of a mirror that is not there: it fails at once, where a package that is not there costs half a minute."""
    with tempfile.TemporaryDirectory(prefix="hive-etc-") as place:
        etc = Path(place)
        etc.chmod(0o755)  # an enclosed apt reads it as nobody
        _fill(etc)
        shop._builders = dict(shop._builders) | {"debian": DebianBuilder(etc)}
        with pytest.raises(Conflict, match="the debian root could not be built: ") as caught:
            await shop.built("a", "jq")
    assert "/nowhere/debian" in caught.value.message
    assert shop.roots.unfinished() == []


def test_last_words_are_the_errors_without_what_is_said_of_them_again() -> None:
    said = (
        "I: downloading packages with apt...\nE: Unable to locate package nope\n"
        "E: setup failed: E: apt-get -o Dir::X --yes install nope failed\nE: mmdebstrap failed to run\n"
        "tar: This does not look like a tar archive\n"
    )
    assert last_words(said) == "E: Unable to locate package nope"
    assert last_words("one\ntwo\n") == "one; two"
    assert last_words("") == ""
    assert doing(said + "I: using /mnt/tmp/x as tempdir\n") == "downloading packages with apt"
    assert doing("") == "starting"


def test_what_is_installed_is_told_from_what_was_removed() -> None:
    status = (
        "Package: jq\nStatus: install ok installed\nVersion: 1.6-2\nDescription: x\n Version: 9\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nVersion: 2\n"
    )
    assert dpkg_packages(status) == {"jq": "1.6-2"}
    a, b = "a" * 32, "b" * 32
    assert store_packages([f"{a}-greeter-1.2", f"{b}-hive-root", ".links"]) == {
        "greeter": "1.2",
        "hive-root": "",
    }


def test_a_range_of_subordinate_ids_is_found_by_name_or_number(tmp_path: Path) -> None:
    table = tmp_path / "subuid"
    table.write_text("other:1:65536\nroot:5:10\n# x\nroot:200000:65536\n")
    assert subordinate(table, 0) == 200_000
    table.write_text("0:300000:65536\n")
    assert subordinate(table, 0) == 300_000
    table.write_text("other:1:65536\n")
    with pytest.raises(Conflict, match="gives root no range") as caught:
        subordinate(table, 0)
    assert "usermod --add-subuids" in caught.value.hint


def test_a_root_with_all_its_packages_fits_into_a_frame() -> None:
    from libhive import wire

    many = {f"package-with-a-long-name-{number}": "1:2.3.4-5+deb12u6" for number in range(2_000)}
    assert len(wire.pack_reply("1", Root(key="k", builder="debian", state="ready", packages=many))) > 90_000
