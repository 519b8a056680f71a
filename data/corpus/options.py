"""How a corpus is scored: what a user may choose. Light: for command lines, before torch is needed."""

from __future__ import annotations

from dataclasses import dataclass

SHARD_TOKENS = 65_536  # what a kill costs at most: about two minutes on two cores, two seconds on a GPU


@dataclass(frozen=True)
class CorpusOptions:
    """How a corpus is scored."""

    chat: bool = False
    force_bos: bool = False
    template: tuple[tuple[str, str], ...] | None = None
    """Arguments of the chat template, as JSON by name."""
    template_date: str | None = None
    """YYYY-MM-DD, for templates that write the day's date; None: that of the store, or today's."""
    windows: bool = False
    """Cut longer documents into windows, each scored as a text of its own; otherwise their ends are left out."""
    window_characters: int | None = None
    """Cut documents into windows of at most so many characters instead: the same texts under every model."""
    max_tokens: int | None = None
    """Of a document, or of a window; None: the model's context, or what memory holds of it."""
    limit_tokens: int | None = None
    """Stop after so many tokens."""
    shard_tokens: int = SHARD_TOKENS
    batch_tokens: int | None = None
    """Tokens of a batch, padding included; None: what memory holds. Scores do not depend on it."""
