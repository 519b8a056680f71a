"""The quantities that can be attributed: a number that a model gives at one token, as a function F of embeddings.

F maps rows of embeddings [R, n, D] to [R], in float32 and with gradients. Positions that are not attributed (BOS, the
template's tokens, and a token that is only scored) are part of every row, and keep their embedding in baselines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from analysis.attribution.options import Baseline
from analysis.attribution.quantities import BASELINES, QUANTITIES, AttributionTarget, Bools, eligible
from model.arguments import check_choice
from model.causal_lm.forward import body, check_readable, family_of, logits_of, token_model
from model.causal_lm.partial_adapter import adapter_acting
from model.causal_lm.probe import FAULTS, once, some_ids
from model.errors import MicroStepError, ModelError, first_line
from model.hub.loading import LoadedModel
from model.text.document import TEMPLATE
from model.text.encoding import EncodedText

if TYPE_CHECKING:
    from model.micro_step.modeling import MicroStepForCausalLM

_ROWS = 8192  # rows of the vocabulary that are averaged at once
_CLOSE = {torch.float32: 1e-3, torch.float64: 1e-6}  # as a share of the states' norm; 5e-2 in other precisions
_LEAST = -1e4  # lower log-probabilities are clamped to this: p is 0 either way, and p log p keeps a gradient


@dataclass(frozen=True, eq=False)
class Problem:
    """F at one token of one text, and the row of n embeddings to which it is attributed."""

    quantity: AttributionTarget
    target: int  # t, index of the token among the encoded ones
    lead: int  # positions that the tokenizer adds before the first token
    inputs: Tensor  # [1, n, D] float32; two models side by side, A's embeddings first
    attributed: Bools  # [n] whether a position is attributed
    score: Callable[[Tensor], Tensor]  # F: [R, n, D] -> [R] float32
    models: tuple[LoadedModel, ...]

    def baseline(self, name: Baseline) -> Tensor:
        """[1, n, D] the row in which all attributed positions hold the baseline embedding.

        Raises:
            MicroStepError: the baseline does not exist, or needs a padding or end token that the model lacks.
        """
        check_choice("baseline", name, BASELINES)
        vector = torch.cat([baseline_vector(loaded, name) for loaded in self.models])
        attributed = torch.as_tensor(self.attributed, device=self.inputs.device)[None, :, None]
        return torch.where(attributed, vector.to(self.inputs), self.inputs)

    def value(self, row: Tensor) -> float:
        """F of one row [1, n, D]."""
        with torch.no_grad():
            return float(self.score(row)[0])


def baseline_vector(loaded: LoadedModel, name: Baseline) -> Tensor:
    """[d] float32 the embedding that replaces a removed token."""
    embed = loaded.model.get_input_embeddings()
    weight = embed.weight
    if name == "zero":
        return torch.zeros(weight.shape[1], device=weight.device)
    with torch.no_grad():
        if name == "eos":
            known = (loaded.tokenizer.pad_token_id, loaded.tokenizer.eos_token_id)
            token = next((int(i) for i in known if i is not None), None)
            if token is None:
                raise MicroStepError(
                    f"{loaded.facts.name} has neither a padding token nor an end token; choose mean or zero"
                )
            return cast(Tensor, embed(torch.tensor([token], device=weight.device)))[0].float()
        ids = torch.arange(weight.shape[0], device=weight.device)
        sums = sum(embed(part).double().sum(0) for part in torch.split(ids, _ROWS))
        return (cast(Tensor, sums) / len(ids)).float()


def problem(
    models: Sequence[LoadedModel], encoded: EncodedText, quantity: str, target: int, starts: Bools | None = None
) -> Problem:
    """F at a token of a text.

    Args:
        models: the model; for `kl`, A and B. Of a micro_step model the base is used, except for its own quantities.
        encoded: N tokens, the same for all models.
        quantity: a name in `QUANTITIES`.
        target: t, the token at which F is read.
        starts: [N] where segments start, for quantities of a micro_step model.
    """
    check_choice("quantity", quantity, QUANTITIES)
    what = QUANTITIES[quantity]
    if not 0 <= target < len(encoded):
        raise MicroStepError(f"there is no token {target}: the text has {len(encoded)}, counted from 0")
    lead = len(encoded.prefix)
    own = encoded.role[:target] != TEMPLATE
    if not own.any():
        raise MicroStepError(f"no token before token {target} can be attributed its {what.title}")
    if len(models) != 1 + what.pair:
        raise MicroStepError(f"{what.title} needs {1 + what.pair} model{'s' * what.pair}, got {len(models)}")
    extra = int(
        quantity == "micro_confidence"
    )  # the target is read too, since only it shows that the segment continues
    ids = np.concatenate([np.asarray(encoded.prefix, dtype=np.int64), encoded.ids[: target + extra]])
    for loaded in models:
        check_readable(loaded.model, [ids], len(ids))
    parts = [_embedded(loaded.model, ids) for loaded in models]
    attributed = np.concatenate([np.zeros(lead, dtype=bool), own, np.zeros(extra, dtype=bool)])
    if what.segmented:
        score = _of_segments(models[0], encoded, what, target, starts, torch.as_tensor(ids)[None])
    else:
        for loaded, part in zip(models, parts, strict=True):
            _check_embeddings(loaded, ids, part)
        widths = [part.shape[-1] for part in parts]
        token_models = [token_model(loaded.model) for loaded in models]
        actual = int(encoded.ids[target])

        def score(e: Tensor) -> Tensor:
            logs = [
                _log_p(model, part) for model, part in zip(token_models, torch.split(e, widths, dim=-1), strict=True)
            ]
            if quantity == "surprisal":
                return -logs[0][:, actual]
            if quantity == "entropy":
                return -(logs[0].exp() * logs[0]).sum(-1)
            if logs[0].shape != logs[1].shape:
                raise ModelError(f"no KL between vocabularies of {logs[0].shape[1]} and {logs[1].shape[1]} entries")
            return (logs[0].exp() * (logs[0] - logs[1])).sum(-1)

    return Problem(what, target, lead, torch.cat(parts, dim=-1), attributed, score, tuple(models))


def _embedded(model: PreTrainedModel, ids: NDArray[np.int64]) -> Tensor:
    with torch.no_grad():
        return cast(Tensor, model.get_input_embeddings()(torch.as_tensor(ids, device=model.device)[None])).float()


def _last_state(model: PreTrainedModel, e: Tensor) -> Tensor:
    """[R, d] the body's last hidden states at the last position of rows of embeddings."""
    mask = torch.ones(e.shape[:2], dtype=torch.long, device=e.device)
    e = e.to(model.dtype)
    return cast(Tensor, body(model)(inputs_embeds=e, attention_mask=mask, use_cache=False).last_hidden_state[:, -1])


