"""Sources of training data: where they are, and how their records are read."""
