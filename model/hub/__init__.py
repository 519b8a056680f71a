"""Get a model: names and sources, fetching, reading a checkpoint, and the memory that a run needs."""
