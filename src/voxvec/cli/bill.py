"""What a command took, summed over its calls."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from voxvec.cli.screen import Json, count, money

if TYPE_CHECKING:
    from voxvec.embedding.vectors import Embeddings
    from voxvec.transcription.transcript import Transcript

__all__ = ["Bill"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What some calls took.

    Attributes:
        requests: Requests made.
        tokens: Tokens that were counted by the server.
        cost: US dollars; None as soon as the price of one call is unknown.
        cached: How many texts and recordings came out of the cache.
        asked: Of how many.
    """

    requests: int = 0
    tokens: int = 0
    cost: Decimal | None = Decimal(0)
    cached: int = 0
    asked: int = 0

    def __add__(self, other: Bill) -> Bill:
        return Bill(
            requests=self.requests + other.requests,
            tokens=self.tokens + other.tokens,
            cost=None if self.cost is None or other.cost is None else self.cost + other.cost,
            cached=self.cached + other.cached,
            asked=self.asked + other.asked,
        )

    @staticmethod
    def of_vectors(vectors: Embeddings) -> Bill:
        """What embedding took."""
        usage = vectors.usage
        return Bill(
            requests=usage.requests,
            tokens=usage.tokens,
            cost=vectors.cost,
            cached=vectors.cached,
            asked=len(vectors),
        )

    @staticmethod
    def of_transcript(transcript: Transcript) -> Bill:
        """What a transcription or a translation took."""
        usage = transcript.usage
        tokens = (usage.input_tokens or 0) + (usage.output_tokens or 0)
        return Bill(
            requests=usage.requests, tokens=tokens, cost=transcript.cost, cached=int(transcript.cached), asked=1
        )

    def __str__(self) -> str:
        hits = f"{self.cached:,} of {self.asked:,} from the cache"
        return f"{count(self.requests, 'request')}, {count(self.tokens, 'token')}, {money(self.cost)}, {hits}"

    def as_json(self) -> dict[str, Json]:
        """The same for machines; money as a string, so that no digit is lost."""
        return {
            "requests": self.requests,
            "tokens": self.tokens,
            "cost": None if self.cost is None else f"{self.cost.normalize():f}",
            "cached": self.cached,
            "asked": self.asked,
        }
