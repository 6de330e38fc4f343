"""What a fake server does wrong, and to which request."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, Literal

from voxvec.local import orders
from voxvec.local.exchange import Reply, json_reply
from voxvec.local.mutations import MUTATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from voxvec.local.ledger import Asked

__all__ = ["Fault", "Rule", "Script"]

_REASONS: Final = {
    400: ("Invalid request.", "invalid_request_error", None),
    401: ("Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
    403: ("You are not allowed to do this.", "invalid_request_error", None),
    404: ("Not found.", "invalid_request_error", None),
    429: ("Rate limit reached for requests.", "requests", "rate_limit_exceeded"),
}
_BROKEN: Final = ("The server had an error while processing your request.", "server_error", None)
_QUOTA: Final = "You exceeded your current quota, please check your plan and billing details."
_OK: Final = 200
_FRAMING: Final = frozenset({"content-encoding", "content-length", "transfer-encoding"})
_BODILESS: Final = (204, 304)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Fault:
    """What goes wrong with one request.

    The fields fall into three groups, and any of one group goes together with any of another: what is answered (by
    default what an honest server would), how it travels, and how it ends.

    Attributes:
        status: Answer with this HTTP status, 200 to 599, instead of doing the work; it is not billed.
        retry_after: Value of the ``Retry-After`` header of that answer [s].
        code: OpenAI's word for the error, such as ``"insufficient_quota"``.
        headers: Headers to add or change; None takes one away.
        body: Whole body of that answer, instead of OpenAI's error object; a mapping goes out as JSON.
        spoil: Do the work, bill it, and spoil the answer: a name in `MUTATIONS`, or a function that gets the answer's
            JSON (or its text, if it is none) and returns what goes out: JSON, bytes, or a whole ``Reply``.
        silent: Do the work, bill it, and never answer.
        raw: Do the work, bill it, and send these bytes instead of HTTP.
        delay: Time before the first byte of the answer [s].
        trickle: Send everything, the head too, so many bytes at a time, with a pause after each [s].
        interim: Statuses sent before the answer, such as ``(103,)``.
        before_body: Answer as soon as the head of the request is there, whatever its body is; nothing is billed.
        cut: The body breaks off after so many bytes (negative: so many before its end), and the connection is closed.
        reset: The connection is reset: ``"before"`` the work is done, which is then not billed, in the
            ``"headers"``, or in the ``"body"`` of the answer.
        content_length: How much too large (or, negative, too small) the ``Content-Length`` header is. The connection
            stays open, so that who believes it waits for more.
        close: The connection is closed after the answer, without a header that says so.

    Raises:
        TypeError: A field is of another type.
        ValueError: A field is out of range, contradicts another, or nothing goes wrong.
    """

    status: int | None = None
    retry_after: float | None = None
    code: str | None = None
    headers: Mapping[str, str | None] | None = None
    body: bytes | str | Mapping[str, Any] | None = None
    spoil: str | Callable[[Any], Any] | None = None
    silent: bool = False
    raw: bytes | None = None
    delay: float = 0.0
    trickle: tuple[int, float] | None = None
    interim: tuple[int, ...] = ()
    before_body: bool = False
    cut: int | None = None
    reset: Literal["before", "headers", "body"] | None = None
    content_length: int | None = None
    close: bool = False

    def __post_init__(self) -> None:
        orders.check_fault(self)

    def __repr__(self) -> str:
        said = ((each.name, getattr(self, each.name), each.default) for each in fields(self))
        return f"Fault({', '.join(f'{name}={value!r}' for name, value, default in said if value != default)})"

    @property
    def happens(self) -> bool:
        """Whether anything goes wrong."""
        return any(getattr(self, each.name) != each.default for each in fields(self))

    @property
    def instead(self) -> bool:
        """Whether the work is not done."""
        return self.status is not None or self.reset == "before" or self.before_body

    @property
    def harmless(self) -> bool:
        """Whether the whole honest answer arrives all the same."""
        mutation = MUTATIONS.get(self.spoil) if isinstance(self.spoil, str) else None
        return (
            (self.spoil is None or (mutation is not None and mutation.benign))
            and not self.instead
            and not self.silent
            and not _FRAMING & {name.lower() for name in self.headers or ()}
            and (self.raw, self.cut, self.reset, self.content_length) == (None, None, None, None)
        )

    def error(self) -> Reply:
        """The answer in place of the honest one."""
        status = self.status or _OK
        reply = _error(status, self.code) if self.body is None else _as_reply(status, self.body)
        waiting = {} if self.retry_after is None else {"retry-after": f"{self.retry_after:g}"}
        return Reply(status, {**reply.headers, **waiting}, reply.body)

    def spoilt(self, reply: Reply) -> Reply:
        """The honest answer as it goes out."""
        spoil = MUTATIONS[self.spoil] if isinstance(self.spoil, str) else self.spoil
        if spoil is None or reply.status != _OK:
            return reply
        try:
            said: Any = reply.json()
        except ValueError:
            said = reply.body.decode("utf-8", "replace")
        made: Any = spoil(said)
        if isinstance(made, Reply):
            return made
        if isinstance(made, str):
            made = made.encode("utf-8", "surrogatepass")
        return Reply(reply.status, reply.headers, made if isinstance(made, bytes) else json_reply(made).body)

    def relabelled(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Headers of the answer as they go out."""
        closing = {"connection": "close"} if self.before_body else {}
        own = {name.lower(): value for name, value in (self.headers or {}).items()}
        return {name: value for name, value in {**headers, **closing, **own}.items() if value is not None}


