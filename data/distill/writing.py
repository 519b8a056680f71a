"""Generate answers: prompts to batches, batches to text, by the base alone.

The base generates as the first token of every macro step of a micro_step model that never continues (tau above 1).
These are its own answers, in batches that rows leave when they end, which is faster than `generate`. This module knows
nothing about files.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from data.distill.answers import DistilledAnswer, DistillOptions, Prompt
from model.causal_lm.device_memory import available_memory
from model.causal_lm.forward import context_length, text_config, token_model, vocabulary
from model.causal_lm.padding import left_padded
from model.decoding.output import RowOutput
from model.errors import TextError, TooLarge
from model.hub import memory
from model.hub.loading import LoadedModel
from model.micro_step.modeling import MicroStepForCausalLM
from model.text.chat_template import template_settings
from model.text.document import Document, Message, TextInput
from model.text.encoding import encode

MAX_ROWS = {"cpu": 48, "cuda": 256, "mps": 64}  # larger batches are not faster
Count = Callable[[int, int], None]  # receives the numbers of new tokens and of finished answers


@dataclass(frozen=True)
class _EncodedPrompt:
    place: int  # index in its shard
    ids: tuple[int, ...]


class AnswerWriter:
    def __init__(self, loaded: LoadedModel, options: DistillOptions, begun: Mapping[str, Any] | None = None) -> None:
        self.loaded = loaded
        self.base = token_model(loaded.model)
        self._typical = 2 * options.max_new_tokens + 512  # tokens of a typical row, for which batches are planned
        begun = begun or {}
        date = options.template_date or begun.get("template_date")
        if loaded.tokenizer.chat_template:  # all answers are to prompts of one day
            _, written = template_settings(loaded.tokenizer, options.template or (), date)
            date = written or date
        rows = options.batch_rows or begun.get("batch_rows")
        if rows is None:
            rows = MAX_ROWS[self.base.device.type]
            while rows > 1 and 2 * self._room(rows, self._typical) > available_memory(self.base.device):
                rows //= 2
        self.options, self._rows = replace(options, batch_rows=rows, template_date=date), rows
        with torch.random.fork_rng(devices=[self.base.device] if self.base.device.type == "cuda" else []):
            self._model = MicroStepForCausalLM.from_base(
                self.base, loaded.tokenizer, merger="mean", micro_layers=1, micro_start="random", stop_head=False
            )
        if isinstance(loaded.model, MicroStepForCausalLM):  # its base's answers end where its own do
            self._model.generation_config = copy.deepcopy(loaded.model.generation_config)
        self._model.eval().requires_grad_(False)

    def answer(self, prompts: Sequence[Prompt], shard: int, count: Count) -> list[DistilledAnswer]:
        """Return answers to the prompts of one shard, in their order."""
        answers: dict[int, DistilledAnswer] = {}
        prompts_read: list[_EncodedPrompt] = []
        for place, prompt in enumerate(prompts):
            try:
                prompts_read.append(_EncodedPrompt(place, self._read(prompt)))
            except (TextError, TooLarge) as error:
                answers[place] = _answered(prompt, "", 0, False, str(error))
        count(0, len(answers))
        for number, batch in enumerate(self._batches(prompts_read)):
            seed = int(np.random.SeedSequence([self.options.seed, shard, number]).generate_state(1)[0])
            for prompt_read, row in zip(
                batch, self._write([prompt_read.ids for prompt_read in batch], seed, count), strict=True
            ):
                answers[prompt_read.place] = self._answer(prompts[prompt_read.place], row)
        return [answers[place] for place in range(len(prompts))]

    def _batches(self, prompts: list[_EncodedPrompt]) -> Iterator[list[_EncodedPrompt]]:
        """Yield prompts of similar lengths, longest first; with its answer, each is at least half the first."""
        new, batch = self.options.max_new_tokens, list[_EncodedPrompt]()
        for prompt in sorted(prompts, key=lambda prompt: -len(prompt.ids)):
            if batch:
                longest = len(batch[0].ids) + new
                full = len(batch) == self._rows or (len(batch) + 1) * longest > self._rows * self._typical
                if full or 2 * (len(prompt.ids) + new) < longest:
                    yield batch
                    batch = []
            batch.append(prompt)
        if batch:
            yield batch

    def _read(self, prompt: Prompt) -> tuple[int, ...]:
        """Return the ids before the answer."""
        document = Document(prompt.messages, self.options.template or (), self.options.template_date)
        encoded = encode(TextInput(document, chat=True), self.loaded.tokenizer, reply=True)
        ids = [*encoded.prefix, *encoded.ids.tolist()]
        if not ids:
            raise TextError("the prompt is empty")
        if max(ids) >= int(self.base.get_input_embeddings().weight.shape[0]):
            raise TextError("the prompt contains a special token that this model does not know")
        limit = context_length(self.base)
        if limit is not None and len(ids) + self.options.max_new_tokens > limit:
            raise TooLarge(
                f"{len(ids):,} prompt tokens and {self.options.max_new_tokens:,} new ones do not fit the model's"
                f" context of {limit:,}"
            )
        return tuple(ids)

    def _write(self, prompts: list[tuple[int, ...]], seed: int, count: Count) -> list[RowOutput]:
        options = self.options
        width = 1 + max(len(ids) for ids in prompts)  # with padding in every row, attention takes its fast path
        self._check_room(len(prompts), width + options.max_new_tokens)
        ids, mask = left_padded(prompts, width=width)
        settings: dict[str, Any] = {"do_sample": options.temperature > 0, "repetition_penalty": 1.0}
        if options.temperature > 0:
            settings |= {"temperature": options.temperature, "top_p": options.top_p, "top_k": 0}

        def on_segment(_: int, row: RowOutput) -> None:
            count(1, int(row.ended or len(row.ids) == options.max_new_tokens))

        generation = self._model.generate_segments(
            ids.to(self.base.device),
            mask.to(self.base.device),
            confidence=2.0,  # only the base generates
            verify=False,
            max_new_tokens=options.max_new_tokens,
            seed=seed,
            on_segment=on_segment,
            **settings,
        )
        return list(generation.rows)

    def _answer(self, prompt: Prompt, row: RowOutput) -> DistilledAnswer:
        ids = row.ids[:-1] if row.ended else row.ids
        text = self.loaded.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if not row.ended:
            text = text.rstrip("\N{REPLACEMENT CHARACTER}")  # part of a character that was truncated
        return _answered(prompt, text, len(ids), row.ended)

    def _check_room(self, rows: int, tokens: int) -> None:
        """Raise TooLarge if a batch of this many rows and tokens per row does not fit."""
        need = self._room(rows, tokens)
        available = available_memory(self.base.device)
        if need > 0.9 * available:
            raise TooLarge(
                f"{rows} answers at once need {need / 1e9:.2f} GB, but only {available / 1e9:.2f} GB are free; give"
                " fewer rows a batch, fewer new tokens, or a smaller dtype or model"
            )

    def _room(self, rows: int, tokens: int) -> int:
        """Return the bytes for the pass over the prompts, keys and values of all tokens, and the logits of one step."""
        config = text_config(self.base)
        heads = int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
        size = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
        layers = int(config.num_hidden_layers) + 1  # one layer is copied as it grows
        pairs = 2 * layers * heads * size * tokens * rows * self.base.dtype.itemsize
        logits = 4 * 4 * rows * vocabulary(self.base)
        return int(pairs + logits) + memory.estimate_memory(self.loaded, tokens, rows).run


def _answered(prompt: Prompt, text: str, tokens: int, ended: bool, problem: str | None = None) -> DistilledAnswer:
    messages = (*prompt.messages, Message("assistant", text))
    return DistilledAnswer(prompt.source, prompt.number, messages, tokens, ended, problem)
