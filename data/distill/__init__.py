"""Self-distillation: answers that a base model generates itself."""
