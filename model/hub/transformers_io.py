"""Read a checked model folder with transformers: config, tokenizer, weights. Each failure becomes one clear sentence.

No pickle is opened; the folder's own code runs only if the spec allows it. Nothing is fetched.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.access import local_path
from model.errors import ModelBroken, ModelError, TooLarge, first_line
from model.git_lfs import pointer
from model.hub.spec import ModelSpec
from model.reading.json_text import parse_json
from model.reading.regular_files import read_text

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def read_config(spec: ModelSpec, folder: Path) -> Any:
    """Return the model's config after checking that it is a causal language model that may be loaded."""
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    raw = parse_json(read_text(folder / "config.json"))
    if raw.get("model_type") == "micro_step":
        import model.micro_step.modeling  # noqa: F401 - registers it with transformers
    if "auto_map" in raw and raw.get("model_type") not in CONFIG_MAPPING and not spec.trust_remote_code:
        raise ModelError(
            f"{spec.name} needs Python code of its own, which is not run unless you trust it"
            " (trust_remote_code, --trust-remote-code)"
        )
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=spec.trust_remote_code, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise ModelBroken(f"the config.json of {spec.name} is not understood: {first_line(error)}") from error
    classes = [str(name) for name in config.architectures or ()]
    other_tasks = [name for name in classes if name.endswith(_OTHER_TASKS)]
    if getattr(config, "is_encoder_decoder", False) or (classes and len(other_tasks) == len(classes)):
        what = f"{config.model_type} ({', '.join(classes)})" if classes else config.model_type
        raise ModelError(f"{spec.name} is a {what}: only decoder-only causal language models can be used")
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING and "auto_map" not in raw:
        raise ModelError(f"{spec.name} is of family {config.model_type}, which has no causal language model")
    return config


_OTHER_TASKS = (
    "ForMaskedLM",
    "ForPreTraining",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
    "ForImageClassification",
    "ForSpeechSeq2Seq",
)


def read_tokenizer(spec: ModelSpec, folder: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer, which must report the character span of each token."""
    from transformers import AutoTokenizer

    if not has_tokenizer(folder):
        if spec.tokenizer is None:
            raise ModelError(
                f"{spec.name} comes without a tokenizer: give the model or folder whose tokenizer it was trained with"
                " (--tokenizer)"
            )
        folder = _tokenizer_folder(spec.tokenizer)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=spec.trust_remote_code, local_files_only=True
        )
    except MemoryError as error:
        raise TooLarge(f"there is too little memory for the tokenizer of {spec.name}; close other programs") from error
    except Exception as error:  # the tokenizers library raises bare Exception for a damaged file
        raise ModelBroken(f"the tokenizer of {spec.name} is damaged: {first_line(error)}") from error
    if not tokenizer.is_fast:
        raise ModelError(
            f"{spec.name} has no fast tokenizer (tokenizer.json), which is needed to find the characters of each token"
        )
    return tokenizer


_SETTINGS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)  # a tokenizer's settings, not its vocabulary

_VOCABULARY = ("tokenizer", "vocab", "merges")  # in the names of a vocabulary's files


def has_tokenizer(folder: Path) -> bool:
    """True if a folder holds the vocabulary of a tokenizer of any kind."""
    return any(
        path.name not in _SETTINGS
        and (path.suffix in (".model", ".tiktoken") or any(word in path.name for word in _VOCABULARY))
        for path in folder.iterdir()
        if path.is_file() and path.suffix != ".py"
    )


def _tokenizer_folder(name: str) -> Path:
    from model.hub.fetch import fetch

    path = local_path(name)
    folder = path if path is not None and path.is_dir() else fetch(name)
    if not has_tokenizer(folder):
        raise ModelError(f"{name} holds no tokenizer; give a model or folder that does (--tokenizer)")
    for file in folder.iterdir():
        if file.is_file() and (problem := pointer(file)) is not None:
            raise ModelBroken(f"the tokenizer of {name} cannot be loaded: {problem}")
    return folder


def tokenizer_note(spec: ModelSpec, folder: Path) -> tuple[str, ...]:
    """Return notes for the user about the tokenizer that was named for a model."""
    if spec.tokenizer is None:
        return ()
    if has_tokenizer(folder):
        return (f"its own tokenizer is used, not that of {spec.tokenizer}",)
    return (f"it comes without a tokenizer; that of {spec.tokenizer} is used",)


def read_model(spec: ModelSpec, folder: Path, config: Any, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """Return the model with its weights on their device; every weight must come from the files."""
    import torch
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {}
    if spec.attn_implementation is not None:
        options["attn_implementation"] = spec.attn_implementation
    if spec.quantization != "none":
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(
            load_in_8bit=spec.quantization == "8bit",
            load_in_4bit=spec.quantization == "4bit",
            bnb_4bit_compute_dtype=dtype,
        )
    if spec.quantization != "none" or device.type == "cuda":
        options["device_map"] = {"": device}
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=spec.trust_remote_code,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
        model = model.to(device) if "device_map" not in options else model
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise TooLarge(
            f"{spec.name} does not fit into the memory of {device}; choose a smaller dtype or model"
        ) from error
    except (ImportError, ValueError) as error:  # an attention implementation or quantisation that is not installed
        raise ModelError(f"{spec.name} cannot be loaded this way: {first_line(error)}") from error
    except Exception as error:  # safetensors and transformers raise many kinds of errors for damaged weights
        raise ModelBroken(f"the weights of {spec.name} cannot be loaded: {first_line(error)}") from error
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if missing:
        raise ModelBroken(
            f"the weights of {spec.name} do not fit its config: {len(missing)} are missing or of another shape,"
            f" first: {missing[0]}"
        )
    return model


def check_vocabulary(spec: ModelSpec, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Check that the words of the tokenizer have embeddings, and return notes for the user.

    Added tokens may lack them: google/gemma-3-270m has an image token beyond its embeddings, which no text contains.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    added = set(tokenizer.get_added_vocab().values())
    beyond = [token for token in tokenizer.get_vocab().values() if token >= rows]
    if any(token not in added for token in beyond):
        raise ModelBroken(
            f"the tokenizer of {spec.name} has {len(tokenizer):,} tokens, but the model embeds only {rows:,}:"
            " they do not belong together"
        )
    if beyond:
        return (f"{len(beyond)} added tokens of the tokenizer have no embedding and cannot be used",)
    return ()
