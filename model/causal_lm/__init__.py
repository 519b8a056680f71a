"""Any causal language model of transformers, taken apart: body, head, cache, attention, padding."""
