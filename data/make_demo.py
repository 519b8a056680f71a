"""Make the tiny pair of our own: ``data/demo/tiny-base`` and its fine-tuned version ``data/demo/tiny-sft``.

``python -m data.make_demo --local FOLDER --out data/demo`` trains one tokenizer and two Llama models of 1.3M parameters
on the sources of :mod:`data.sources.registry`, so that the first screen has two models
and needs no download. It is a demonstration of pretraining and fine-tuning, not a trainer: it knows one size, one
device and one recipe. An interrupted run goes on from its last checkpoint in ``--work``.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from data.demo_card import card
from data.demo_training import CONTEXT, SEED, Example, packed_batches, padded_batches, score, train
from data.sources.registry import SOURCES, PretrainingText, read
from model.errors import MicroStepError

HELD_OUT = 50  # every 50th document of each source is never trained on
SIZE_LIMIT = 6_000_000  # bytes, both folders together
END, TURN_START, TURN_END, PAD = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SYSTEM = {"role": "system", "content": "You are a helpful assistant."}


@dataclass(frozen=True)
class Use:
    """How a stage uses a source: every how-manieth document, and how often each is repeated."""

    source: str
    every: int = 1
    repeat: int = 1


@dataclass(frozen=True)
class Stage:
    """One model: what it is trained on, as plain text or as chat, and for how long."""

    name: str
    chat: bool
    uses: tuple[Use, ...]
    steps: int
    peak_rate: float


STAGES = (
    Stage(
        name="tiny-base",
        chat=False,
        uses=(
            Use("tinystories", repeat=2),
            Use("novels"),
            Use("tinyshakespeare"),
            Use("thealgorithms_python"),
            Use("gsm8k", every=4),  # as plain text, and not all of it: fine-tuning shall have some maths to teach
        ),
        steps=2600,
        peak_rate=3e-3,
    ),
    Stage(
        name="tiny-sft",
        chat=True,
        uses=(Use("gsm8k"), Use("dolly_hhrlhf", repeat=3)),
        steps=800,
        peak_rate=1e-3,
    ),
)


def split(source: str, local: Path) -> tuple[list[PretrainingText], list[PretrainingText]]:
    """Read a source into documents to train on and documents held out."""
    documents = list(read(SOURCES[source], local))
    held = documents[HELD_OUT - 1 :: HELD_OUT]
    return [d for i, d in enumerate(documents) if i % HELD_OUT != HELD_OUT - 1], held


def plain_text(document: PretrainingText) -> str:
    """The document as a text without a chat template."""
    return document.text if document.prompt is None else f"{document.prompt}\n{document.text}"


def train_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE of 2048 words: every text comes back byte for byte; each digit is a word."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2048,
        special_tokens=[END, TURN_START, TURN_END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=END,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[TURN_START, TURN_END],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama of 1.3M random parameters."""
    end = tokenizer.convert_tokens_to_ids(END)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=320,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=end,
            eos_token_id=end,
            pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
        )
    )


def plain_examples(tokenizer: PreTrainedTokenizerFast, documents: Sequence[PretrainingText]) -> list[Example]:
    """Documents as plain text, each part of at most CONTEXT tokens after an end-of-text mark."""
    texts = [plain_text(document) for document in documents]
    end = tokenizer.convert_tokens_to_ids(END)
    return [
        Example([end], ids[start : start + CONTEXT - 1])
        for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        for start in range(0, len(ids), CONTEXT - 1)
    ]


def chat_examples(tokenizer: PreTrainedTokenizerFast, documents: Sequence[PretrainingText]) -> list[Example]:
    """Pairs under the chat template, with and without a system message in turn; those over CONTEXT are left out."""
    examples = []
    for i, document in enumerate(documents):
        messages = [SYSTEM] * (i % 2) + [{"role": "user", "content": document.prompt}]
        given = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids = tokenizer([given, document.text], add_special_tokens=False)["input_ids"]
        if len(ids[0]) + len(ids[1]) < CONTEXT:
            examples.append(Example(ids[0], ids[1]))
    return examples


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path, report: dict[str, Any]) -> None:
    """Write weights (bfloat16), tokenizer, ``training.json`` and card; the folder appears whole or not at all."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(part)
    tokenizer.save_pretrained(part)
    (part / "training.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (part / "README.md").write_text(card(report), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def stage_documents(stage: Stage, train_splits: Mapping[str, list[PretrainingText]]) -> list[PretrainingText]:
    """The stage's documents, repeated as it says and shuffled."""
    chosen = [d for use in stage.uses for d in train_splits[use.source][:: use.every] * use.repeat]
    random.Random(SEED).shuffle(chosen)
    return chosen


