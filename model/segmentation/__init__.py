"""Segmentation rules, the boundaries that they give, and the solver for a target length."""
