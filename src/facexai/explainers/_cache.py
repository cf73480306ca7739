"""Evidence of single faces by number: the latest used in memory, within a bound, the rest in a store on disk."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import final

from facexai._tensor_store import Store
from facexai.explainers.pairs import FaceEvidence


@final
@dataclass(eq=False)
class EvidenceCache:
    """A cache of evidence by number.

    Attributes:
        memory: bytes that are held; the latest used is held in any case.
        store: where the rest goes.
        disk: bytes on disk; what is over is forgotten, the caller observes again. None: as many as there are.
        advice: what the user can do about a full disk.
    """

    memory: int
    store: Store
    disk: int | None = None
    advice: str = "name a larger one with folder=, or hold more in memory= bytes"

    def __post_init__(self) -> None:
        self.held: OrderedDict[int, FaceEvidence] = OrderedDict()
        self.away: dict[int, FaceEvidence] = {}
        self.bytes = self.written = 0

    def __contains__(self, number: int) -> bool:
        return number in self.held or number in self.away

    def window(self, batch_size: int) -> int:
        """Returns how many pairs to look ahead, so that new faces are observed together and still fit into memory."""
        if not self.held:
            return max(1, batch_size // 2)
        each = next(iter(self.held.values())).nbytes
        return max(1, min(batch_size, self.memory // max(1, each)) // 2)

    def put(self, number: int, evidence: FaceEvidence) -> None:
        """Keeps the evidence of one face.

        Raises:
            OSError: the disk is full; says what to do.
        """
        self.held[number] = evidence
        self.held.move_to_end(number)
        self.bytes += evidence.nbytes
        while self.bytes > self.memory and len(self.held) > 1:
            oldest, gone = self.held.popitem(last=False)
            self.bytes -= gone.nbytes
            if oldest not in self.away and (self.disk is None or self.written + gone.nbytes <= self.disk):
                self._write(oldest, gone)

    def get(self, number: int) -> FaceEvidence:
        """Returns the evidence of one face that is here."""
        if number in self.held:
            self.held.move_to_end(number)
            return self.held[number]
        plain = self.away[number]
        device = next(iter(plain.parts.values())).device
        result = replace(plain, parts=self.store.get(str(number), device=str(device)))
        self.put(number, result)
        return result

    def _write(self, number: int, evidence: FaceEvidence) -> None:
        try:
            self.store.put(str(number), evidence.parts)
        except OSError as error:
            raise OSError(
                f"evidence of {len(self.away) + 1} faces, {evidence.nbytes / 2**20:.1f} MiB each, does not fit on the "
                f"disk ({error}); {self.advice}"
            ) from None
        self.written += evidence.nbytes
        self.away[number] = replace(
            evidence, parts={n: p.new_empty((0, *p.shape[1:])) for n, p in evidence.parts.items()}
        )
