"""Self-distillation: answers that a base model writes itself."""
