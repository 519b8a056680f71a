"""Ablation grids: variants of one recipe, several seeds each, one table."""
