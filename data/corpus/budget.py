"""The resources for scoring a corpus: documents and batches that fit the memory, and room on the disk."""

from dataclasses import replace
from typing import Any

from data.corpus.documents import Corpus
from data.corpus.options import CorpusOptions
from model.causal_lm.device_memory import available_memory
from model.causal_lm.forward import context_length
from model.errors import TooLarge
from model.hub.loading import LoadedModel
from model.hub.memory import estimate_memory, tokens_that_fit
from model.scoring.caveats import remarks
from model.scoring.engine import EngineModel
from model.scoring.token_scores import chunk_positions
from model.text.document import Document, TextInput
from model.text.encoding import encode, prefix_ids

MAX_BATCH_TOKENS = {"cpu": 4096, "cuda": 32_768, "mps": 8192}  # larger batches are not faster
BYTES_A_TOKEN = 24  # on disk, texts included, rounded up, to check that there is room


def resolve(
    loaded: LoadedModel, options: CorpusOptions, manifest: dict[str, Any] | None
) -> tuple[CorpusOptions, tuple[str, ...]]:
    """Fill in options that depend on model and memory, or take them from a begun store; and return its notes."""
    date = options.template_date or (manifest or {}).get("parameters", {}).get("template_date")
    document = replace(Document.plain("a"), arguments=options.template or (), date=date)
    probe = encode(TextInput(document, options.chat, options.force_bos), loaded.tokenizer)
    notes = remarks(loaded, probe, options.chat)
    device, chunk = loaded.model.device, chunk_positions(loaded.facts.vocab_size)
    context, elsewhere = context_length(loaded.model), isinstance(loaded, EngineModel)
    room = None if context is None else context + 1 - len(probe.prefix)  # the last token is never read
    fits = 1 << 62 if elsewhere else tokens_that_fit(loaded, device, chunk=chunk)
    if options.max_tokens is None and manifest is not None:
        longest = int(manifest["parameters"]["max_tokens"])
    else:
        longest = min(options.max_tokens or room or 1 << 20, room or 1 << 62)
        while options.max_tokens is None and longest > max(fits, 1):
            longest //= 2
    if longest > fits:
        raise TooLarge(
            f"documents of {longest:,} tokens do not fit the free memory, which holds {fits:,}; give a lower"
            " --max-tokens-per-document, a smaller dtype or model"
        )

    def batch_fits(tokens: int) -> bool:
        n = min(tokens, longest)
        return estimate_memory(loaded, n, max(1, tokens // n), chunk).run <= available_memory(device) / 2

    batch = loaded.engine.batch_tokens if isinstance(loaded, EngineModel) else options.batch_tokens
    if batch is None:
        batch = int(manifest["batch_tokens"]) if manifest else MAX_BATCH_TOKENS[device.type]
        while batch > 256 and not batch_fits(batch):
            batch //= 2
    return replace(options, max_tokens=longest, batch_tokens=batch, template_date=probe.date or date), notes


def longest_read(loaded: LoadedModel, options: CorpusOptions) -> int:
    """Return the most tokens that are read of a text: what stands before it, and all but its last token."""
    return len(prefix_ids(loaded.tokenizer, options.force_bos)) + max(1, options.max_tokens or 1) - 1


def expected_bytes(corpus: Corpus, options: CorpusOptions) -> int:
    """Return the approximate size of the store on disk: 4 characters per token, 3-fold compression."""
    if options.limit_tokens is not None:
        return options.limit_tokens * BYTES_A_TOKEN
    size, name = corpus.file_size, corpus.facts.name.lower()
    if (
        name.endswith((".txt", ".txt.gz"))
        and corpus.spec.documents == "file"
        and not (options.windows or options.window_characters)
    ):
        return (options.max_tokens or 0) * BYTES_A_TOKEN
    return 0 if size is None else size * (1 if name.endswith((".txt", ".jsonl")) else 3) // 4 * BYTES_A_TOKEN