def _log_p(model: PreTrainedModel, e: Tensor) -> Tensor:
    """[R, V] log-probabilities of the next token after rows of embeddings, in float32."""
    return _log_softmax(logits_of(model, _last_state(model, e.to(model.device)))).to(e.device)


def _log_softmax(logits: Tensor) -> Tensor:
    return logits.float().log_softmax(-1).clamp(min=_LEAST)


def _check_embeddings(loaded: LoadedModel, ids: NDArray[np.int64], e: Tensor) -> None:
    """Raise ModelError if a model has no gradient, or depends on more than its token embeddings."""
    if why := once(loaded.model, "gradient", lambda: _no_gradient(loaded.model)):
        raise ModelError(f"{family_of(loaded.model)} gives no gradient with respect to its embeddings: {why}")
    with torch.no_grad():
        read = body(loaded.model)(input_ids=torch.as_tensor(ids, device=e.device)[None], use_cache=False)
        ours, theirs = _last_state(loaded.model, e).double(), read.last_hidden_state[:, -1].double()
    off = float((ours - theirs).norm() / theirs.norm().clamp(min=1e-12))
    if off > _CLOSE.get(loaded.model.dtype, 5e-2):
        raise ModelError(f"{loaded.facts.name} reads more than its token embeddings: it cannot be attributed to them")


