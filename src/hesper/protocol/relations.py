"""Relations: what a number in one struct must be to a number in another one.

The registry says which count is the length of which array.  What it does not say (that a count in
a chained struct must be a count of the struct it is chained to, that an index must be below some
array's length) stands in `facts/relations.toml`, a sentence a relation:

    LEFT COMPARISON RIGHT [or VALUES] [if CONDITION] [unless CONDITION] [, else REMEDY]

LEFT is a path from the struct or command that the relation belongs to: field names joined by `.`,
`[]` after an array of which every element is meant, and the name of a struct for the one in the
pNext chain at that place.  `a.b + a.c` is the sum of two fields of one struct (`a.c.d`: or of a
struct in it), `sum(PATH)` that of all elements; `a + rest(b)` counts VK_REMAINING_... in b as 1.
After a field that is a handle comes a *fact* of the object: what the command that made it has said
(`[facts]`: a product as RIGHT is one, or `last(PATH in VALUE)`, one more than the index of the last
element that has the value; FACTS of them at most).  Where something on the path is not there (a
null pointer, a struct that is not chained), the relation holds.

COMPARISON is `==`, `<=`, `>=`, `<`, `in` (RIGHT: values joined by `|`, or an enumeration's name,
which stands for all that the registry has of it), or `given`, which has no
RIGHT and says that a pointer, or a handle, is not null.  RIGHT is a product (`*`) of

    a number, an enumerant, or a path without `[]`
    array[field].PATH         of the element that a field beside LEFT names
    bits(PATH)                how many bits are set in a mask
    levels(PATH)              how many mip levels an image of a VkExtent3D has at most
    aspects(PATH)             what is above all aspects that an image of a VkFormat has
    limits.FIELD              of VkPhysicalDeviceLimits
    device.NAME               one of DEVICE_NUMBERS

of which the last two hold where a driver says 0.  `or` names values that LEFT may have besides.  A
CONDITION is `PATH in VALUES`, `PATH has VALUES` (bits of a mask) or `PATH given`; it is met if any
element on the path meets it.  VALUES are numbers or enumerants joined by `|`.

A message that breaks a relation is refused, unless there is a REMEDY: `drop` takes the element
out of its array, `pad` lengthens an array with zeros to RIGHT elements, `set` makes LEFT what
RIGHT is, `clear` makes it 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

Comparison = Literal["==", "<=", ">=", "<", "in", "given"]

Remedy = Literal["", "drop", "pad", "set", "clear"]

DEVICE_NUMBERS = (
    "queueFamilyCount",
    "maxTransformFeedbackBuffers",
    "maxTransformFeedbackStreams",
    "maxPushDescriptors",
    "maxUpdateAfterBindDynamic",
    "maxBufferMebibytes",
    "allViews",
    "maxSampleLocations",
    "copiesDepthAsColor",
    "maxCustomBorderColors",
    "maxSamples",
    "maxPushDataSize",
    "opaqueCaptureDataSize",
)
"""What is to be known of a device besides its VkPhysicalDeviceLimits, u32 each; 0: nothing.

`copiesDepthAsColor`: 1: no, 2: yes.  `kernel/core/relations.pxd` knows them by their place, too.
"""

FACTS = 4
"""Numbers that are remembered of an object."""

LARGEST = (1 << 64) - 1
"""Sums and products stop here instead of wrapping."""


class Step(msgspec.Struct, frozen=True):
    """One step of a path: into a field, to every element of an array, to a chained struct."""

    kind: Literal["field", "each", "chain", "fact"]
    name: str


class Path(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where numbers stand."""

    steps: tuple[Step, ...]
    plus: str = ""
    """A second field beside the last one, or in a struct beside it, which is added to it."""
    rest: bool = False
    """Whether all ones in that one count as 1."""


class Term(msgspec.Struct, frozen=True, omit_defaults=True):
    """A factor of RIGHT."""

    kind: Literal["value", "path", "bits", "levels", "limit", "at", "last", "aspects"]
    value: int = 0
    path: Path | None = None
    """`at`: from the element on."""
    limit: str = ""
    array: str = ""
    index: str = ""
    """`at`: the array of the relation's struct, and the field beside LEFT."""
    planes: Mapping[int, int] = {}
    """`aspects`: how many planes a VkFormat has, where there are several; `value`: the first one's.

    An image that has one plane is taken for that.
    """