def _as_reply(status: int, body: bytes | str | Mapping[str, Any]) -> Reply:
    if isinstance(body, (bytes, str)):
        raw = body.encode("utf-8") if isinstance(body, str) else body
        return Reply(status, {"content-type": "text/plain; charset=utf-8"}, raw)
    return json_reply(dict(body), status=status)


def _error(status: int, code: str | None) -> Reply:
    if status in _BODILESS:
        return Reply(status)
    message, kind, usual = _REASONS.get(status, _BROKEN)
    if code == "insufficient_quota":
        message, kind = _QUOTA, code
    return json_reply(
        {"error": {"message": message, "type": kind, "param": None, "code": code or usual}}, status=status
    )


@dataclass(slots=True, kw_only=True)
class Rule:
    """Which requests a fault is for.

    Attributes:
        fault: What happens to them.
        at: Their numbers; None for any.
        when: Says of a request whether it is one; None for any.
        chance: Probability for each of them.
        left: How many more; None for any number.
        used: How many it was done to.
        during: When it begins after the first request, and how long it lasts [s]; None for ever.
        dice: What decides about chance.
        began: When the first request came.
    """

    fault: Fault
    at: frozenset[int] | None = None
    when: Callable[[Asked], bool] | None = None
    chance: float = 1.0
    left: int | None = 1
    used: int = 0
    during: tuple[float, float] | None = None
    dice: random.Random = field(default_factory=random.Random)
    began: float | None = None

    @property
    def pending(self) -> bool:
        """Whether it has not happened as often as it was ordered; once is enough where no number was given."""
        if self.at is not None:
            return self.used < len(self.at)
        return self.left > 0 if self.left is not None else self.used == 0

    def use(self, times: int) -> None:
        """It happens, or, with a negative number, did not happen after all."""
        self.used += times
        if self.left is not None:
            self.left -= times

    def applies(self, asked: Asked) -> bool:
        """Whether it is for that request; every question is a throw of the dice."""
        if self.began is None:
            self.began = asked.arrived
        return (
            self.left != 0
            and (self.at is None or asked.number in self.at)
            and (self.during is None or 0 <= asked.arrived - self.began - self.during[0] < self.during[1])
            and (self.when is None or self.when(asked))
            and (self.chance >= 1 or self.dice.random() < self.chance)
        )


class Script:
    """Rules in the order they were given; any thread may ask.

    Args:
        seed: Of all chance; each rule has its own.
    """

    def __init__(self, seed: int) -> None:
        self._seed, self._rules = seed, list[Rule]()
        # A rule may ask something that asks the script.
        self._lock = threading.RLock()
        self.hasty = False

    def add(self, rule: Rule) -> None:
        """Order one more."""
        with self._lock:
            rule.dice = random.Random(f"{self._seed} {len(self._rules)}")  # noqa: S311 -- to be repeatable
            self._rules.append(rule)
            self.hasty = self.hasty or rule.fault.before_body

    def take(self, asked: Asked, *, hasty: bool | None = None) -> Rule | None:
        """The first rule that applies, used up by one.

        Args:
            asked: The request.
            hasty: Look only at those that answer before the body, or only at the others; None for all.
        """
        with self._lock:
            for rule in self._rules:
                if hasty in (None, rule.fault.before_body) and rule.applies(asked):
                    rule.use(1)
                    return rule
        return None

    def give_back(self, rule: Rule) -> None:
        """It was not used after all."""
        with self._lock:
            rule.use(-1)

    def pending(self) -> list[Fault]:
        """What was ordered and has not happened as often as it was."""
        with self._lock:
            return [rule.fault for rule in self._rules if rule.pending]