def _no_gradient(model: PreTrainedModel) -> str | None:
    """Why a model's last state has no gradient; None if it has one."""
    with torch.no_grad():
        e = model.get_input_embeddings()(some_ids(model))
    try:
        with torch.enable_grad():
            e = e.detach().requires_grad_()
            torch.autograd.grad(_last_state(model, e).float().square().sum(), e)
    except FAULTS as error:
        return first_line(error)
    return None


def _of_segments(
    loaded: LoadedModel, encoded: EncodedText, what: AttributionTarget, target: int, starts: Bools | None, ids: Tensor
) -> Callable[[Tensor], Tensor]:
    """F for a micro_step model's own quantities."""
    if loaded.model.config.model_type != "micro_step":
        raise MicroStepError(f"{what.title} needs a micro_step model, and {loaded.facts.name} is not one")
    model = cast("MicroStepForCausalLM", loaded.model)
    if starts is None or starts.shape != (len(encoded),):
        raise MicroStepError(f"{what.title} needs the segments of all {len(encoded)} tokens")
    if what.name == "stop" and model.stop is None:
        raise MicroStepError(f"{loaded.facts.name} has no stop head: its segments end by confidence")
    most = model.config.max_segment_length
    if not eligible(encoded, what.name, starts, most)[target]:
        raise MicroStepError(_why_not(encoded, what, target, most))
    lead = len(encoded.prefix)
    whole = np.concatenate([np.ones(lead, dtype=bool), starts])[: ids.shape[1]]
    whole[:2] = True
    opened = int(np.flatnonzero(whole)[-1])  # where the last segment starts
    segments, ids = torch.as_tensor(whole, device=model.device)[None], ids.to(model.device)
    given = torch.tensor([lead + encoded.given], device=model.device)

    def unmerged(e: Tensor) -> Tensor:
        """[R, d] the micro decoder's state before the target if the base reads single tokens."""
        n = opened
        mask = torch.ones(e.shape[0], n, dtype=torch.long, device=e.device)
        position = torch.arange(n, device=e.device).expand(e.shape[0], -1)
        with adapter_acting(position >= given[:, None]):
            macro = model.macro(e[:, :n], mask, position)
        states, _ = model.micro(macro.context[:, -1], e[:, n : lead + target])
        return cast(Tensor, states[:, -1])

    def score(e: Tensor) -> Tensor:
        e = e.to(device=model.device, dtype=model.dtype)
        rows = {
            "input_ids": ids.expand(len(e), -1),
            "segment_starts": segments.expand(len(e), -1),
            "inputs_embeds": e,
            "prompt": given.expand(len(e)),
        }
        lossless = model.config.decoding == "lossless"
        if what.name == "stop":
            if lossless and model.stop is not None:
                return model.stop_logits(unmerged(e))
            return cast(Tensor, model(**rows, every_segment=True, logits_to_keep=1).stop_logits[:, -1])
        logits = logits_of(model, unmerged(e)) if lossless else model(**rows, logits_to_keep=2).logits[:, -2]
        return _log_softmax(logits).amax(-1).exp()

    return score


def _why_not(encoded: EncodedText, what: AttributionTarget, target: int, most: int) -> str:
    if what.name == "micro_confidence":
        return f"token {target} starts a segment, so the base predicts it; choose a token inside a segment"
    if target < 2 - len(encoded.prefix):
        return f"no segment could end before token {target}: choose a later one"
    return f"the segment before token {target} is full ({most} tokens) and ends in any case; choose another token"
