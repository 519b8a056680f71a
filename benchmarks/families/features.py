"""What works with which family: a tiny random model of each is saved, loaded, and put through every feature.

A feature counts as working where its numbers equal a reference: the family's own whole `forward` alone, in float64
where the family can be run so. A refusal in one sentence is told as such; anything else is a fault, and is told as one.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from analysis.attention.overview import overview
from analysis.attention.passes.attend import encode_whole, read
from analysis.attribution.targets import problem
from analysis.uncertainty.compare import continued
from analysis.uncertainty.result import ScoredText
from analysis.uncertainty.scoring import score_document, score_limited
from benchmarks.families.tiny_models import VOCABULARY, tiny_family
from model.causal_lm.padding import left_padded
from model.causal_lm.parts import body, layers_of, text_config
from model.causal_lm.probe import FAULTS
from model.decoding.generation_config import end_ids
from model.errors import MicroStepError
from model.hub.loading import LoadedModel, ModelSpec, load
from model.hub.wrap_base import wrap
from model.scoring.logit_lens import score_layers
from model.text.document import TextInput

TEXT = "The cat sat down."
NEW = 8  # tokens that are written
CLOSE = 2e-4  # nats, and probabilities; relative above 1
PROMPTS = ([60, 61, 62, 63, 64, 65, 66], [70, 71, 72, 73])  # ids


class Wrong(Exception):
    """A feature ran, and its numbers are not the reference's."""


@dataclass(frozen=True)
class Family:
    """A row of the table."""

    name: str
    kind: str  # the class that transformers loads
    cells: dict[str, str]  # by feature: "yes", or what is the case
    faults: tuple[str, ...]  # features that are neither right nor refused


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, and three special tokens before them."""
    words = ["<pad>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=256
    )


def measure(name: str, folder: Path) -> Family:
    try:
        made = tiny_family(name)
        made.save_pretrained(folder)
    except Exception as error:  # noqa: BLE001 - whatever transformers raises for a configuration
        return Family(name, "", {"score": f"no tiny model can be built: {_short(error)}"}, ())
    tiny_tokenizer().save_pretrained(folder)
    kind = type(made).__name__
    loaded, reason = _outcome(lambda: load(ModelSpec(str(folder), device="cpu")))
    if loaded is None:
        cells = {"score": reason.replace(str(folder), "the model")}
    else:
        cells = {feature: _outcome(partial(check, loaded))[1] for feature, check in FEATURES.items()}
    faults = tuple(feature for feature, cell in cells.items() if cell.startswith(("WRONG", "FAULT")))
    return Family(name, kind, cells, faults)


def _outcome(run: Callable[[], Any]) -> tuple[Any, str]:
    """What a call gives, and the same in words: the text that it gives, "yes", a refusal, or a fault."""
    try:
        given = run()
    except MicroStepError as error:
        return None, _short(error)
    except Wrong as error:
        return None, f"WRONG: {error}"
    except Exception as error:  # noqa: BLE001 - told as a fault
        return None, f"FAULT: {type(error).__name__}: {_short(error)}"
    return given, given if isinstance(given, str) else "yes"


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:240] or type(error).__name__


# --- the reference


def whole_logits(model: PreTrainedModel, ids: NDArray[np.int64] | list[int]) -> Tensor:
    """[N, V] float64 logits of the family's own whole `forward`, run in float64 where it can be."""
    fed = torch.as_tensor(np.asarray(ids))[None]
    with torch.no_grad():
        try:
            logits: Tensor = copy.deepcopy(model).double()(input_ids=fed, use_cache=False).logits[0]
        except (RuntimeError, TypeError, ValueError):  # kernels of some families know no float64
            logits = model(input_ids=fed, use_cache=False).logits[0].double()
    return logits


def _differs(scored: ScoredText, logits: Tensor) -> None:
    """Raise Wrong where scores are not those of logits [N - 1, V] for the tokens 1 .. N - 1."""
    log_p = logits.log_softmax(-1)
    true = log_p.gather(1, torch.as_tensor(scored.encoded.ids[1:])[:, None])
    expected = {
        "entropy": -(log_p.exp() * log_p).sum(-1),
        "confidence": log_p.exp().amax(-1),
        "surprisal": -true[:, 0],
    }
    for name, reference in expected.items():
        off = np.abs(getattr(scored.scores, name)[1:] - reference.numpy()) / np.maximum(1, reference.numpy())
        if not off.max() < CLOSE:
            raise Wrong(f"{name} is off by {off.max():.1e}")
    least = 1 + (log_p > true + CLOSE).sum(-1).numpy()
    most = (log_p >= true - CLOSE).sum(-1).numpy()
    if not ((least <= scored.scores.rank[1:]) & (scored.scores.rank[1:] <= most)).all():
        raise Wrong("ranks differ")


# --- the features


def _score(loaded: LoadedModel) -> None:
    scored = score_document(loaded, TextInput.plain(TEXT))
    _differs(scored, whole_logits(loaded.model, scored.encoded.ids)[:-1])


