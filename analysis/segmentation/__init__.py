"""Segment a text by strategies, compare and judge them."""