class Condition(msgspec.Struct, frozen=True, omit_defaults=True):
    """When a relation is meant; `unless`: when it is not."""

    path: Path
    values: tuple[int, ...] = ()
    kind: Literal["in", "has", "given"] = "in"
    unless: bool = False


class Relation(msgspec.Struct, frozen=True, omit_defaults=True):
    """One sentence, with its names resolved."""

    text: str
    left: Path
    comparison: Comparison
    right: tuple[Term, ...] = ()
    values: tuple[int, ...] = ()
    """What LEFT may be: besides RIGHT, or (`in`) at all."""
    conditions: tuple[Condition, ...] = ()
    remedy: Remedy = ""
    total: bool = False
    """Whether the sum of LEFT's places is meant."""
    beside: str = ""
    """`pad`, `clear`: the array that LEFT counts; `drop`: what counts that which LEFT is in."""
    of: Literal["numbers", "unions", "structs"] = "numbers"
    """`pad`: what that is an array of; unions are of numbers."""


class Fact(msgspec.Struct, frozen=True):
    """A number that is remembered of what a command has made."""

    name: str
    terms: tuple[Term, ...]


class Known(msgspec.Struct, frozen=True):
    """What relations speak of besides what has been sent; they hold where it is not known."""

    limits: Mapping[str, int] = {}
    """Fields of VkPhysicalDeviceLimits, and DEVICE_NUMBERS."""
    objects: Mapping[int, Mapping[str, int]] = {}
    """Facts by the id of the object."""


NOTHING = Known()


class BrokenRelationError(ValueError):
    """Values that break a relation."""


def chained(value: Mapping[str, Any], name: str) -> Any:
    """The struct of that name in the pNext chain of `value`, or None.

    Raises BrokenRelationError for two of them: drivers differ in which they take.
    """
    found = [v for n, v in value.get("pNext") or () if n == name]
    if len(found) > 1:
        raise BrokenRelationError(f"{name} stands twice in a pNext chain")
    return found[0] if found else None


def check(relations: tuple[Relation, ...], value: dict[str, Any], known: Known = NOTHING) -> None:
    """Hold a struct's or a command's values (as `codec` has them) against its relations.

    What has a remedy is changed in `value`.  Raises BrokenRelationError.
    """
    for relation in relations:
        _check(relation, value, known)


def _check(r: Relation, value: dict[str, Any], known: Known) -> None:
    if not all(meets(c, value, known) for c in r.conditions):
        return
    found = list(places(r.left, value, known))
    if r.total:
        found = [(value, "", min(LARGEST, sum(number for _, _, number in found)))]
    for holder, at, left in found:
        right = product(r.right, value, known, holder)
        if right is None or holds(r, left, right):
            continue
        if not r.remedy:
            raise BrokenRelationError(f"{left} breaks the relation {r.text!r}, with {right}")
        if r.remedy == "set":
            holder[at] = right
        elif r.remedy == "clear":
            holder |= {at: 0, r.beside: None}
        elif r.remedy == "pad":
            _pad(r, value, right)
        else:
            _drop(r, value, right)
            return


def holds(r: Relation, left: int, right: int) -> bool:
    """Whether two numbers fit together."""
    if left in r.values:
        return True
    if r.comparison == "in":
        return False
    if r.comparison == "given":
        return left != 0
    if r.comparison == "==":
        return left == right
    if r.comparison == "<=":
        return left <= right
    if r.comparison == ">=":
        return left >= right
    return left < right


def meets(c: Condition, value: dict[str, Any], known: Known = NOTHING) -> bool:
    """Whether a relation is meant, as far as one of its conditions goes."""
    return any(_matches(c, number) for _, _, number in places(c.path, value, known)) != c.unless


def _matches(c: Condition, number: int) -> bool:
    if c.kind == "given":
        return number != 0
    if c.kind == "has":
        return any(number & mask for mask in c.values)
    return number in c.values