def make(local: Path, out: Path, work: Path, stages: Sequence[Stage] = STAGES) -> None:
    """Train the stages one after the other, each from the model before it, and save a folder for each in ``out``.

    Args:
        local: folder with the sources' files (three of them are on no hub).
        out: where the models' folders are written.
        work: where checkpoints are kept; a run that was cut off goes on from there.
        stages: what to train.

    Raises:
        MicroStepError: a source cannot be read, the folders are over SIZE_LIMIT, or a reloaded model scores otherwise.
    """
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    splits = {name: split(name, local) for name in SOURCES}
    train_splits = {name: documents for name, (documents, _) in splits.items()}
    tokenizer = train_tokenizer([plain_text(d) for documents in train_splits.values() for d in documents])
    end_turn, pad = tokenizer.convert_tokens_to_ids([TURN_END, PAD])
    views = {name: plain_examples(tokenizer, held) for name, (_, held) in splits.items()}
    views |= {f"{name}, chat": chat_examples(tokenizer, splits[name][1]) for name in splits if SOURCES[name].prompt}

    model = new_model(tokenizer)
    before = {view: score(model, tokenizer, examples) for view, examples in views.items()}
    for stage in stages:
        documents = stage_documents(stage, train_splits)
        if stage.chat:
            batches = padded_batches(chat_examples(tokenizer, documents), end_turn, pad)
            model.generation_config.eos_token_id = [end_turn, tokenizer.eos_token_id]
        else:
            batches = packed_batches(plain_examples(tokenizer, documents))
        done = train(model, batches, stage.steps, stage.peak_rate, work / f"{stage.name}.pt")
        for parameter in model.parameters():  # scored as it is saved; .to(bfloat16) would round the rotary buffers too
            parameter.data = parameter.data.bfloat16().float()
        after = {view: score(model, tokenizer, examples) for view, examples in views.items()}
        report = {
            "stage": asdict(stage),
            "documents": {use.source: len(train_splits[use.source][:: use.every]) for use in stage.uses},
            "parameters": model.num_parameters(),
            "seed": SEED,
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
            "threads": torch.get_num_threads(),
            "training": done,
            "held_out": {"before": before, "after": after},
        }
        save(model, tokenizer, out / stage.name, report)
        check(out / stage.name, views, after)
        before = after
    size = sum(file.stat().st_size for stage in stages for file in (out / stage.name).iterdir())
    if size > SIZE_LIMIT:
        raise MicroStepError(f"{out} holds {size:,} bytes, more than {SIZE_LIMIT:,}; make the models smaller")


def check(folder: Path, views: Mapping[str, Sequence[Example]], expected: Mapping[str, Mapping[str, float]]) -> None:
    """Reload a saved model and compare its held-out figures with those of the model in memory."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for view, examples in views.items():
        again = score(model, tokenizer, examples)
        if abs(again["loss"] - expected[view]["loss"]) > 1e-3:
            raise MicroStepError(f"{folder}, reloaded, scores {again} on {view}, not {expected[view]}; make it anew")


def main() -> None:
    """Read the command line, make the pair; a user's mistake ends with one line and exit status 1."""
    parser = argparse.ArgumentParser(prog="python -m data.make_demo", description="Make the tiny demonstration pair.")
    parser.add_argument("--local", type=Path, required=True, help="folder with the sources' files")
    parser.add_argument("--out", type=Path, default=Path("data/demo"), help="where the two model folders are written")
    parser.add_argument("--work", type=Path, default=Path("runs/demo"), help="where checkpoints are kept")
    parser.add_argument("--base-steps", type=int, default=STAGES[0].steps, help="pretraining steps")
    parser.add_argument("--sft-steps", type=int, default=STAGES[1].steps, help="fine-tuning steps")
    given = parser.parse_args()
    steps = (given.base_steps, given.sft_steps)
    try:
        make(given.local, given.out, given.work, [replace(s, steps=n) for s, n in zip(STAGES, steps, strict=True)])
    except MicroStepError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
