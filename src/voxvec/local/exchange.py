"""One HTTP exchange as plain values: a request, a reply, and a refusal in OpenAI's shape.

Knows no HTTP library, so that one responder can stand behind an `httpx2` transport, a
socket, or a test.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from voxvec.local.faults import Fault

__all__ = ["Refusal", "Reply", "Request", "json_reply"]

_ENDPOINT = re.compile(r"(?:^|/)(embeddings|audio/transcriptions|audio/translations|models(?:/.+)?)/?$")


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks.

    Attributes:
        method: ``"POST"`` and the like.
        path: Path of the URL, percent-decoded, without the query.
        headers: By lower-case name.
        body: All of it.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""

    @property
    def endpoint(self) -> str | None:
        """``"embeddings"``, ``"models/NAME"`` and so on, whatever stands before it; None if it is no such path."""
        found = _ENDPOINT.search(self.path)
        return found[1] if found else None


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answers.

    Attributes:
        status: HTTP status.
        headers: By lower-case name, ``content-type`` among them.
        body: All of it.
        fault: What is to go wrong on its way, if anything.
        sent: Called once when it has gone out, with whether all of it did.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    fault: Fault | None = None
    sent: Callable[[bool], None] = field(default=lambda _: None, compare=False, repr=False)

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            ValueError: It is none.
        """
        return json.loads(self.body)


class Refusal(Exception):  # noqa: N818 -- it is an answer, not a failure of ours
    """The request is answered with an error; nothing was computed for it.

    Attributes:
        status: HTTP status, 400 to 599.
        message: What is wrong and what to do.
        param: Field of the request that it is about.
        code: Word for programs.
        type: OpenAI's class of error.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        type: str = "invalid_request_error",  # noqa: A002 -- OpenAI's name for it
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.param, self.code, self.type = message, status, param, code, type

    def reply(self) -> Reply:
        """The refusal as it goes over the wire."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        reply = json_reply({"error": error}, status=self.status)
        # What this server cannot do now it cannot do a second later either.
        return Reply(reply.status, {**reply.headers, "x-should-retry": "false"}, reply.body)


def json_reply(content: Any, *, status: int = 200) -> Reply:
    """A reply that holds JSON, indented as OpenAI's."""
    body = json.dumps(content, indent=2, ensure_ascii=False).encode("utf-8")
    return Reply(status, {"content-type": "application/json"}, body + b"\n")
