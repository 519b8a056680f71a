"""The parts of any transformers causal language model: body, head, cache, attention, padding."""
