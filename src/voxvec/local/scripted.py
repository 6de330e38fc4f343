"""An honest responder behind a door that counts, limits, and does on request what servers should not.

Every request passes in the same order: it is entered in the ledger, the script is asked what goes wrong, the buckets
whether there is room, and only then is the work done and charged for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast

from voxvec.local import forms
from voxvec.local.fake_brain import digest
from voxvec.local.ledger import Asked

if TYPE_CHECKING:
    from collections.abc import Callable

    from voxvec.local.buckets import Buckets
    from voxvec.local.clocks import Clock
    from voxvec.local.exchange import Reply, Request
    from voxvec.local.faults import Fault, Rule, Script
    from voxvec.local.ledger import Ledger

__all__ = ["Scripted"]

_OK: Final = 200


@dataclass(slots=True, kw_only=True)
class Scripted:
    """A server of which every request can go wrong.

    Attributes:
        honest: Does the work.
        ledger: Counts.
        script: What goes wrong.
        buckets: What it takes per minute.
        clock: The time it lives in.
        tokens: Counts the tokens of a text.
        mutate: Called with every request and its honest reply; what it returns goes out instead.
    """

    honest: Callable[[Request], Reply]
    ledger: Ledger
    script: Script
    buckets: Buckets
    clock: Clock
    tokens: Callable[[str], int]
    mutate: Callable[[Request, Reply], Reply] | None = None

    def answer(self, request: Request, *, hasty: bool | None = None) -> Reply:
        """Answer one request; the reply's ``sent`` must be called when it has gone out.

        Args:
            request: With its body.
            hasty: False if `early` was asked before.
        """
        asked = cast("Asked", self.ledger.arrive(_asked(request), self.clock.now()))
        try:
            reply, right = self._reply(request, asked, hasty=hasty)
        except BaseException:
            self.ledger.leave(asked, None, self.clock.now(), delivered=False)
            raise
        return self._signed(asked, reply, right=right)

    def early(self, head: Request) -> Reply | None:
        """Answer before the body has come, if that was ordered."""
        if not self.script.hasty:
            return None
        rules: list[Rule] = []

        def wanted(asked: Asked) -> bool:
            rule = self.script.take(asked, hasty=True)
            rules.extend([] if rule is None else [rule])
            return rule is not None

        asked = self.ledger.arrive(_asked(head), self.clock.now(), wanted)
        return None if asked is None else self._signed(asked, _instead(rules[0].fault), right=False)

    def _reply(self, request: Request, asked: Asked, *, hasty: bool | None) -> tuple[Reply, bool]:
        """What goes out, and whether it is the honest answer."""
        rule = self.script.take(asked, hasty=hasty)
        if rule is not None and rule.fault.instead:
            return _instead(rule.fault), False
        full, told = self.buckets.take(self._cost(asked), self.clock.now())
        if full is not None:
            if rule is not None:
                self.script.give_back(rule)
            return full, False
        honest = self.honest(request)
        if honest.status == _OK:
            self.ledger.charge(asked)
        sent = honest if self.mutate is None else self.mutate(request, honest)
        right = sent == honest and honest.status == _OK
        if rule is not None:
            sent = replace(rule.fault.spoilt(sent), fault=rule.fault)
        return replace(sent, headers={**sent.headers, **told}), right

    def _cost(self, asked: Asked) -> int:
        counted = self.buckets.of_tokens and asked.endpoint == "embeddings"
        return sum(map(self.tokens, asked.inputs)) if counted else 0

    def _signed(self, asked: Asked, reply: Reply, *, right: bool) -> Reply:
        headers = {"x-request-id": f"req_fake_{asked.number:06}", **reply.headers}
        fault = reply.fault
        if fault is not None:
            headers, right = fault.relabelled(headers), right and fault.harmless
        made = replace(reply, headers=headers)

        def sent(whole: bool) -> None:  # noqa: FBT001 -- as `Reply.sent` is called
            self.ledger.leave(asked, made, self.clock.now(), delivered=right and whole)

        return replace(made, sent=sent)


def _instead(fault: Fault) -> Reply:
    return replace(fault.error(), fault=fault)


def _asked(request: Request) -> Asked:
    fields, inputs = _contents(request)
    return Asked(request.method, request.path, request.endpoint, fields, inputs, request.headers)


def _contents(request: Request) -> tuple[dict[str, Any], tuple[str, ...]]:
    content_type = request.headers.get("content-type", "")
    try:
        if content_type.startswith("multipart/"):
            return _form_contents(forms.parse(content_type, request.body))
        body = json.loads(request.body)
    except ValueError:
        return {}, ()
    if not isinstance(body, dict):
        return {}, ()
    fields = cast("dict[str, Any]", body)
    given = fields.get("input")
    inputs = cast("list[object]", given) if isinstance(given, list) else [] if given is None else [given]
    return fields, tuple(map(str, inputs))


def _form_contents(form: forms.Form) -> tuple[dict[str, Any], tuple[str, ...]]:
    fields: dict[str, Any] = {}
    for name, value in form.fields:
        fields.setdefault(name, []).append(value)
    return fields, tuple(digest(upload.data) for upload in form.files.values())
