"""Passwords, tries, certificates and places."""

from __future__ import annotations

import asyncio
import datetime
import os
import re
import socket
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from serving import run

from hesper.display.access import self_signed
from hesper.display.access.attempts import MAX_PEERS, Attempts, Rate
from hesper.display.access.listener import peer_of
from hesper.display.access.passwords import ALPHABET, make_password
from hesper.display.access.places import Address, UnixPath, is_local, listen_on, parse_place
from hesper.display.access.self_signed import own_certificate
from hesper.display.access.tls import Pace, load_certificate, state_folder
from hesper.errors import ListenError


def test_made_up_passwords_are_long_and_never_the_same() -> None:
    found = {make_password() for _ in range(200)}
    assert len(found) == 200
    assert {len(each) for each in found} == {8}
    assert set("".join(found)) == set(ALPHABET)
    assert len(set(ALPHABET)) == 32


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_one_address_has_few_tries_and_all_together_have_some() -> None:
    clock = Clock()
    attempts = Attempts(Rate(2, 10.0), Rate(5, 1.0), clock)
    assert [attempts.begin("a") for _ in range(4)] == [True, True, False, False]
    assert attempts.wait("a") == 10
    assert attempts.wait("b") == 0, "another address is not held up"
    clock.now = 10
    assert attempts.begin("a")
    assert not attempts.begin("a")
    assert [attempts.begin(each) for each in "bcdefg"] == [True] * 4 + [False] * 2
    assert 0 < attempts.wait("z") <= 1
    clock.now += 1
    assert attempts.begin("z")


def test_the_right_password_costs_no_try() -> None:
    attempts = Attempts(Rate(2, 10.0), Rate(5, 1.0), Clock())
    for _ in range(20):
        assert attempts.begin("a")
        attempts.succeed("a")


@pytest.mark.slow
def test_many_addresses_take_no_memory() -> None:
    clock = Clock()
    attempts = Attempts(Rate(1, 1e9), Rate(10 * MAX_PEERS, 1e9), clock)
    for number in range(5 * MAX_PEERS):
        assert attempts.begin(str(number))
    assert len(attempts._peers) <= MAX_PEERS  # noqa: SLF001


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        (("192.0.2.7", 1), "192.0.2.7"),
        (("2001:db8:1:2:3::4", 1, 0, 0), "2001:db8:1:2::/64"),
        (("2001:db8:1:2:ffff::9", 1, 0, 0), "2001:db8:1:2::/64"),
        (("::ffff:192.0.2.7", 1, 0, 0), "192.0.2.7"),
        (("fe80::1%lo", 1, 0, 1), "fe80::/64"),
        (("::1", 1, 0, 0), "::1"),
        ("", "local"),
        (b"", "local"),
    ],
)
def test_what_counts_as_one_address(address: object, peer: str) -> None:
    assert peer_of(address) == peer


# Places


def test_places_are_parsed() -> None:
    default = Address("127.0.0.1", 5901)
    assert parse_place("unix:/run/x", default) == UnixPath(Path("/run/x"))
    assert parse_place("unix:x", default) == UnixPath(Path("x").absolute())
    assert parse_place("[::1]:7", default) == Address("::1", 7)
    assert parse_place("8000", default) == Address("127.0.0.1", 8000)
    for text in ("unix:", "a:b", "a:70000", ":"):
        with pytest.raises(ValueError, match="is no"):
            parse_place(text, default)


def test_who_can_reach_a_place() -> None:
    assert is_local(UnixPath(Path("/run/x")))
    assert all(is_local(Address(host, 1)) for host in ("127.0.0.1", "127.9.9.9", "::1"))
    assert not any(is_local(Address(host, 1)) for host in ("0.0.0.0", "::", "198.51.100.7"))
    with pytest.raises(ValueError, match="cannot be resolved"):
        is_local(Address("no.such.host.invalid", 1))


def test_what_was_to_be_local_is_not_bound_elsewhere() -> None:
    with pytest.raises(ValueError, match="others can reach"):
        listen_on(Address("0.0.0.0", 0), local=True)


