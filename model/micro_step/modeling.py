"""The micro_step model: a merger, any decoder-only base that runs once per macro step, a micro decoder, a stop head.

The tokens of a row are divided into segments. The merger folds each segment's embeddings into one, and the base runs
over these (one rotary position per segment: that of its last token). From the base's states at macro step s come the
first token of segment s + 1, through the base's own head, and the others, through the micro decoder and the same head.
Published as M2D and as HAMburger (arXiv 2505.20438). Generation is in model/decoding.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedModel

from model.causal_lm.chunked_cross_entropy import HeadLoss, TopTeacher, chunked_lm_head_loss
from model.causal_lm.forward import logits_of, vocabulary
from model.decoding.generation_config import end_ids, inferred_mask
from model.decoding.merged import SegmentedGeneration, generate_segments
from model.errors import MicroStepError, ModelError
from model.micro_step.base_check import check_merge_layer
from model.micro_step.configuration import MicroStepConfig, check_fields
from model.micro_step.hidden_state_loss import hidden_error
from model.micro_step.macro_inputs import read_after_prompt, read_segments
from model.micro_step.outputs import Macro, Micro, MicroStepOutput
from model.micro_step.pretrained import MicroStepPreTrainedModel, move_weights
from model.micro_step.saving import base_reference, load_modules, save_modules
from model.micro_step.segment_layout import Layout, layout

_UNUSED_OPTIONS = {"local_files_only", "trust_remote_code", "cache_dir", "revision", "token", "use_safetensors"}


class MicroStepForCausalLM(MicroStepPreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """A base with a merger before it and a micro decoder after it."""

    @classmethod
    def from_base(cls, base: PreTrainedModel, tokenizer: Any = None, **config: Any) -> MicroStepForCausalLM:
        """Put fresh modules around a loaded base, which is shared, not copied.

        Args:
            base: any decoder-only language model.
            tokenizer: the base's; provides the end and padding tokens that the base's settings lack.
            config: fields of `MicroStepConfig`.

        Raises:
            ModelError: an unknown field, an unsuitable base, or one whose layers `merge_layer` cannot split.
        """
        check_fields(config)
        model: MicroStepForCausalLM = cls(MicroStepConfig(base.config, **config), base)
        if model.config.micro_start == "copied":
            model.micro.copy_last_layers(base)
        for module in (model.merger, model.micro, model.stop):
            if module is not None:
                move_weights(module, base.device, base.dtype)
        settings = model.generation_config
        settings.update(**{k: v for k, v in base.generation_config.to_dict().items() if v is not None})
        settings.eos_token_id = end_ids(base) or None
        for name in ("eos_token_id", "pad_token_id", "bos_token_id"):
            if getattr(settings, name) is None and tokenizer is not None:
                setattr(settings, name, getattr(tokenizer, name))
        check_merge_layer(model)
        model.train(base.training)
        return model

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> MicroStepForCausalLM:
        """Load like transformers; if a folder holds only the new modules, its base is fetched (see `load_modules`)."""
        path = pretrained_model_name_or_path
        if base_reference(path) is not None:
            kwargs.pop("config", None)
            loaded = load_modules(cls, path, **{k: v for k, v in kwargs.items() if k not in _UNUSED_OPTIONS})
            check_merge_layer(loaded)
            return loaded
        result = super().from_pretrained(
            path, *args, **kwargs
        )  # the model, or a tuple of the model and other requested values
        model = result[0] if isinstance(result, tuple) else result
        check_merge_layer(model)
        model.base.generation_config = copy.deepcopy(
            model.generation_config
        )  # the base's answers end where the model's do
        return cast(MicroStepForCausalLM, result)

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        if self.config.adapter is not None:
            raise ModelError("the base carries an adapter: call merge_adapter() first, or use save_modules()")
        super().save_pretrained(save_directory, **kwargs)

    def save_modules(
        self, folder: Any, base_name: str, revision: str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        """Save only the new modules and the adapter, with a reference to the base; see `model.micro_step.saving`."""
        save_modules(self, folder, base_name, revision, dtype)

    def _prepare_cache_for_generation(self, *_: Any, **__: Any) -> None:
        """Do nothing: the caches hold macro steps, and decoding creates them."""

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        segment_starts: Tensor | None = None,
        labels: Tensor | None = None,
        teacher_states: Tensor | TopTeacher | None = None,
        averaged_over: tuple[int, int] | None = None,
        every_segment: bool = False,
        prompt_gradients: bool = True,
        prompt: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        logits_to_keep: int = 0,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> MicroStepOutput:
        """Read rows of tokens that are divided into segments.

        Args:
            input_ids: [B, N].
            attention_mask: [B, N], 0 at padding, left or right; None: no padding.
            segment_starts: [B, N] bool; every prompt token starts a segment. None: every token does.
            labels: [B, N] the ids again, -100 where no loss is taken; not shifted. With labels no logits are kept.
            teacher_states: [B, N, d] states after the final norm whose distributions are the target, at t for token
                t + 1, for example the unmerged base's. NaN: no target. Or [B, N, K, d], the states of all context
                layers, which `hidden_weight` needs. Or the likeliest tokens of these distributions, [B, N, k].
            averaged_over: numbers of labelled tokens and of stops that the losses are averaged over, if this batch is
                part of a larger one; None: those of this batch.
            every_segment: run the micro decoder on all segments, for their `stop_logits`.
            prompt_gradients: False: read what comes before a row's first label without gradients; with labels, and
                padding on the right.
            prompt: [B] number of tokens before the first that the model writes, for one that reads them without its
                adapter; None: those before a row's first label, and without labels none.
            inputs_embeds: [B, N, d] used instead of the embeddings of `input_ids`, which still give the shape.
            logits_to_keep: number of last positions whose logits are returned; 0: all.
            output_attentions: needs a model with eager attention (`set_attn_implementation("eager")`).
            output_hidden_states: return states of the base's context layers and of the micro decoder.
        """
        if segment_starts is None:
            segment_starts = torch.ones_like(input_ids, dtype=torch.bool)
        for name, given in (("segment_starts", segment_starts), ("labels", labels)):
            if given is not None and given.shape != input_ids.shape:
                raise MicroStepError(
                    f"{name} must have input_ids' shape {list(input_ids.shape)}, got {list(given.shape)}"
                )
        max_length = self.config.max_segment_length
        plan = layout(segment_starts, attention_mask, max_length)
        if bool((plan.lengths[:, :1] > 1).any()):
            raise MicroStepError(
                "a row's first segment must be one token: no macro step before it could predict the others"
            )
        embeds = self.get_input_embeddings()(input_ids) if inputs_embeds is None else inputs_embeds
        if prompt is None and labels is not None:
            first = (labels != -100).long().argmax(1, keepdim=True)
            prompt = plan.position.gather(1, first)[:, 0].clamp(min=1)
        if labels is None or prompt_gradients:
            apart = None if self.config.prompt_adapter else prompt
            macro = read_segments(self, embeds, plan, output_attentions, apart)
        else:
            macro = read_after_prompt(self, embeds, plan, cast(Tensor, prompt))
        labelled = plan.real & (plan.position > 0) & (labels != -100) if labels is not None else None
        rows, segments = self.micro_segments(plan, labelled, every_segment)
        micro = self._micro_states(embeds, plan, macro, rows, segments, output_attentions)
        states = _at_tokens(macro.last, plan)
        inner = micro.inner
        states = states.index_put((micro.row[inner], micro.token[inner]), micro.states[inner])
        stops = self._stops(states, plan, micro)
        out = MicroStepOutput(micro_position=plan.slot, stop_logits=stops)
        if labelled is None:
            kept = states[:, -logits_to_keep:]  # -0: all
            shape = (*kept.shape[:2], vocabulary(self.base))
            out.logits = logits_of(self.base, kept.flatten(0, 1)).view(shape)
        else:
            self._losses(out, states, cast(Tensor, labels), labelled, plan, teacher_states, averaged_over)
            if isinstance(teacher_states, Tensor) and teacher_states.ndim == 4:
                error, out.hidden_count = hidden_error(macro.context, teacher_states, plan, labelled)
                out.hidden_loss = error / max(1, int(labelled.sum()) if averaged_over is None else averaged_over[0])
                out.loss = out.loss + self.config.hidden_weight * out.hidden_loss
        if output_hidden_states:
            out.hidden_states = macro.context.unbind(2)
            out.micro_hidden_states = micro.whole
        if output_attentions:
            out.macro_attentions, out.micro_attentions = macro.attentions, micro.attentions
        if output_hidden_states or output_attentions:
            out.micro_segments = torch.stack([rows, segments], 1)
        return out

    def micro_segments(self, plan: Layout, labelled: Tensor | None, every: bool = False) -> tuple[Tensor, Tensor]:
        """Return [Q] row and [Q] index of the segments that the micro decoder reads, never a row's first."""
        selected = plan.segments if every else plan.lengths > 1
        if labelled is not None and not every:
            used = torch.zeros_like(plan.lengths).scatter_add_(1, plan.segment, labelled.long()) > 0
            selected = used & (plan.segments if self.reads_ends else selected)
        after_first = torch.arange(selected.shape[1], device=selected.device) > 0
        rows, segments = (selected & after_first).nonzero(as_tuple=True)
        return rows, segments

    def _micro_states(
        self, embeds: Tensor, plan: Layout, macro: Macro, rows: Tensor, segments: Tensor, output_attentions: bool
    ) -> Micro:
        """Run the micro decoder over Q segments, once for each number of tokens that it has to read.

        To predict the tokens of a segment it reads all but the last one; to predict its end, that one too.
        """
        max_length = self.config.max_segment_length - 1
        lengths = plan.lengths[rows, segments]
        needed = lengths.clamp(max=max_length) if self.reads_ends else lengths - 1
        tokens, _ = plan.slots(rows, segments, max_length)
        valid = torch.arange(max_length, device=embeds.device) < needed[:, None]
        whole = embeds.new_zeros(len(rows), max_length, embeds.shape[-1], dtype=macro.last.dtype)
        attentions: tuple[Tensor, ...] | None = None
        for n in [max_length] if output_attentions else range(1, max_length + 1):
            chosen = (needed <= n if output_attentions else needed == n).nonzero()[:, 0]
            if not len(chosen):
                continue
            read = embeds[rows[chosen, None], tokens[chosen, :n]]
            context = macro.context[rows[chosen], segments[chosen] - 1]
            if window := self.config.micro_window:
                earlier = plan.before(rows[chosen], segments[chosen], window)
                context = torch.cat([embeds[rows[chosen, None], earlier].to(context.dtype), context], 1)
            states, attentions = self.micro(context, read, output_attentions=output_attentions)
            whole = whole.index_put((chosen[:, None], torch.arange(n, device=embeds.device)), states.to(whole.dtype))
        q, slot = valid.nonzero(as_tuple=True)
        return Micro(rows[q], tokens[q, slot], slot < lengths[q] - 1, whole[q, slot], whole, attentions)

    def _stops(self, states: Tensor, plan: Layout, micro: Micro) -> Tensor | None:
        """Return [B, N] logits that a segment ends after a token; states [B, N, d] predict the tokens after theirs."""
        if self.stop is None:
            return None
        out = torch.full(plan.real.shape, float("nan"), device=states.device)
        if self.reads_ends:
            return out.index_put((micro.row, micro.token), self.stop_logits(micro.states))
        row, token = (plan.position > 0).nonzero(as_tuple=True)
        return out.index_put((row, token), self.stop_logits(states[row, token - 1]))

    def _losses(
        self,
        out: MicroStepOutput,
        states: Tensor,
        labels: Tensor,
        labelled: Tensor,
        plan: Layout,
        teacher_states: Tensor | TopTeacher | None,
        averaged_over: tuple[int, int] | None,
    ) -> None:
        """Fill in the losses of an output."""
        row, token = labelled.nonzero(as_tuple=True)
        count = max(1, len(row) if averaged_over is None else averaged_over[0])
        states = states[row, token - 1]
        teacher: Tensor | TopTeacher | None = None
        if isinstance(teacher_states, TopTeacher):
            teacher = TopTeacher(*(each[row, token - 1] for each in teacher_states))
        elif teacher_states is not None:
            last = teacher_states if teacher_states.ndim == 3 else teacher_states[:, :, -1]
            theirs = last[row, token - 1].to(states.dtype)
            teacher = torch.where(theirs.isnan(), states.detach(), theirs)  # its own states teach nothing
        weight = torch.full((len(row),), 1 / count, device=states.device)
        weights = self.config.teacher_weight, self.config.token_weight
        head: HeadLoss = chunked_lm_head_loss(self.base, states, labels[row, token], weight, teacher, *weights)
        out.labelled, out.loss = labelled, head.loss
        out.token_loss = head.nll.sum() / count
        out.teacher_loss = head.divergence.sum() / count if teacher is not None else None
        out.nll = torch.full(labels.shape, float("nan"), device=states.device).index_put((row, token), head.nll)
        out.correct = torch.zeros_like(labelled).index_put((row, token), head.correct)
        if out.stop_logits is not None:
            self._stop_loss(out, out.stop_logits, labelled, plan, None if averaged_over is None else averaged_over[1])
            out.loss = out.loss + self.config.stop_weight * out.stop_loss

    def _stop_loss(
        self, out: MicroStepOutput, stop_logits: Tensor, labelled: Tensor, plan: Layout, count: int | None
    ) -> None:
        """Compute the stop loss over the labelled tokens that may end their segment; a row's last token is left out."""
        follows = torch.zeros_like(labelled)
        follows[:, :-1] = plan.real[:, 1:]
        free = plan.slot < self.config.max_segment_length - 1
        row, token = (labelled & follows & free & ~stop_logits.isnan()).nonzero(as_tuple=True)
        logits, ends = stop_logits[row, token], plan.starts[row, token + 1]
        every = F.binary_cross_entropy_with_logits(logits, ends.float(), reduction="sum")
        out.stop_loss = every / max(1, len(row) if count is None else count)
        out.stop_count = len(row)
        out.stop_correct = ((logits > 0) == ends).sum()

    def generate_segments(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any
    ) -> SegmentedGeneration:
        """Continue prompts segment by segment; see `model.decoding.merged.generate_segments` for the options."""
        return generate_segments(self, input_ids, attention_mask, **options)

    def generate(self, inputs: Tensor | None = None, generation_config: Any = None, **options: Any) -> Any:
        """Generate like transformers, but segment by segment; returns `SegmentedGeneration.sequences`.

        Without an attention mask, padding is inferred as transformers does it (`inferred_mask`).
        """
        ids, mask = options.pop("input_ids", inputs), options.pop("attention_mask", None)
        if ids is None:
            raise MicroStepError("there is nothing to continue: give input_ids")
        if mask is None:
            mask = inferred_mask(ids, generation_config or self.generation_config, options)
        return self.generate_segments(ids, mask, generation_config=generation_config, **options).sequences


def _at_tokens(last: Tensor, plan: Layout) -> Tensor:
    """Return [B, N, d], the base's state at each token's macro step: correct for tokens that end their segment."""
    batch = torch.arange(len(last), device=last.device)[:, None]
    return last[batch, plan.segment]


AutoModelForCausalLM.register(MicroStepConfig, MicroStepForCausalLM)
