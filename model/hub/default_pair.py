"""The two models that the app opens with, and why."""

from dataclasses import dataclass

from model.hub.fetch import is_cached


@dataclass(frozen=True)
class DefaultPair:
    """The two models that the first screen compares, and why."""

    a: str
    b: str
    why: str  # one sentence for the user


_TRAINED = DefaultPair(
    "smollm2-135m-instruct",
    "micro-step-smollm2-135m",
    "SmolLM2 135M Instruct beside the micro_step model that this project trained on answers of its own: one tokenizer, "
    "so every difference at a token comes from that training.",
)
_TINY = DefaultPair(
    "tiny-base",
    "tiny-sft",
    "A tiny model trained in this project, before and after supervised fine-tuning: it comes with the project and "
    "needs no download; fetch smollm2-135m-instruct to open with a real one.",
)
PAIRS = (_TINY, _TRAINED)


def default_pair(offline_ok: bool = True) -> DefaultPair:
    """Return the pair for the first screen: the micro_step model beside its base, if that is here or may be fetched."""
    return _TRAINED if not offline_ok or is_cached(_TRAINED.a) else _TINY