def _continue(loaded: LoadedModel) -> None:
    scored = continued(loaded, TextInput.plain(TEXT), NEW)
    _differs(scored, whole_logits(loaded.model, scored.encoded.ids)[:-1])


def _greedy(model: PreTrainedModel, prompt: list[int], ends: set[int]) -> list[int]:
    """What the family's own whole `forward` writes greedily."""
    ids = list(prompt)
    for _ in range(NEW):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        if ids[-1] in ends:
            break
    return ids[len(prompt) :]


def _generate(loaded: LoadedModel, lossless: bool) -> None:
    model = wrap(loaded).model

    def write(prompts: Any, confidence: float) -> list[list[int]]:
        ids, mask = left_padded(prompts)
        options = {"confidence": confidence, "verify": lossless, "max_new_tokens": NEW, "do_sample": False}
        return [row.ids for row in model.generate_segments(ids, mask, **options).rows]

    def same_alone(confidence: float) -> list[list[int]]:
        together = write(PROMPTS, confidence)
        if together != [write([prompt], confidence)[0] for prompt in PROMPTS]:
            raise Wrong("a row alone writes something else than the same row in a batch")
        return together

    ends = set(end_ids(model))
    written = same_alone(0.0 if lossless else 1.1)  # above 1 every segment has one token
    if written != [_greedy(loaded.model, prompt, ends) for prompt in PROMPTS]:
        raise Wrong("it does not write what its base writes")
    if not lossless:
        same_alone(0.0)


def _attention(loaded: LoadedModel) -> str | None:
    encoded, notes = encode_whole(loaded, TextInput.plain(TEXT))
    reading = read(loaded, encoded, np.ones(len(encoded), dtype=bool), "every token", notes)
    seen = overview(loaded, reading)
    layers = loaded.facts.layers
    return None if len(seen.layers) == layers else f"yes, of {len(seen.layers)} of {layers} layers"


def _attribute(loaded: LoadedModel) -> None:
    scored = score_document(loaded, TextInput.plain(TEXT))
    target = len(scored.encoded) - 1
    asked = problem([loaded], scored.encoded, "entropy", target)
    e = asked.inputs.clone().requires_grad_()
    value = asked.score(e)
    (gradient,) = torch.autograd.grad(value.sum(), e)
    if not bool(gradient.isfinite().all()) or not bool(gradient.any()):
        raise Wrong("there is no gradient")
    if abs(float(value[0].detach()) - float(scored.scores.entropy[target])) > CLOSE:
        raise Wrong("the entropy that is attributed is not the one that is scored")


def _banded(loaded: LoadedModel) -> None:
    """A band as wide as the text is the full history, and a token out of a narrow band's reach has no effect."""
    text = TextInput.plain(TEXT[:8])
    whole, wide = score_document(loaded, text), score_limited(loaded, text, 8, "banded")
    if not np.allclose(whole.scores.entropy[1:], wide.scores.entropy[1:], atol=CLOSE):
        raise Wrong("a band as wide as the text changes its scores")
    narrow = [score_limited(loaded, TextInput.plain(first + TEXT[1:]), 2, "banded").scores.entropy for first in "TZ"]
    reach = loaded.facts.layers + 1
    if not np.allclose(narrow[0][reach + 1 :], narrow[1][reach + 1 :], atol=CLOSE):
        raise Wrong("what is out of its reach has an effect")


def _depth(loaded: LoadedModel) -> str | None:
    """After its first layer, the lens sees what the model predicts that ends there; after the last, the model's own."""
    scored, model = score_document(loaded, TextInput.plain(TEXT)), loaded.model
    _, layers = score_layers(model, scored.encoded.ids, scored.encoded.prefix)
    _differs(scored, whole_logits(model, scored.encoded.ids)[:-1])
    if not np.allclose(layers.entropy[-1, 1:], scored.scores.entropy[1:], atol=CLOSE):
        raise Wrong("the last layer does not predict what the model predicts")
    shorter = copy.deepcopy(model)
    del layers_of(body(shorter))[1:]
    text_config(shorter).num_hidden_layers = 1
    try:
        log_p = whole_logits(shorter, scored.encoded.ids)[:-1].log_softmax(-1)
    except FAULTS:  # its configuration names each layer
        return "yes, seen at its last layer"
    if not np.allclose(layers.entropy[1, 1:], -(log_p.exp() * log_p).sum(-1).numpy(), atol=CLOSE):
        raise Wrong("a model that ends after its first layer predicts something else")
    return None


FEATURES: dict[str, Callable[[LoadedModel], str | None]] = {
    "score": _score,
    "continue": _continue,
    "merged": partial(_generate, lossless=False),
    "lossless": partial(_generate, lossless=True),
    "attention": _attention,
    "attribution": _attribute,
    "depth": _depth,
    "banded": _banded,
}

assert VOCABULARY > 300, "bytes and special tokens have embeddings"
