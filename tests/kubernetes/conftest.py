"""A node: a kubelet's folder, CDI files, and a server's socket."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cluster import Server

from hesper.containers.cdi import specification, write
from hesper.portable import private_folder


@dataclass
class Node:
    """Folders of a node, with short paths: those of sockets have 100 characters at most."""

    folder: Path
    server: Server

    @property
    def kubelet(self) -> Path:
        return self.folder / "kubelet"

    @property
    def cdi(self) -> Path:
        return self.folder / "cdi"

    @property
    def options(self) -> list[object]:
        return ["--kubelet", self.kubelet, "--cdi-folder", self.cdi]

    def write_devices(self, **classes: Server) -> None:
        """Write the CDI file, of the server and classes."""
        sockets = {name: server.path for name, server in classes.items()}
        write(specification(self.server.path, sockets, None), self.cdi / "hesper.json")


@pytest.fixture
def node() -> Iterator[Node]:
    """A node whose server answers."""
    with private_folder() as folder:
        found = Node(folder, Server(folder / "all" / "vtest"))
        found.write_devices()
        found.server.start()
        yield found
        found.server.stop()