def product(
    terms: tuple[Term, ...], value: dict[str, Any], known: Known, holder: Any
) -> int | None:
    """The number that RIGHT is, None where something of it is not there."""
    found = 1
    for term in terms:
        factor = _factor(term, value, known, holder)
        if factor is None:
            return None
        found = min(LARGEST, found * factor)
    return found


def _factor(term: Term, value: dict[str, Any], known: Known, holder: Any) -> int | None:
    if term.kind == "value":
        return term.value
    if term.kind == "limit":
        return known.limits.get(term.limit) or None
    assert term.path is not None
    if term.kind == "at":
        array = value.get(term.array) or ()
        if holder[term.index] >= len(array):
            return 0
        value = array[holder[term.index]]
    if term.kind == "last":
        found = [number for _, _, number in places(term.path, value, known)]
        return max((i for i, n in enumerate(found, 1) if n == term.value), default=0)
    if term.kind == "levels":
        extent = _holder(term.path, value, len(term.path.steps))
        return None if extent is None else max(extent.values(), default=0).bit_length()
    number = next((v for _, _, v in places(term.path, value, known)), None)
    if number is not None and term.kind == "bits":
        return number.bit_count()
    if number is not None and term.kind == "aspects":
        return term.value << term.planes.get(number, 1)
    return number


def _number(value: Any) -> int:
    """A value as an unsigned number; of a pointer, whether it is one."""
    if value is None:
        return 0
    if isinstance(value, int):
        return value if value >= 0 else value + (1 << 32)
    return 1


def places(
    path: Path, value: Any, known: Known = NOTHING, at: int = 0
) -> Iterator[tuple[Any, Any, int]]:
    """Every place that the path leads to: what holds it, its key there, the number."""
    for i in range(at, len(path.steps)):
        step = path.steps[i]
        last = i == len(path.steps) - 1
        if step.kind == "chain":
            value = chained(value, step.name)
        elif step.kind == "each":
            array = value.get(step.name) or ()
            for index, element in enumerate(array):
                if last:
                    yield array, index, _number(element)
                else:
                    yield from places(path, element, known, i + 1)
            return
        elif not last and path.steps[i + 1].kind == "fact":
            fact = known.objects.get(_number(value.get(step.name)), {}).get(path.steps[i + 1].name)
            if fact is not None:
                yield value, step.name, fact
            return
        elif last:
            yield value, step.name, _sum(path, value, step.name)
            return
        else:
            value = value.get(step.name)
        if value is None:
            return


def _sum(path: Path, value: Any, name: str) -> int:
    """The number that a path ends with, and what is to be added to it."""
    number = _number(value.get(name))
    if not path.plus:
        return number
    *outer, name = path.plus.split(".")
    for each in outer:
        value = value.get(each) or {}
    plus = _number(value.get(name))
    return min(LARGEST, number + (1 if path.rest and plus == 0xFFFFFFFF else plus))


def _holder(path: Path, value: Any, count: int) -> Any:
    """What the first `count` steps lead to, None where that is not there."""
    for step in path.steps[:count]:
        value = chained(value, step.name) if step.kind == "chain" else value.get(step.name)
        if value is None:
            return None
    return value


def _pad(r: Relation, value: dict[str, Any], right: int) -> None:
    """Lengthen the array that LEFT counts."""
    holder = _holder(r.left, value, len(r.left.steps) - 1)
    name = r.left.steps[-1].name
    if holder is None:
        return
    array = holder.get(r.beside)
    # Where there may be null though it is counted, null is what is meant.
    if array is None and holder[name]:
        return
    zeros: Any = {"numbers": 0, "unions": (0, (0, [0.0] * 4)), "structs": {}}
    holder[r.beside] = [*(array or ()), *[zeros[r.of]] * (right - len(array or ()))]
    holder[name] = right


def _drop(r: Relation, value: dict[str, Any], right: int) -> None:
    """Take elements out of the array that LEFT goes through."""
    holder = _holder(r.left, value, len(r.left.steps) - 2)
    each = r.left.steps[-2].name
    if holder is None or not holder.get(each):
        return
    inner = Path(r.left.steps[-1:], r.left.plus)
    kept = [e for e in holder[each] if holds(r, next(places(inner, e))[2], right)]
    if len(kept) != len(holder[each]):
        holder[r.beside] = len(kept)
        holder[each] = kept or None
