"""A hash that knows a model's weights and not their precision; it needs torch alone."""

import hashlib
from typing import Any

import torch

_SAMPLED = 1024  # number of values of each tensor that enter the fingerprint


def fingerprint(model: Any) -> str:
    """Return the sha256 of names, shapes and up to 1,024 evenly spaced values of all weights, rounded to bfloat16.

    It is the same in float32 and bfloat16, with or without a LoRA adapter beside the weights, and differs after any
    fine-tuning.
    """
    seen: set[int] = set()
    digest = hashlib.sha256()
    for name, weight in sorted(model.named_parameters(remove_duplicate=False)):
        if "lora_" in name or weight.data_ptr() in seen:
            continue  # tied weights count once, under the first of their names
        seen.add(weight.data_ptr())
        flat = weight.detach().flatten()
        indices = torch.linspace(0, len(flat) - 1, min(_SAMPLED, len(flat)), dtype=torch.float64).long()
        values = flat[indices.to(flat.device)].to(torch.bfloat16).view(torch.int16).cpu().numpy()
        digest.update(f"{name.replace('.base_layer', '')}{list(weight.shape)}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
