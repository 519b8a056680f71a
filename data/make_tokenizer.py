"""Train the tokenizer of the tiny models: `python -m data.make_tokenizer --local FOLDER --out tokenizer`.

With `--bytes` in place of `--local FOLDER` it writes tiny-byte's, whose 256 tokens are the bytes.

The models themselves are trained by trainer/recipes/tiny-base.yaml, tiny-sft.yaml and tiny.yaml. FOLDER holds the
sources' files, three of which are not on the hub. The same files give the tokenizer.json of data/demo, byte for byte.
"""

import argparse
import hashlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from data.sources.reading import readings
from data.sources.registry import source
from model.errors import MicroStepError

TRAINED_ON = ("tinystories", "novels", "tinyshakespeare", "thealgorithms_python", "gsm8k", "dolly_hhrlhf")
HELD_OUT = 50  # every 50th document of each source is left out, as the models do not train on it
SHIPPED_SHA256 = "e1992792f0e778cd6429ba3fcfb32f5656b2964afe611dbb554f2ff4b2544747"  # of data/demo/*/tokenizer.json
END, TURN_START, TURN_END, PAD = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def training_texts(local: Path) -> Iterator[str]:
    """Yield the documents of all sources as plain texts, a prompt and its response with a line break between them."""
    for name in TRAINED_ON:
        conversations = (reading.messages for reading in readings(source(name), local))
        for number, messages in enumerate(messages for messages in conversations if messages is not None):
            if number % HELD_OUT != HELD_OUT - 1:
                yield "\n".join(message.content for message in messages)


def train_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE of 2048 tokens: every text decodes to itself, byte for byte; each digit is a token."""
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
    return _finished(bpe, model_max_length=1024, chat_template=CHAT_TEMPLATE)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A token for each byte: byte b has the id b + 4, after the special tokens."""
    special = [END, TURN_START, TURN_END, PAD]
    names = [*special, *(character for _, character in sorted(bytes_to_unicode().items()))]
    by_byte = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    by_byte.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    by_byte.decoder = decoders.ByteLevel()
    by_byte.add_special_tokens(special)
    return _finished(by_byte, model_max_length=8192)


def _finished(tokenizer: Tokenizer, **more: Any) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[TURN_START, TURN_END],
        clean_up_tokenization_spaces=False,
        **more,
    )


def main() -> None:
    """Train and save the tokenizer; a user's mistake ends with one line and exit status 1."""
    parser = argparse.ArgumentParser(prog="python -m data.make_tokenizer", description="Train the tiny tokenizer.")
    source_of = parser.add_mutually_exclusive_group(required=True)
    source_of.add_argument("--local", type=Path, help="folder with the sources' files")
    source_of.add_argument("--bytes", action="store_true", help="write tiny-byte's tokenizer, which needs no training")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the tokenizer to")
    given = parser.parse_args()
    if given.bytes:
        byte_tokenizer().save_pretrained(given.out)
        print(f"{given.out}: the tokenizer of bytes")
        return
    try:
        train_tokenizer(list(training_texts(given.local))).save_pretrained(given.out)
    except MicroStepError as error:
        sys.exit(str(error))
    digest = hashlib.sha256((given.out / "tokenizer.json").read_bytes()).hexdigest()
    print(f"{given.out}: {'the shipped tokenizer' if digest == SHIPPED_SHA256 else f'another one, sha256 {digest}'}")


if __name__ == "__main__":
    main()
