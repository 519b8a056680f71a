"""Sources of training data: where they live, and how their records read."""
