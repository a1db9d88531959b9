"""Whose compiled shaders a worker finds, and where it leaves its own.

A driver runs what it finds in its cache, and a guest that has taken over a worker can write there
what it likes.  So workers share one only if their clients trust each other anyhow; each worker may
use its own and see no other.  A worker loads its driver, which asks once where its cache is, before
its client is known: it is started for a cache, and a client waits for one of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from hesper.isolation.shader_folders import MOST_BYTES, ShaderFolders
from hesper.log import get_logger

if TYPE_CHECKING:
    from hesper.classes import ClientClass
    from hesper.portable import Peer

Scope: TypeAlias = Literal["client", "server", "off"]
"""Who shares a cache: what belongs to one client, all of a server, nobody as there is none."""

SCOPES: tuple[Scope, ...] = ("client", "server", "off")

LOOK_SECONDS = 2.0
"""Between two looks at how large caches are that are in use; more where a look takes long."""
LOOK_PART = 50
"""A look takes no more than one part in so many of the time."""

_log = get_logger(__name__)


class Cache:
    """One of them, be it on disk or not yet."""

    __slots__ = ("__weakref__", "clients", "fd", "has_served", "is_full", "key", "name", "users")

    def __init__(self, key: str = "") -> None:
        """key: whose it is; empty: nobody's, it goes with the last worker that uses it."""
        self.key = key
        self.name = ""
        """Of its folder; empty: it has none yet."""
        self.fd = -1
        """Of its lock, while workers use it."""
        self.users = 0
        """Workers."""
        self.clients = 0
        """How many of them serve one."""
        self.has_served = False
        """Whether one of them has."""
        self.is_full = False
        """Whether it has grown too large."""

    def suits(self, client: Cache) -> bool:
        """Whether a worker that was started for this one can serve a client with that one."""
        return self is client or not (self.key or self.has_served or client.name)


