"""Decoding with a micro_step model: merged and lossless, sampling, stopping."""
