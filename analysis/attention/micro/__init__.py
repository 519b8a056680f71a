"""Attention inside a segment: what the micro step decoder reads."""
