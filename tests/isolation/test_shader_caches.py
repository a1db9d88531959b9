"""Compiled shaders: who finds whose, and that a worker reaches no others than its own."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from supervised import EchoClient, Supervised, first_of, until
from test_serve import finish, start

from between_calls import Swapped, before_each_call
from hesper.classes import ClientClass
from hesper.isolation import shader_folders
from hesper.isolation.shader_caches import ShaderCaches
from hesper.isolation.shader_folders import ShaderFolders
from hesper.portable import Peer, peer, peer_place, sockets
from hesper.sandbox import landlock
from hesper.sandbox.files import cache_variables

Serve = Callable[..., Supervised]
ME = Peer(1000, 42)
OTHER = Peer(1001, 43)


def has_landlock() -> bool:
    try:
        return landlock.abi() > 0
    except OSError:
        return False


needs_landlock = pytest.mark.skipif(not has_landlock(), reason="this kernel has no landlock")


@pytest.fixture
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hs") as folder:  # a client's name has 100 letters
        yield Path(folder)


@pytest.fixture
def folders(root: Path) -> ShaderFolders:
    return ShaderFolders(root)


@pytest.fixture
def caches(root: Path) -> Iterator[ShaderCaches]:
    one = ShaderCaches("client", "/run/server", root)
    yield one
    one.close()


@pytest.fixture
def echo(tmp_path: Path, root: Path) -> Iterator[Callable[..., Supervised]]:
    """Starts supervisors of echo workers, one after another."""
    running = []

    def start(scope: str = "client", **more: Any) -> Supervised:
        wanted: dict[str, Any] = {
            "root": str(root),
            "shaders": [scope, "echo"],
            "classes": ["a", "b"],
            **more,
        }
        running.append(Supervised(tmp_path / "socket", **wanted))
        running[-1].ready()
        return running[-1]

    yield start
    for one in running:
        one.process.kill()
        one.end()


def of(server: Supervised, kind: str) -> EchoClient:
    """A client that is in a class."""
    return EchoClient(server.path.with_name(f"{server.path.name}-{kind}"))


def told(server: Supervised, client: EchoClient, what: str) -> str:
    """What comes of something that its worker does with shaders."""
    client.say(f"shaders {what}")
    answer: str = server.logged("client connected")["name"]
    assert client.read_line()
    return answer


def gone(server: Supervised, client: EchoClient) -> None:
    client.close()
    server.logged("client left")


def test_what_a_client_leaves_it_finds_again_and_no_other_does(echo: Serve) -> None:
    server = echo()
    one = of(server, "a")
    folder = told(server, one, "write planted")
    again, other, plain = of(server, "a"), of(server, "b"), server.client()
    assert told(server, again, "read planted") == "forged"
    others = {told(server, each, "where") for each in (other, plain)}
    assert len({folder, *others}) == 3
    for each in (other, plain):
        assert told(server, each, "read planted") == "FileNotFoundError"
    for each in (one, again, other, plain):
        gone(server, each)
    assert server.stop() == 0
    # The next server of that name knows its classes again.
    server = echo()
    one = of(server, "a")
    assert told(server, one, "read planted") == "forged"
    gone(server, one)
    assert server.stop() == 0
    assert server.plain == []


@needs_landlock
def test_a_worker_that_tries_reaches_no_cache_but_its_own(echo: Serve, root: Path) -> None:
    server = echo()
    one, other = of(server, "a"), of(server, "b")
    theirs = told(server, other, "write planted")
    lock = Path(theirs).with_name("lock")
    assert told(server, one, f"read {theirs}/planted") == "PermissionError"
    assert told(server, one, f"write {theirs}/planted") == "PermissionError"
    assert told(server, one, f"write {theirs}/new") == "PermissionError"
    assert told(server, one, f"list {theirs}") == "PermissionError"
    assert told(server, one, f"remove {theirs}") == "PermissionError"
    assert told(server, one, "write ../lock") == "PermissionError"
    assert told(server, one, f"read {lock}") == "PermissionError"
    assert told(server, one, f"list {root}") == "PermissionError"
    assert told(server, one, "list /proc/self/cwd") == "PermissionError"
    assert os.listdir(theirs) == ["planted"]
    # It is the sandbox that keeps it.
    server.stop()
    server = echo(sandbox="off")
    assert told(server, of(server, "a"), f"write {theirs}/new") != "PermissionError"
    assert server.stop() == 0


def test_a_server_may_have_one_or_none(echo: Serve) -> None:
    server = echo("server")
    one, other, plain = of(server, "a"), of(server, "b"), server.client()
    assert len({told(server, each, "where") for each in (one, other, plain)}) == 1
    server.stop()
    server = echo("off")
    assert told(server, of(server, "a"), "where") == os.devnull
    assert server.stop() == 0


def test_one_that_grows_too_large_ends_its_clients_and_goes(echo: Serve, root: Path) -> None:
    server = echo(most_bytes=1 << 19)
    one, other = of(server, "a"), of(server, "b")
    assert other.asked()
    folder = Path(told(server, one, "fill large"))
    assert "cache of shaders" in server.logged("client killed")["reason"]
    assert one.gone()
    until(lambda: not folder.parent.exists(), "its removal")
    assert other.asked()
    again = of(server, "a")
    assert told(server, again, "list .") == "nothing"
    assert server.stop() == 0
    assert not [name for name in os.listdir(root) if name.startswith("refuse")]


def test_who_clients_are(caches: ShaderCaches) -> None:
    gold, usual = ClientClass(name="gold"), ClientClass(name="default")

    def key(peer: Peer = ME, place: str | None = "", kind: ClientClass | None = None) -> str:
        return caches.of(peer, place, kind, "default").key

    assert key() == key(kind=usual) == key(Peer(1000, 44))
    assert key(place="/c1") == key(place="/c1")
    assert key(kind=gold) == key(OTHER, "/c1", gold)
    every = [key(), key(OTHER), key(place="/c1"), key(OTHER, "/c1"), key(kind=gold)]
    assert len(set(every)) == len(every)
    # Of those that nobody knows, none has another's.
    strangers = [caches.of(ME, None, None, "") for _ in range(2)]
    assert [each.key for each in strangers] == ["", ""]
    assert strangers[0] is not strangers[1]


def test_a_worker_ahead_takes_a_newcomer_and_keeps_for_it(caches: ShaderCaches) -> None:
    ahead = caches.fresh()
    folder = caches.use(ahead)
    client = caches.of(ME, "/c1", None, "")
    assert caches.is_new(client)
    assert ahead.suits(client)
    has = caches.hand(ahead, client)
    assert has is client
    caches.leave(has, served=True)
    assert not caches.is_new(caches.of(ME, "/c1", None, ""))
    assert caches.use(caches.of(ME, "/c1", None, "")) == folder
    # Who has a cache gets that, and not a worker with another.
    assert not caches.fresh().suits(client)


def test_what_a_stranger_has_left_no_other_gets(caches: ShaderCaches) -> None:
    ahead, stranger = caches.fresh(), caches.of(ME, None, None, "")
    folder = Path(caches.use(ahead))
    caches.use(ahead)  # a second worker, whatever it was started for
    assert ahead.suits(stranger)
    has = caches.hand(ahead, stranger)
    assert not has.suits(caches.of(OTHER, None, None, ""))
    caches.leave(has, served=True)
    assert not has.suits(caches.of(OTHER, None, None, ""))
    caches.leave(has, served=False)
    caches.close()
    assert not folder.exists()


def test_without_room_on_disk_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    caches = ShaderCaches("client", "x", tmp_path / "file")
    assert caches.use(caches.usual()) == ""
    caches.leave(caches.usual(), served=False)
    caches.close()


def sweep(folders: ShaderFolders) -> None:
    (folders.root / "swept").unlink(missing_ok=True)
    folders.sweep()


def age(folders: ShaderFolders, name: str, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(folders.root / name / "lock", (then, then))


def test_what_is_old_or_left_over_or_too_much_goes(
    folders: ShaderFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [folders.make() for _ in range(5)]
    old, kept, left, used, older = names
    for name in (old, kept, used, older):
        assert folders.own(name, f"key-{name}")
    for name in (kept, older):
        (folders.files(name) / "shader").write_bytes(bytes(1 << 16))
    lock = folders.lock(used)
    age(folders, old, shader_folders.OLDEST + 10)
    age(folders, used, shader_folders.OLDEST + 10)
    age(folders, older, 1000)
    age(folders, left, 1000)
    (folders.root / "mesa_shader_cache_db").mkdir()
    sweep(folders)
    there = [name for name in names if (folders.root / name).exists()]
    assert there == [kept, used, older]
    assert not (folders.root / "mesa_shader_cache_db").exists()
    assert folders.find(f"key-{old}") == ""
    assert not os.path.lexists(folders.root / "of" / f"key-{old}")
    monkeypatch.setattr(shader_folders, "MOST_IN_ALL", 100 << 10)
    sweep(folders)
    assert [name for name in names if (folders.root / name).exists()] == [kept, used]
    os.close(lock)


def test_a_sweep_is_made_once_in_a_while(folders: ShaderFolders) -> None:
    folders.sweep()
    leftover = folders.root / "refuse-1"
    leftover.mkdir()
    folders.sweep()
    assert leftover.exists()


def test_another_server_keeps_what_it_uses(folders: ShaderFolders) -> None:
    name = folders.make()
    lock = folders.lock(name)
    folders.remove(name)
    assert folders.files(name).is_dir()
    os.close(lock)
    folders.remove(name)
    with pytest.raises(OSError, match="No such file"):
        folders.lock(name)


@pytest.mark.parametrize("depth", [20, 3000])
def test_what_a_guest_has_nested_is_too_much_and_goes(folders: ShaderFolders, depth: int) -> None:
    name = folders.make()
    here = os.open(folders.files(name), os.O_RDONLY)
    for level in range(depth):
        os.mkdir("x" * 200, dir_fd=here)
        inner = os.open("x" * 200, os.O_RDONLY, dir_fd=here)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        if level % 7 == 0:
            os.fchmod(here, 0o300)
        os.close(here)
        here = inner
    os.close(here)
    assert folders.used(name) > shader_folders.MOST_BYTES
    folders.remove(name)
    assert os.listdir(folders.root) == []


@pytest.mark.parametrize("call", ["open", "scandir"])
def test_a_want_of_descriptors_is_no_fault_of_a_folders(
    folders: ShaderFolders, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    name = folders.make()

    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, refuse)
        with pytest.raises(OSError, match="Too many open files"):
            folders.used(name)


def test_many_small_files_count(folders: ShaderFolders) -> None:
    name = folders.make()
    for number in range(100):
        (folders.files(name) / str(number)).touch()
    assert folders.used(name) >= 100 * 4096


def test_no_link_is_followed(folders: ShaderFolders, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_bytes(bytes(1 << 20))
    name = folders.make()
    (folders.files(name) / "link").symlink_to(precious)
    assert folders.used(name) < 1 << 20
    folders.remove(name)
    assert (precious / "file").exists()


def test_no_link_is_followed_that_comes_while_somebody_looks(
    folders: ShaderFolders, tmp_path: Path
) -> None:
    """A worker writes where its cache is measured; what it has left is removed later."""
    outside = tmp_path / "outside"
    for folder in ("inner", "inner/inner"):
        (outside / folder).mkdir(parents=True)
        (outside / folder / "file").write_bytes(bytes(1 << 20))
    for each in (outside, *outside.rglob("*")):
        each.chmod(0o500)
    name = folders.make()
    top = folders.files(name) / "top"
    (top / "inner/inner").mkdir(parents=True)
    swapped = Swapped(top, outside)
    for used in before_each_call(lambda: folders.used(name), swapped.swap):
        swapped.put_back()
        assert isinstance(used, int)
        # Where it was looked into before the link came, or is taken for what no driver makes.
        assert used < 1 << 20 or used == shader_folders.MOST_BYTES + 1

    def look(at: Path) -> list[tuple[str, int]]:
        return sorted((str(each), each.stat().st_mode) for each in (at, *at.rglob("*")))

    before = look(outside)
    names = [name]

    def swap() -> None:
        for files in (folders.files(names[-1]), *folders.root.glob("refuse-*/files")):
            Swapped(files / "top", outside).swap()

    for _ in before_each_call(lambda: folders.remove(names[-1]), swap, OSError):
        assert look(outside) == before
        for refused in folders.root.glob("refuse-*"):
            shutil.rmtree(refused)
        names.append(folders.make())
        (folders.files(names[-1]) / "top/inner/inner").mkdir(parents=True)


@pytest.fixture
def contained(tmp_path: Path) -> Iterator[tuple[socket.socket, subprocess.Popen[bytes]]]:
    """The connection of a process in a namespace of processes of its own, and who started it."""
    connect = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "sys.stdin.read()"
    )
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        words = ["unshare", "--user", "--map-root-user", "--pid", "--fork"]
        process = subprocess.Popen(
            [*words, sys.executable, "-c", connect, str(tmp_path / "s")],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        sock = first_of(listener, process)
        if sock is None:
            pytest.skip(f"no namespaces: {process.communicate()[1]!r}")
        with sock:
            yield sock, process
        process.communicate()


def test_a_container_is_known_by_a_control_group_of_its_own(
    contained: tuple[socket.socket, subprocess.Popen[bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sock, outside = contained
    assert outside.pid != peer(sock).process
    group = tmp_path / "machine.slice" / "libpod-1.scope"
    group.mkdir(parents=True)
    monkeypatch.setattr(sockets, "CONTROL_GROUPS", tmp_path)
    monkeypatch.setattr(sockets, "_cgroup", lambda _: "/machine.slice/libpod-1.scope")
    members = group / "cgroup.procs"
    assert peer_place(sock) is None, "nobody says who is in the group"
    members.write_text(f"{peer(sock).process}\n")
    assert peer_place(sock) == "/machine.slice/libpod-1.scope"
    # Else another container may have come of the same group.
    members.write_text(f"{peer(sock).process}\n{outside.pid}\n")
    assert peer_place(sock) is None
    members.write_text(f"{peer(sock).process}\n0\n")
    assert peer_place(sock) is None
    monkeypatch.setattr(sockets, "_cgroup", lambda _: None)
    assert peer_place(sock) is None


def test_a_process_that_is_gone_may_have_been_anywhere(
    contained: tuple[socket.socket, subprocess.Popen[bytes]],
) -> None:
    sock, process = contained
    process.communicate()
    until(lambda: not Path(f"/proc/{peer(sock).process}").exists(), "its end")
    assert peer_place(sock) is None


def test_a_process_like_any_is_in_no_container() -> None:
    near, far = socket.socketpair()
    with near, far:
        assert peer_place(near) == ""


def test_variables_of_the_users_lead_no_driver_elsewhere() -> None:
    named = {"MESA_SHADER_CACHE_DIR": "/home/user/.cache", "MESA_SHADER_CACHE_MAX_SIZE": "64M"}
    found = named | cache_variables("/ours", named)
    assert found["MESA_SHADER_CACHE_DIR"] == found["__GL_SHADER_DISK_CACHE_PATH"] == "/ours"
    assert found["MESA_SHADER_CACHE_MAX_SIZE"] == "64M"
    assert int(found["__GL_SHADER_DISK_CACHE_SIZE"]) < shader_folders.MOST_BYTES
    none = named | cache_variables("", named)
    assert none["MESA_SHADER_CACHE_DIR"] == os.devnull
    assert none["MESA_SHADER_CACHE_DISABLE"] == "true"


@needs_landlock
def test_lavapipe_keeps_shaders_in_its_clients_cache(
    serve: Serve, pipelines: str, root: Path
) -> None:
    """The driver's own files lie there, and none where the user's programs have theirs."""
    theirs = root / "theirs"
    theirs.mkdir()
    server = serve(environ={"XDG_CACHE_HOME": str(root), "MESA_SHADER_CACHE_DIR": str(theirs)})
    server.ready()
    before = sorted(theirs.rglob("*"))
    assert finish(start(server, pipelines, "4")) == "4 pipelines\n"
    server.logged("client left")
    folders = (root / "hesper" / "shaders").glob("*/files")
    assert [any(path.is_file() for path in folder.rglob("*")) for folder in folders] == [True]
    assert sorted(theirs.rglob("*")) == before
    assert server.stop() == 0


def test_many_newcomers_are_swept_at_once(folders: ShaderFolders) -> None:
    folders.make()
    folders.sweep()
    for _ in range(shader_folders.SWEEP_AFTER):
        name = folders.make()
        age(folders, name, 1000)
    folders.sweep()
    assert len(folders.list()) == 1
