"""The public face of micro_step: how sure language models are at each token, and how much faster they could write.

    import micro_step as ms

    result = ms.compare("tiny-base", "tiny-sft", "Once upon a time there was a cat.")
    result.summary, result.table, result.figure("line")
    result.export("strip.svg", "strip")

A model is a catalog name, a hub id, a folder, a `.gguf` file, a `ModelSpec`, or what `load` returned. A text is a
string, a `Document`, or a list of messages such as {"role": "user", "content": "..."}. Every function but `load`
returns a `Result`. An error that a user can cause is a `MicroStepError`.

Torch and transformers are imported when a function is first used. Afterwards, or as soon as something else imports
them, `AutoModelForCausalLM.from_pretrained` opens checkpoints of micro_step models as well.
"""

from __future__ import annotations

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from micro_step import auto_classes as _auto_classes
from model.errors import (
    ExportError,
    LicenceNeeded,
    MicroStepError,
    ModelBroken,
    ModelError,
    ModelNotFound,
    NumericalError,
    TextError,
    TooLarge,
)
from model.hub.spec import ModelSpec
from model.text.document import Document

if TYPE_CHECKING:
    from analysis.answer import Result
    from micro_step.corpora import rank_documents, score_corpus
    from micro_step.evaluation import evaluate, report, samples
    from micro_step.generation import generate
    from micro_step.inputs import load
    from micro_step.inspection import attention, attribute, depth, micro_attention
    from micro_step.logs import runs
    from micro_step.segmentation import segment, solve
    from micro_step.training import train
    from micro_step.uncertainty import compare, score, score_table

__all__ = [
    "Document",
    "ExportError",
    "LicenceNeeded",
    "MicroStepError",
    "ModelBroken",
    "ModelError",
    "ModelNotFound",
    "ModelSpec",
    "NumericalError",
    "Result",
    "TextError",
    "TooLarge",
    "attention",
    "attribute",
    "compare",
    "depth",
    "evaluate",
    "generate",
    "load",
    "micro_attention",
    "rank_documents",
    "report",
    "runs",
    "samples",
    "score",
    "score_corpus",
    "score_table",
    "segment",
    "solve",
    "train",
]

_LATER = {  # names whose modules bring torch or pandas, and the modules
    "Result": "inputs",
    "attention": "inspection",
    "attribute": "inspection",
    "compare": "uncertainty",
    "depth": "inspection",
    "evaluate": "evaluation",
    "generate": "generation",
    "load": "inputs",
    "micro_attention": "inspection",
    "report": "evaluation",
    "runs": "logs",
    "samples": "evaluation",
    "rank_documents": "corpora",
    "score": "uncertainty",
    "score_corpus": "corpora",
    "score_table": "uncertainty",
    "segment": "segmentation",
    "solve": "segmentation",
    "train": "training",
}

_auto_classes.register_auto_classes()


def __getattr__(name: str) -> object:
    """Import a function when it is first used.

    Raises:
        MicroStepError: it needs packages of an extra.
    """
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = _import_module(f"{__name__}.{_LATER[name]}")
    except ModuleNotFoundError as error:
        extra = {"train": "train", "evaluate": "evals"}.get(name)
        if extra is None:
            raise
        package = (error.name or "").partition(".")[0]
        raise MicroStepError(f"{name} needs the package {package}: pip install 'micro_step[{extra}]'") from error
    globals()[name] = found = getattr(module, name)
    return found


def __dir__() -> list[str]:
    """What completion offers."""
    return __all__
