"""A study: how evenly the micro step decoder reads the base's states."""
