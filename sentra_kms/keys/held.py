"""What is held of one tenant in memory, small enough for a hundred thousand of them.

A `Ring` has the names and wraps of every KEK and takes kilobytes. What the message path needs of
it are a few bytes a version, kept packed in one `bytes` object.
"""

from __future__ import annotations

from collections.abc import Iterator
from sys import intern
from typing import final

from sentra_kms.encoding import u32
from sentra_kms.keys.message import NO_OPENER, Opener
from sentra_kms.keys.ring import Ring, State
from sentra_kms.material import KeyMaterial

_STATES: tuple[State, ...] = ("enabled", "disabled", "scheduled", "destroyed")
_CHECK = 16  # bytes of a check value that tell keys apart
_HEAD = 24  # ring id 12, sequence 8, primary 4 (0 for none)
_EACH = 6 + _CHECK  # version 4, state 1, origin 1, check
_NO_OPENERS: dict[bytes, Opener] = {}


@final
class HeldKey:
    """An unwrapped key. `taken` is when its KEK was asked, `deadline` when to look at it again."""

    __slots__ = ("deadline", "is_coasting", "material", "number", "other", "taken")

    def __init__(self, number: int, material: KeyMaterial, taken: float, deadline: float) -> None:
        self.number: int = number
        self.material: KeyMaterial = material
        self.taken: float = taken
        self.deadline: float = deadline
        self.is_coasting: bool = False
        self.other: HeldKey | None = None


@final
class Entry:
    """What is held of one tenant under one state of its ring; replaced whole when that changes.

    `place` is the store where the ring was, nothing for the main one. `read` is when it was read,
    `deadline` when to look at it again, in monotonic seconds. `newest` is the last of `openers`,
    at hand without hashing a prefix. `asked` is set whenever it is looked up, and `seat` is kept,
    for eviction; the latter under the lock of the memory only.
    """

    __slots__ = (
        "_keys",
        "_packed",
        "asked",
        "deadline",
        "is_coasting",
        "newest",
        "openers",
        "place",
        "policy",
        "read",
        "seat",
        "tenant",
    )

    def __init__(self, ring: Ring, read: float) -> None:
        self.tenant: str = ring.tenant
        self.policy: str = intern(ring.policy)
        self.place: str = ""
        self.read: float = read
        self.deadline: float = read
        self.is_coasting: bool = False
        self.asked: bool = False
        self.seat: int = 0
        self.openers: dict[bytes, Opener] = _NO_OPENERS
        self.newest: Opener = NO_OPENER
        self._keys: HeldKey | None = None
        self._packed = _packed(ring)

    @property
    def ring_id(self) -> bytes:
        """The ring's id, 12 bytes."""
        return self._packed[:12]

    @property
    def sequence(self) -> int:
        """The ring's sequence."""
        return int.from_bytes(self._packed[12:20], "big")

    @property
    def primary(self) -> int | None:
        """The primary version's number, `None` if there is none."""
        return int.from_bytes(self._packed[20:24], "big") or None

    def state(self, number: int) -> State | None:
        """Return a version's state, `None` if this ring never had it."""
        found = self._find(number)
        return None if found < 0 else _STATES[self._packed[found + 4]]

    def is_imported(self, number: int) -> bool:
        """Whether a version's key was imported, and opens only its old format."""
        found = self._find(number)
        return found >= 0 and self._packed[found + 5] != 0

    def same_keys(self, now: Entry) -> set[int]:
        """Return the versions that are enabled in `now` and hold the key that they hold here.

        None under another policy: there a key is held for another time, and other KEKs are asked.
        """
        return self.still_enabled(now) if self.policy == now.policy else set()

    def still_enabled(self, now: Entry) -> set[int]:
        """Return the versions that are enabled in `now` and have the key that they have here."""
        if self._packed[:12] != now._packed[:12]:
            return set()
        mine = dict(self._keys_of())
        return {
            number
            for number, check in now._keys_of()
            if mine.get(number) == check and now.state(number) == "enabled"
        }

    def key(self, number: int) -> HeldKey | None:
        """Return a version's key if it is held."""
        held = self._keys
        while held is not None and held.number != number:
            held = held.other
        return held

    def all_held(self) -> list[HeldKey]:
        """Return the keys that are held, the one that was taken last first."""
        found: list[HeldKey] = []
        held = self._keys
        while held is not None:
            found.append(held)
            held = held.other
        return found

    def hold(self, keys: list[HeldKey]) -> None:
        """Hold these keys and no others. Readers go on along the chain that they began."""
        first: HeldKey | None = None
        for held in reversed(keys):
            kept = HeldKey(held.number, held.material, held.taken, held.deadline)
            kept.is_coasting = held.is_coasting
            kept.other = first
            first = kept
        self._keys = first

    def keep_opener(self, prefix: bytes, opener: Opener) -> None:
        """Keep what opens the messages of one prefix."""
        if self.openers is _NO_OPENERS:
            self.openers = {}
        self.openers[prefix] = self.newest = opener

    def forget_opener(self, prefix: bytes) -> None:
        """Forget what opens the messages of one prefix."""
        self.openers.pop(prefix, None)
        if self.newest.prefix == prefix:
            self.newest = NO_OPENER

    def _keys_of(self) -> Iterator[tuple[int, bytes]]:
        packed = self._packed
        for at in range(_HEAD, len(packed), _EACH):
            yield int.from_bytes(packed[at : at + 4], "big"), packed[at + 6 : at + _EACH]

    def _find(self, number: int) -> int:
        """Return where a version's bytes begin, -1 if there are none; versions ascend."""
        packed, wanted = self._packed, u32(number)
        low, high = 0, (len(packed) - _HEAD) // _EACH
        while low < high:
            middle = (low + high) // 2
            at = _HEAD + middle * _EACH
            found = packed[at : at + 4]
            if found == wanted:
                return at
            if found < wanted:
                low = middle + 1
            else:
                high = middle
        return -1


def _packed(ring: Ring) -> bytes:
    pieces = [ring.ring_id, ring.sequence.to_bytes(8, "big"), u32(ring.primary or 0)]
    for version in ring.versions:
        flags = bytes((_STATES.index(version.state), version.origin == "imported"))
        pieces += (u32(version.version), flags, version.check[:_CHECK])
    return b"".join(pieces)
