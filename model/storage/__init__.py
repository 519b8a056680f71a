"""Object storage: addresses that a corpus and its store may have instead of a path of this machine."""
