"""Models as other tools read them: written whole or not at all, and compared with their source in a fresh process."""
