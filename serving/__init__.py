"""An OpenAI-compatible server for micro_step models and their bases."""
