"""Classes of clients: what those of one may use, their weight, and who is in it."""

from __future__ import annotations

import re

import msgspec

from hesper.errors import OptionError
from hesper.limits import Limits

MOST_WEIGHT = 1000
MOST_USER = (1 << 32) - 2
"""The largest number of a user: the one after it stands for none (chown(2))."""
MOST_COMM = 15
"""Characters of a process' name that Linux knows (TASK_COMM_LEN, less the zero)."""
DEFAULT = "default"
"""The class of clients that are in no other; it need not be one that somebody has made."""

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")


class ClientClass(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A class of clients.  Raises `errors.OptionError` for what cannot be."""

    name: str
    """Letters, digits, `_`, `.` and `-`; 63 at most, as CDI has them."""
    weight: int = 1
    """Of the GPU's time, a client gets as much for its weight as any other; 1 to 1000."""
    limits: Limits = msgspec.field(default_factory=Limits)
    """What one client of the class may use.  `total_memory` is the server's, not a class's."""
    users: tuple[int, ...] = ()
    """Numbers of users whose clients are in it."""
    cgroups: tuple[str, ...] = ()
    """Control groups, as `/kubepods.slice`: clients there, or below, are in it.  Linux only."""
    programs: tuple[str, ...] = ()
    """Names of programs in a virtual machine, as they call themselves."""

    def __post_init__(self) -> None:
        """Check them."""
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            must = (
                "must be letters, digits, '_', '.' and '-', and begin and end with one of the first"
            )
            raise OptionError("class", self.name, must)
        weight = self.weight
        if not isinstance(weight, int) or isinstance(weight, bool) or not 0 < weight <= MOST_WEIGHT:
            must = f"must be a whole number, 1 to {MOST_WEIGHT}"
            raise OptionError(f"class {self.name}: weight", weight, must)
        if not isinstance(self.limits, Limits):
            raise OptionError(
                f"class {self.name}: limits", self.limits, "must be hesper.Limits(...)"
            )
        for user in self.users:
            if not isinstance(user, int) or isinstance(user, bool) or not 0 <= user <= MOST_USER:
                must = f"must be a user's number, 0 to {MOST_USER}"
                raise OptionError(f"class {self.name}: user", user, must)
        for program in self.programs:
            if not isinstance(program, str) or not program:
                raise OptionError(f"class {self.name}: program", program, "must be a name")
        for group in self.cgroups:
            if not isinstance(group, str) or not _is_path(group):
                must = "must be a control group's path from the root, as /system.slice"
                raise OptionError(f"class {self.name}: cgroup", group, must)

    def has_program(self, name: str) -> bool:
        """Whether a program of that name is in it; a guest's kernel may have cut the name off."""
        return any(name in {each, each[:MOST_COMM]} for each in self.programs if name)

    def has(self, user: int, cgroup: str | None) -> bool:
        """Whether a client of that user, in that control group, is in it by who it is."""
        return user in self.users or any(_is_below(cgroup, group) for group in self.cgroups)


def _is_path(group: str) -> bool:
    """Whether the kernel could show a group by that path, with or without a slash behind it."""
    root, *parts = group.removesuffix("/").split("/")
    return group.startswith("/") and not root and not {"", ".", ".."} & set(parts)


def _is_below(cgroup: str | None, group: str) -> bool:
    """Whether a control group is `group` or one below it."""
    wanted = group.rstrip("/")
    return cgroup is not None and (cgroup == wanted or cgroup.startswith(wanted + "/"))


class Classes:
    """All classes of a server, and how clients come to theirs."""

    def __init__(self, classes: tuple[ClientClass, ...], limits: Limits) -> None:
        """limits: of clients in no class.  Raises `OptionError` for two of one name."""
        self._classes = {each.name: each for each in classes}
        if len(self._classes) < len(classes):
            names = [each.name for each in classes]
            twice = next(name for name in names if names.count(name) > 1)
            raise OptionError("class", twice, "there is another of that name")
        self.default = self._classes.get(DEFAULT) or ClientClass(name=DEFAULT, limits=limits)
        self.are_there = bool(classes)
        """Whether somebody has made any."""
        self.need_cgroups = any(each.cgroups for each in classes)

    @property
    def all(self) -> tuple[ClientClass, ...]:
        """All, the default one among them."""
        return (*(each for each in self._classes.values() if each.name != DEFAULT), self.default)

    def named(self, name: str) -> ClientClass:
        """The class of that name.  Raises `OptionError`."""
        found = self.default if name == DEFAULT else self._classes.get(name)
        if found is None:
            known = ", ".join(sorted({*self._classes, DEFAULT}))
            raise OptionError("class", name, f"there is no such class; there are: {known}")
        return found

    def of(self, socket: str, user: int, cgroup: str | None) -> ClientClass:
        """The class of a client: by its socket's, else by who it is, else the default.

        socket: name of the socket's class, empty if it has none.  cgroup: None: not known.
        Of several that it is in by who it is, the first.
        """
        if socket:
            return self.named(socket)
        by_peer = (each for each in self._classes.values() if each.has(user, cgroup))
        return next(by_peer, self.default)

    def of_program(self, name: str) -> ClientClass:
        """The class of a program in a virtual machine: the first that names it, or the default."""
        return next((e for e in self._classes.values() if e.has_program(name)), self.default)

    @property
    def widest(self) -> Limits:
        """The largest of each limit: what a worker is made for that knows no client yet."""
        every = [each.limits for each in self.all]
        names = Limits.__struct_fields__
        return Limits(**{name: max(getattr(each, name) for each in every) for name in names})
