"""What is being bought at this moment, and by which call, so that nobody buys it a second time.

Pure bookkeeping: a lane in `voxvec._run` keeps it from being used by two threads at once, and does the waiting.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from voxvec.errors import VoxvecError

__all__ = ["Claim", "Flights", "Slot"]


@dataclass(slots=True, eq=False)
class Slot:
    """A text that is being bought: still in the air, landed with its row, refused for good, or given up."""

    over: bool = False
    wanted: bool = False  # by another call than the buyer's
    row: bytes | None = None
    error: VoxvecError | None = None


@dataclass(slots=True, eq=False)
class Claim:
    """Who buys what, by key.

    Attributes:
        lot: What the keys leave open, such as how many dims are wanted; only claims of one lot share.
        mine: For the call that made the claim to buy.
        theirs: On its way already, for another call.
        aloft: Those of mine that are being sent; they stay claimed even if the call that made the claim is interrupted.
    """

    lot: int
    mine: dict[bytes, Slot] = field(default_factory=dict[bytes, Slot])
    theirs: dict[bytes, Slot] = field(default_factory=dict[bytes, Slot])
    aloft: set[bytes] = field(default_factory=set[bytes])

    def landed(self) -> bool:
        """Whether nothing of theirs is in the air any more."""
        return all(slot.over for slot in self.theirs.values())

    def rows(self) -> dict[bytes, bytes]:
        """What landed, by name; what was given up is absent."""
        return {name: slot.row for name, slot in self.theirs.items() if slot.row is not None}

    def errors(self) -> dict[bytes, VoxvecError]:
        """What would be refused again, by name."""
        return {name: slot.error for name, slot in self.theirs.items() if slot.error is not None}

    def is_wanted(self) -> bool:
        """Whether another call waits for anything of mine."""
        return any(slot.wanted and not slot.over for slot in self.mine.values())

    def rest(self) -> list[bytes]:
        """Those of mine that nobody will land any more once the call is over."""
        return [name for name in self.mine if name not in self.aloft]


class Flights:
    """Which texts are being bought right now, by name, so that nobody buys one a second time."""

    def __init__(self) -> None:
        self._slots: dict[tuple[int, bytes], Slot] = {}

    def claim(self, names: Iterable[bytes], lot: int) -> Claim:
        """Take on what nobody is buying."""
        claim = Claim(lot)
        for name in names:
            slot = self._slots.get((lot, name))
            if slot is not None:
                slot.wanted = True
                claim.theirs[name] = slot
            else:
                claim.mine[name] = self._slots[lot, name] = Slot()
        return claim

    def land(self, claim: Claim, rows: Mapping[bytes, bytes | None], error: VoxvecError | None = None) -> None:
        """Note that rows have come, or, as None, that they will not; and why, if that holds for everybody."""
        for name, row in rows.items():
            slot = claim.mine[name]
            claim.aloft.discard(name)
            if not slot.over:
                slot.row, slot.error, slot.over = row, error, True
                del self._slots[claim.lot, name]
