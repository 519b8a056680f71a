"""Who has the machine, and who waits for it."""