def test_a_socket_is_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "vnc"
    before = os.umask(0)
    try:
        sockets = listen_on(UnixPath(path), local=True)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(ListenError, match="a server is running there"):
        listen_on(UnixPath(path), local=True)
    sockets.close()
    assert not path.exists()
    path.write_text("a file of somebody's")
    with pytest.raises(ListenError, match="no socket"):
        listen_on(UnixPath(path), local=True)


# Certificates


def test_a_certificate_is_made_once_and_kept_secret(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "hesper"
    before = os.umask(0)
    try:
        first = own_certificate(folder)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(first.path.stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == ["screens.pem"]
    assert re.fullmatch(r"([0-9A-F]{2}:){31}[0-9A-F]{2}", first.fingerprint)
    again = own_certificate(folder)
    assert (again.fingerprint, again.pin) == (first.fingerprint, first.pin)
    assert first.context.minimum_version == ssl.TLSVersion.TLSv1_2
    found = x509.load_pem_x509_certificate(first.path.read_bytes())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "localhost" in names.get_values_for_type(x509.DNSName)
    assert found.not_valid_after_utc - found.not_valid_before_utc < datetime.timedelta(days=826)


def test_a_certificate_that_ends_is_made_anew(
    tmp_path: Path,
) -> None:
    old = self_signed.make(days=2)
    path = tmp_path / "screens.pem"
    path.write_bytes(old)
    path.chmod(0o600)
    own_certificate(tmp_path)
    assert path.read_bytes() != old
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("spoil", ["readable", "link", "no certificate"])
def test_a_certificate_that_is_not_ones_own_is_not_used(tmp_path: Path, spoil: str) -> None:
    path = own_certificate(tmp_path / "hesper").path
    if spoil == "readable":
        path.chmod(0o640)
    elif spoil == "link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.write_text("nothing")
    with pytest.raises(ValueError, match=r"screens\.pem .*remove it"):
        own_certificate(tmp_path / "hesper")


def test_a_certificate_can_be_given(tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(self_signed.make())
    end = b"-----END PRIVATE KEY-----\n"
    key, _, certificate = both.read_bytes().partition(end)
    (tmp_path / "key.pem").write_bytes(key + end)
    (tmp_path / "only.pem").write_bytes(certificate)
    one = load_certificate(both)
    two = load_certificate(tmp_path / "only.pem", tmp_path / "key.pem")
    assert one.fingerprint == two.fingerprint
    other = tmp_path / "other.pem"
    other.write_bytes(self_signed.make())
    for files in (
        (tmp_path / "only.pem",),
        (tmp_path / "only.pem", other),
        (tmp_path / "key.pem",),
    ):
        with pytest.raises(ValueError, match="cannot be used for TLS"):
            load_certificate(*files)
    with pytest.raises(FileNotFoundError):
        load_certificate(tmp_path / "missing.pem")
    with pytest.raises(FileNotFoundError):
        load_certificate(tmp_path / "only.pem", tmp_path / "missing.pem")


def test_where_the_certificate_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", value)
        assert state_folder() == Path("/home/somebody/.local/state/hesper")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert state_folder() == Path("/state/hesper")


def test_handshakes_that_are_given_up_hold_nobody_up() -> None:
    async def scenario() -> None:
        pace = Pace(3600.0)
        await pace.wait()
        others = [asyncio.create_task(pace.wait()) for _ in range(50)]
        await asyncio.sleep(0)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        loop = asyncio.get_running_loop()
        assert pace._next <= loop.time() + 3600  # noqa: SLF001

    run(scenario())


def test_a_name_with_many_addresses_has_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, f"127.0.0.{number}") for number in (1, 2, 3)]
    monkeypatch.setattr("hesper.display.access.places.resolve", lambda _: found)
    sockets = listen_on(Address("many", 0), local=True)
    names = [sock.getsockname() for sock in sockets.sockets]
    assert [name[0] for name in names] == [host for _, host in found]
    assert {name[1] for name in names} == {sockets.port}
    # One that is taken leaves none of the others behind.
    with pytest.raises(OSError, match="in use"):
        listen_on(Address("many", sockets.port), local=True)
    sockets.close()
    listen_on(Address("many", names[0][1]), local=True).close()
