"""What decides, besides the text, which vector comes out; and the cache key that follows from it.

Pure.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal, NamedTuple

from voxvec import rows

if TYPE_CHECKING:
    from voxvec.models import EmbeddingModel, InputType

__all__ = ["Keys", "OnLong", "Settings"]

OnLong = Literal["error", "truncate", "chunk"]
"""What to do with a text that is longer than the model takes: refuse it, embed its beginning, or embed its parts and
take their mean, weighted by tokens and brought to unit length."""

_KEY_FORMAT = b"voxvec embedding 1"


class Settings(NamedTuple):
    """What decides, besides the text, which vector comes out.

    Attributes:
        model: The model, with the dims wanted.
        origin: Root of the server's API; vectors of two servers are never mixed up.
        namespace: Keeps tenants apart who share a cache.
        input_type: Role of the texts, for models that embed queries and documents differently.
        on_long: What to do with texts that are too long.
        strict: Whether vectors of another model are none.
    """

    model: EmbeddingModel
    origin: str = ""
    namespace: str | None = None
    input_type: InputType | None = None
    on_long: OnLong = "error"
    strict: bool = False

    def is_served_by(self, name: str) -> bool:
        """Whether a server that calls its model so serves the model asked for."""
        # Behind a deployment's name the server gives that of the family; versions are written behind a hyphen.
        return f"{name}-".startswith((f"{self.model.name}-", f"{self.model.family}-"))

    @property
    def prefix(self) -> str:
        """Put before every text."""
        prefixes = {"query": self.model.query_prefix, "document": self.model.document_prefix, None: ""}
        return prefixes[self.input_type]

    @property
    def role(self) -> str | None:
        """What is sent in the field for the role, if the model has one."""
        if self.model.input_type_parameter is None:
            return None
        roles = {"query": self.model.query_input_type, "document": self.model.document_input_type, None: None}
        return roles[self.input_type]

    @property
    def served_dims(self) -> int | None:
        """Length of the vectors that are asked for; longer than wanted where only we can cut."""
        return self.model.dims if self.model.dims_parameter else self.model.native_dims

    def fields(self) -> dict[str, object]:
        """Fields of the request beside the texts and their encoding."""
        fields: dict[str, object] = {"model": self.model.name}
        dims = self.model.dims
        if self.model.dims_parameter and dims is not None and dims != self.model.native_dims:
            fields[self.model.dims_parameter] = dims
        if self.role is not None and self.model.input_type_parameter is not None:
            fields[self.model.input_type_parameter] = self.role
        return fields


class Keys:
    """Cache keys: BLAKE2b-256 over length-prefixed fields, so that no two requests share one.

    The dims are not in the key of a model that can be shortened by cutting: one row serves them all.
    """

    def __init__(self, settings: Settings) -> None:
        dims = "" if settings.model.matryoshka != "none" else str(settings.served_dims)
        parts = (settings.origin, settings.namespace or "", settings.model.name, settings.role or "", dims)
        self._start = hashlib.blake2b(digest_size=rows.KEY_BYTES)
        for part in (_KEY_FORMAT, *(part.encode() for part in parts)):
            self._start.update(len(part).to_bytes(8, "little") + part)

    def of(self, raw: bytes) -> bytes:
        """Key of a text exactly as it is sent, prefix included, in UTF-8."""
        digest = self._start.copy()
        digest.update(len(raw).to_bytes(8, "little") + raw)
        return digest.digest()
