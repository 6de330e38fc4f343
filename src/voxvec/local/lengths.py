"""What both brains refuse for its length, in the words of a real server.

Pure. A text that is too long is refused and never cut: whoever asked could not see that its end is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from voxvec.local.exchange import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voxvec.models import EmbeddingModel

__all__ = ["check"]


def check(model: EmbeddingModel, counts: Sequence[int]) -> None:
    """Let texts pass that the model takes.

    Args:
        model: Whose limits.
        counts: Tokens of each text.

    Raises:
        Refusal: One is too long, or all together are.
    """
    longest, total = max(counts), sum(counts)
    if model.max_tokens is not None and longest > model.max_tokens:
        message = f"This model's maximum context length is {model.max_tokens} tokens, however"
        raise Refusal(
            f"{message} 'input[{counts.index(longest)}]' has {longest} tokens. Please reduce your prompt.",
            param="input",
            code="context_length_exceeded",
        )
    if model.max_request_tokens is not None and total > model.max_request_tokens:
        message = f"Requested {total} tokens, max {model.max_request_tokens} tokens per request"
        raise Refusal(message, param="input", code="max_tokens_per_request")
