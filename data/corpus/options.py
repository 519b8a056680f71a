"""The user's options for scoring a corpus. This module is light, for command lines that do not need torch yet."""

from dataclasses import dataclass

from data.states.spec import StatesSpec

SHARD_TOKENS = 65_536  # the most that a kill can cost: about two minutes on two cores, two seconds on a GPU


@dataclass(frozen=True)
class CorpusOptions:
    chat: bool = False
    force_bos: bool = False
    template: tuple[tuple[str, str], ...] | None = None  # arguments of the chat template, as JSON by name
    template_date: str | None = None
    """YYYY-MM-DD, for templates that write the date; None: the store's date, or today's."""
    windows: bool = False
    """Divide longer documents into windows, each scored as a text of its own; otherwise their ends are left out."""
    window_characters: int | None = None
    """Divide documents into windows of at most this many characters instead: the same texts under every model."""
    max_tokens: int | None = None
    """Limit for a document or a window; None: the model's context, or what fits into memory."""
    limit_tokens: int | None = None  # stop after this many tokens
    shard_tokens: int = SHARD_TOKENS
    batch_tokens: int | None = None
    """Tokens of a batch, including padding; None: what fits into memory. Scores do not depend on it."""
    states: StatesSpec | None = None  # what else to keep of the pass; the scores do not depend on it