class ShaderCaches:
    """All of a server.  Life: made, `begin`, used, `close`d; on the supervisor's thread."""

    def __init__(self, scope: Scope = "off", server: str = "", root: Path = Path()) -> None:
        """server: what names this one, the next time as well.  root: where they are."""
        self._scope = scope
        self._server = server
        self._folders = ShaderFolders(root)
        self._known: weakref.WeakValueDictionary[str, Cache] = weakref.WeakValueDictionary()
        self._nothing = Cache("off")
        self._used: set[Cache] = set()
        self._left: list[str] = []
        """Names of folders that are to be removed."""
        self._failed = False
        self._guard = threading.Lock()
        self._over = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(
        self, call: Callable[[Callable[[], None]], None], full: Callable[[Cache], None]
    ) -> None:
        """Look after their size from now on, on a thread.

        call: has something called on the supervisor's thread.  full: is called there with a cache
        that has grown too large.
        """
        if self._scope != "off":
            work = partial(self._look_after, call, full)
            self._thread = threading.Thread(target=work, name="shader-caches", daemon=True)
            self._thread.start()

    @property
    def by_client(self) -> bool:
        """Whether it matters who a client is."""
        return self._scope == "client"

    def usual(self) -> Cache:
        """That of whom to expect: of this user, or of all."""
        return self._of("user", str(os.geteuid()))

    def of(self, peer: Peer, place: str | None, kind: ClientClass | None, usual: str) -> Cache:
        """That of a client.

        place: see `portable.peer_place`.  kind: its class, if any.  usual: name of the class of
        those who are in no other.
        """
        if kind is not None and kind.name != usual:
            return self._of("class", self._server, kind.name)
        if place is None or peer.user < 0:
            return self.fresh() if self._scope == "client" else self.usual()
        if place:
            return self._of("container", str(peer.user), place)
        return self._of("user", str(peer.user))

    def _of(self, *whose: str) -> Cache:
        if self._scope == "off":
            return self._nothing
        if self._scope == "server":
            whose = ("server", self._server)
        text = "".join(f"{len(word)}:{word}" for word in whose)
        key = hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=16).hexdigest()
        cache = self._known.get(key)
        if cache is None:
            cache = self._known[key] = Cache(key)
        if not cache.name:
            cache.name = self._folders.find(key)
        return cache

    def fresh(self) -> Cache:
        """One that is nobody's yet."""
        return Cache() if self._scope != "off" else self._nothing

    def is_new(self, cache: Cache) -> bool:
        """Whether it is one that has no folder yet."""
        return cache is not self._nothing and not cache.name

    def use(self, cache: Cache) -> str:
        """Have one more worker use it; returns the path of what it may write to, if anything."""
        if cache is self._nothing:
            return ""
        with self._guard:
            cache.users += 1
            try:
                if cache.fd < 0:
                    self._open(cache)
            except OSError as error:
                if not self._failed:
                    self._failed = True
                    _log.warning("shaders are not kept for the next time", reason=str(error))
                return ""
            self._used.add(cache)
            return str(self._folders.files(cache.name))

    def _open(self, cache: Cache) -> None:
        if cache.name:
            with contextlib.suppress(OSError):
                cache.fd = self._folders.lock(cache.name)
                return
        cache.name = ""
        name = self._folders.make()
        cache.fd = self._folders.lock(name)
        cache.name = name
        if cache.key and not self._folders.own(name, cache.key):
            # Another server has made one at the same time; this one is for now.
            self._forget(cache)

    def hand(self, given: Cache, client: Cache) -> Cache:
        """A worker that uses `given`, which suits, serves a client: what it uses from now on."""
        with self._guard:
            if given is not client and client.key and given.fd >= 0:
                given = self._adopt(given, client)
            given.clients += 1
            given.has_served = True
        self._wake.set()
        return given

    def _adopt(self, given: Cache, client: Cache) -> Cache:
        """Let the folder of `given`, which is nobody's, be the client's, if it has none."""
        try:
            if not self._folders.own(given.name, client.key):
                return given
        except OSError:
            return given
        client.name, client.fd, client.users = given.name, given.fd, given.users
        given.name, given.fd, given.users = "", -1, 0
        self._used.discard(given)
        self._used.add(client)
        return client

    def spoil(self, cache: Cache) -> Cache:
        """Begin anew: what workers have used so far is another one, nobody's; it is returned."""
        with self._guard:
            old = Cache()
            old.has_served = old.is_full = True
            old.name, old.fd, old.users, old.clients = (
                *(cache.name, cache.fd, cache.users, cache.clients),
            )
            cache.name, cache.fd, cache.users, cache.clients = "", -1, 0, 0
            cache.is_full = False
            if cache.key:
                self._folders.disown(cache.key)
            self._used.discard(cache)
            self._used.add(old)
            return old

    def leave(self, cache: Cache, *, served: bool) -> None:
        """Have one worker less use it: its process has ended.  served: whether it had a client."""
        if cache is self._nothing:
            return
        with self._guard:
            cache.users -= 1
            cache.clients -= served
            if cache.users > 0 or cache.fd < 0:
                return
            self._used.discard(cache)
            os.close(cache.fd)
            cache.fd = -1
            if not cache.key:
                self._left.append(cache.name)
                cache.name = ""
                self._wake.set()

    def _forget(self, cache: Cache) -> None:
        """Let it be nobody's."""
        self._known.pop(cache.key, None)
        cache.key = ""

    def _look_after(
        self, call: Callable[[Callable[[], None]], None], full: Callable[[Cache], None]
    ) -> None:
        """Until it is over: remove what is left, measure what clients use, sweep now and then."""
        pause = None
        while not self._over.is_set():
            self._wake.wait(pause)
            self._wake.clear()
            began = time.monotonic()
            self._remove_left()
            caches = self._serving()
            for cache in caches:
                if not cache.is_full and self._is_too_large(cache):
                    cache.is_full = True
                    call(partial(full, cache))
            self._sweep()
            took = time.monotonic() - began
            pause = max(LOOK_SECONDS, LOOK_PART * took) if caches else None

    def _is_too_large(self, cache: Cache) -> bool:
        with contextlib.suppress(OSError):  # without a descriptor for it: the next time
            return self._folders.used(cache.name) > MOST_BYTES
        return False

    def _serving(self) -> list[Cache]:
        with self._guard:
            return [cache for cache in self._used if cache.name and cache.clients]

    def _remove_left(self) -> None:
        with self._guard:
            left, self._left = self._left, []
        for name in left:
            with contextlib.suppress(OSError):
                self._folders.remove(name)

    def _sweep(self) -> None:
        try:
            self._folders.sweep(self._over.is_set)
        except OSError as error:
            _log.debug("old shaders are still there", reason=str(error))

    def close(self) -> None:
        """Let go of all, when no worker is left; what was nobody's is removed."""
        self._over.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        for cache in tuple(self._used):
            cache.users = 1
            self.leave(cache, served=False)
        self._remove_left()
