"""The arithmetic of training a Llama over several devices: memory of each process, and time.

All sizes are in bytes. It holds for bfloat16 autocast, AdamW, and `--shard`; docs/training.md derives it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class LlamaShape:
    hidden: int
    intermediate: int
    key_value: int  # width of all keys of a token, after grouping
    layers: int
    vocabulary: int
    tied: bool  # the LM head is the embedding

    @property
    def layer(self) -> int:
        """Return the number of parameters of a layer."""
        d = self.hidden
        return 2 * d * d + 2 * d * self.key_value + 3 * d * self.intermediate + 2 * d

    @property
    def rest(self) -> int:
        """Return the number of parameters beside the layers: embedding, LM head and last norm."""
        return (1 if self.tied else 2) * self.vocabulary * self.hidden + self.hidden

    @property
    def parameters(self) -> int:
        return self.layers * self.layer + self.rest

    @property
    def activations(self) -> int:
        """Return the bytes that the layers keep for each token until the backward pass."""
        return self.layers * (30 * self.hidden + 8 * self.intermediate + 4 * self.key_value + 8)


def kept_bytes(trained: float, frozen: float, processes: int) -> float:
    """Return what a process holds all the time: its part of weights, gradients and two moments in float32.

    Frozen weights are in bfloat16 and have neither gradients nor moments.
    """
    return (16 * trained + 2 * frozen) / processes


def gathered_bytes(shape: LlamaShape, trained: bool) -> int:
    """Return what a process gathers at the most: two layers and the rest, and gradients of one layer and the rest."""
    weights = 2 * 2 * shape.layer + (4 if trained else 2) * shape.rest
    gradients = (2 + 4) * shape.layer + 4 * shape.rest if trained else 0
    return weights + gradients


def flops_by_parameters(parameters: float, tokens: float, trained: bool) -> float:
    """Return the operations: 2 for each parameter and token in a forward pass, and as many for each kind of gradient.

    Gradients are of inputs and of weights; with frozen weights (an adapter) only of inputs.
    """
    return (6 if trained else 4) * parameters * tokens
