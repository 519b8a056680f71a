"""The documents of a store of scores, or of two, ranked by a score or by what changed."""
