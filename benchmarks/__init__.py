"""Speed and memory of the project's own code, always beside the alternatives. Nothing imports it."""
