"""The micro_step model: merger, base, micro step decoder, and how it is saved."""
