"""Find out about a model by letting it read a few tokens, instead of looking its family up by name.

Each answer costs a few short passes, once per model. It depends only on the family and its settings, so it is kept on
the model.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import PreTrainedModel

from model.causal_lm.parts import body, family_of, head_logits, text_config, token_model
from model.errors import ModelError, first_line

TOKENS = 7  # number of tokens read at a time
_CLOSE = {torch.float64: 1e-6, torch.float32: 1e-4}  # share of the largest number; 5e-2 for others

FAULTS = (
    TypeError,
    ValueError,
    RuntimeError,
    AttributeError,
    KeyError,
    IndexError,
    AssertionError,
    StrictDataclassError,  # raised by configurations
)

Answer = TypeVar("Answer")


def once(model: PreTrainedModel, what: str, find: Callable[[], Answer]) -> Answer:
    """Return what `find` finds out, called once per model, precision and attention implementation."""
    model = token_model(model)
    known: dict[Any, Any] = model.__dict__.setdefault("_micro_step_found", {})
    key = what, model.dtype, str(model.config._attn_implementation)
    if key not in known:
        with torch.no_grad():
            known[key] = find()
    answer: Answer = known[key]
    return answer


def close(a: Tensor, b: Tensor) -> bool:
    """True if two results of one computation are equal up to rounding. NaN equals NaN."""
    if a.shape != b.shape:
        return False
    scale = float(b.detach().double().nan_to_num().abs().max().clamp(min=1e-12)) if b.numel() else 1.0
    limit = _CLOSE.get(a.dtype, 5e-2) * scale
    return bool(torch.allclose(a.double(), b.double(), rtol=0, atol=limit, equal_nan=True))


def some_ids(model: PreTrainedModel, rows: int = 1, tokens: int = TOKENS) -> Tensor:
    """Return [rows, tokens] ordinary token ids, without repetition if there are enough.

    None of them stands for padding or an image.
    """
    known = model.get_input_embeddings().weight.shape[0]
    settings = {**token_model(model).config.to_dict(), **text_config(model).to_dict()}
    special = {value for name, value in settings.items() if "token" in name and isinstance(value, int)}
    ordinary = [i for i in range(min(known, 4 * rows * tokens + 64)) if i not in special] or [0]
    count = rows * tokens
    step = max(1, len(ordinary) // count)
    chosen = [ordinary[-1 - (i * step) % len(ordinary)] for i in range(count)]
    return torch.tensor(chosen, device=model.device).view(rows, tokens)


def parted(model: PreTrainedModel) -> bool:
    """True if body and head, run one after the other, give what the family's own `forward` gives.

    Raises:
        ModelError: the model cannot be run on text alone, or reads tokens in both directions.
    """
    model = token_model(model)
    return model.training or once(model, "parted", lambda: _is_parted(model))


def _is_parted(model: PreTrainedModel) -> bool:
    ids = some_ids(model)
    try:
        whole: Tensor = model(input_ids=ids, use_cache=False).logits[0]
        shorter: Tensor = model(input_ids=ids[:, :-2], use_cache=False).logits[0]
    except FAULTS as error:
        raise ModelError(f"{family_of(model)} cannot be run on text alone: {first_line(error)}") from error
    change = (whole[:-2] - shorter).abs().amax(-1).double()
    if float(change.median()) > _CLOSE.get(whole.dtype, 5e-2) * float(whole.double().std()):
        raise ModelError(
            f"{family_of(model)} changes its prediction for a token when other tokens follow, so the token has no score"
            " of its own; only left-to-right models can be used"
        )
    try:
        hidden = body(model)(input_ids=ids, use_cache=False).last_hidden_state
        return close(head_logits(model, hidden[0]), whole)
    except FAULTS:
        return False
