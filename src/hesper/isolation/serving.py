"""What a client is served with: its class, its cache of shaders, its part of memory and time."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

import msgspec

from hesper.isolation.peers import Crowd
from hesper.isolation.recordings import Recordings, RecordOptions
from hesper.isolation.shader_folders import MOST_BYTES
from hesper.isolation.total import SLACK
from hesper.log import get_logger
from hesper.portable import peer_cgroup, peer_place

if TYPE_CHECKING:
    from hesper.classes import ClientClass
    from hesper.isolation.doorstep import Admission
    from hesper.isolation.gpus import Gpus
    from hesper.isolation.shader_caches import Cache, ShaderCaches
    from hesper.isolation.turns import Turns
    from hesper.isolation.waiting import WaitingClient
    from hesper.isolation.worker_process import WorkerProcess

AUDIT_SECONDS = 2.0
"""Between two looks, while there are clients, whether a worker has more than it was granted."""

_log = get_logger(__name__)


class Serving:
    """Knows who is served, and hands clients to workers that are ready."""

    def __init__(
        self,
        turns: Turns,
        gpus: Gpus,
        caches: ShaderCaches,
        admission: Admission,
        recording: dict[str, Any] | None,
    ) -> None:
        """recording: `RecordOptions`, if clients are recorded."""
        self._turns = turns
        self._gpus = gpus
        self._caches = caches
        self._classes = admission.classes
        self._quota = admission.quota
        self._recordings = (
            Recordings(msgspec.convert(recording, RecordOptions)) if recording else None
        )
        every = self._classes.all if self._classes is not None else ()
        self._least_weight = min((each.weight for each in every), default=1)
        self._served: Crowd[WorkerProcess] = Crowd()
        self._auditing = False
        self.number = 0
        """Of the last client."""

    @property
    def count(self) -> int:
        """How many clients are served now; from any thread."""
        return self._gpus.count("serving")

    def sort(self, client: WaitingClient) -> None:
        """Take note of a client's class, and of where shaders are kept for it."""
        client.of_class = self._class_of(client)
        client.shaders = self._cache_of(client)
        client.is_new = self._caches.is_new(client.shaders)

    def _class_of(self, client: WaitingClient) -> ClientClass | None:
        """The class of a client; None where there are none."""
        classes = self._classes
        if classes is None or not classes.are_there:
            return None
        cgroup = peer_cgroup(client.sock) if classes.need_cgroups else None
        return classes.of(client.kind, client.peer.user, cgroup)

    def _cache_of(self, client: WaitingClient) -> Cache:
        place = peer_place(client.sock) if self._caches.by_client else ""
        usual = self._classes.default.name if self._classes is not None else ""
        return self._caches.of(client.peer, place, client.of_class, usual)

    def refusal(self, client: WaitingClient) -> tuple[str, dict[str, Any]] | None:
        """Why a client's process or user has no place left, see `Quota.refusal`."""
        return self._quota.refusal(self._served, client.peer)

    def begin(self, worker: WorkerProcess, client: WaitingClient) -> None:
        """Hand a client to a worker that is ready."""
        with client.sock as sock:
            sock.setblocking(True)
            worker.state = "serving"
            worker.since = time.monotonic()
            self.number += 1
            worker.client = self.number
            worker.peer = client.peer
            worker.kind = client.of_class
            self._served.add(worker, client.peer)
            worker.shaders = self._caches.hand(worker.shaders, client.shaders)
            self._gpus.of(worker).expect(worker.shaders, is_new=client.is_new)
            files = self._recordings.begin(worker.client) if self._recordings is not None else []
            try:
                self._order(worker, [sock.fileno()], files)
            finally:
                for fd in files:
                    os.close(fd)
            _log.debug("client has a worker", client=worker.client, worker=worker.process.pid)

    def _order(self, worker: WorkerProcess, fds: list[int], files: list[int]) -> None:
        told: dict[str, Any] = {"client": worker.client, "files": len(files)}
        hearing, kind = self._gpus.of(worker).crew.hearing, worker.kind
        total, shares = hearing.total, hearing.shares
        if total is not None:
            fds.append(total.fd)
            told |= {"lease": total.begin(worker), "slack": SLACK}
        if shares is not None:
            weight = kind.weight if kind is not None else 1
            # Without a descriptor, it shares as the driver has it.
            with contextlib.suppress(OSError):
                fds.append(shares.join(worker, weight / self._least_weight, worker.process.pid))
                told["share"] = True
        if kind is not None:
            told["limits"] = msgspec.to_builtins(kind.limits)
        self._gpus.order(worker, "serve", fds + files, **told)
        if total is not None:
            self._audit_later()

    def end(self, worker: WorkerProcess) -> None:
        """Take note that a worker has ended."""
        self._served.remove(worker)
        if self._recordings is not None:
            self._recordings.end(worker)

    def spoil(self, cache: Cache) -> None:
        """A cache has grown beyond what drivers keep: who uses it ends, and it is removed."""
        old = self._caches.spoil(cache)
        for worker in [each for each in self._gpus.workers if each.shaders is cache]:
            worker.shaders = old
            self._gpus.kill(worker, f"its cache of shaders has more than {MOST_BYTES} bytes")

    def _audit_later(self) -> None:
        if not self._auditing and self.count:
            self._auditing = True
            self._turns.after(AUDIT_SECONDS, self._audit)

    def _audit(self) -> None:
        self._auditing = False
        self._gpus.audit()
        self._audit_later()
