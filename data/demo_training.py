"""Batches, the training loop and the held-out figures of the demonstration pair.

Knows token ids only: nothing about sources, chat templates or files other than its checkpoint.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import Progress
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from model.errors import MicroStepError

SEED = 1
CONTEXT = 1024
BATCH_TOKENS = 4096
WARM_UP = 100  # steps
CHECKPOINT_EVERY = 200  # steps

Batches = Callable[[int], tuple[Tensor, Tensor]]  # step -> input ids [B, N], labels [B, N] (-100: not scored)


@dataclass(frozen=True)
class Example:
    """Token ids that are given, and those to be predicted after them."""

    given: list[int]
    predicted: list[int]


def packed_batches(examples: Sequence[Example]) -> Batches:
    """Rows of exactly CONTEXT tokens cut from all documents in one stream, in a new order every epoch.

    Raises:
        MicroStepError: they do not fill one batch.
    """
    stream = [token for example in examples for token in example.given + example.predicted]
    count = len(stream) // CONTEXT
    rows = torch.tensor(stream[: count * CONTEXT]).view(count, CONTEXT)
    per_step = BATCH_TOKENS // CONTEXT
    if count < per_step:
        raise MicroStepError(
            f"the texts make {len(stream):,} tokens, fewer than a batch of {BATCH_TOKENS:,}; add texts"
        )

    def batch(step: int) -> tuple[Tensor, Tensor]:
        epoch, at = divmod(step * per_step, count // per_step * per_step)
        order = random.Random(f"{SEED}/{epoch}").sample(range(count), count)
        ids = rows[order[at : at + per_step]]
        return ids, ids

    return batch


def padded_batches(examples: Sequence[Example], end: int, pad: int) -> Batches:
    """Whole conversations of similar length, BATCH_TOKENS / 256 to a batch, padded; only responses are scored.

    Padding stands at the right, where causal attention never looks, so that no mask is needed.

    Raises:
        MicroStepError: they do not fill one batch.
    """
    per_step = BATCH_TOKENS // 256
    per_epoch = len(examples) // per_step
    if not per_epoch:
        raise MicroStepError(
            f"{len(examples)} conversations fit the context, fewer than a batch of {per_step}; add some"
        )
    lengths = [len(example.given) + len(example.predicted) for example in examples]

    def batch(step: int) -> tuple[Tensor, Tensor]:
        epoch, at = divmod(step, per_epoch)
        chance = random.Random(f"{SEED}/{epoch}")
        order = chance.sample(range(len(examples)), len(examples))
        # Sorted by length within a few hundred, so that a batch holds little padding and yet chance companions.
        chunks = [sorted(order[i : i + 512], key=lengths.__getitem__) for i in range(0, len(order), 512)]
        order = [j for chunk in chunks for j in chunk]
        starts = chance.sample(range(per_epoch), per_epoch)
        chosen = [examples[j] for j in order[starts[at] * per_step :][:per_step]]
        rows = [torch.tensor([*e.given, *e.predicted, end]) for e in chosen]
        labels = [torch.tensor([-100] * len(e.given) + [*e.predicted, end]) for e in chosen]
        return pad_sequence(rows, True, pad), pad_sequence(labels, True, -100)

    return batch


def train(model: PreTrainedModel, batches: Batches, steps: int, peak: float, checkpoint: Path) -> dict[str, float]:
    """Train in place with AdamW, warm-up and a cosine to a tenth; goes on from ``checkpoint`` if it is there.

    Returns:
        steps, tokens, scored (tokens whose loss counted) and seconds.

    Raises:
        MicroStepError: the checkpoint is of another schedule.
    """
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.95))
    done = {"steps": 0, "tokens": 0, "scored": 0, "seconds": 0.0}
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        if saved["plan"] != [steps, peak]:
            raise MicroStepError(
                f"{checkpoint} was made for [steps, peak rate] {saved['plan']}, not {[steps, peak]}; "
                "delete it or choose another folder"
            )
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        done = saved["done"]
    model.train()
    with Progress() as progress:
        bar = progress.add_task(checkpoint.stem, total=steps, completed=int(done["steps"]))
        for step in range(int(done["steps"]), steps):
            began = time.monotonic()
            rate = peak * min(1.0, (step + 1) / WARM_UP) * (0.55 + 0.45 * math.cos(math.pi * step / steps))
            for group in optimizer.param_groups:
                group["lr"] = rate
            ids, labels = batches(step)
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(input_ids=ids, use_cache=False).logits  # [B, N, V]
            loss = F.cross_entropy(logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            done["steps"] += 1
            done["tokens"] += ids.numel()
            done["scored"] += int((labels[:, 1:] != -100).sum())
            done["seconds"] += time.monotonic() - began
            progress.update(bar, advance=1, description=f"{checkpoint.stem} loss {loss.item():.3f}")
            if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == steps:
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                state |= {"plan": [steps, peak], "done": done}
                part = checkpoint.with_suffix(".part")
                torch.save(state, part)
                part.replace(checkpoint)
    return done


@torch.inference_mode()
def score(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example]) -> dict[str, float]:
    """Mean loss and conditional entropy (nats a token) and bits per byte of the predicted tokens, in float32."""
    model.eval()
    loss = entropy = tokens = size = 0.0
    for example in examples:
        ids = torch.tensor([example.given + example.predicted])
        logits = model(input_ids=ids, use_cache=False).logits[0, len(example.given) - 1 : -1].float()
        log_p = logits.log_softmax(-1)  # [predicted, V]
        loss -= log_p.gather(1, torch.tensor(example.predicted)[:, None]).sum().item()
        entropy -= (log_p.exp() * log_p).sum().item()
        tokens += len(example.predicted)
        # A byte-level token is spelt with one character for each of its bytes.
        size += sum(len(token) for token in tokenizer.convert_ids_to_tokens(example.predicted))
    return {
        "tokens": int(tokens),
        "loss": round(loss / tokens, 4),
        "bits_per_byte": round(loss / math.log(2) / size, 4),
        "entropy": round(entropy / tokens, 4),
    }
