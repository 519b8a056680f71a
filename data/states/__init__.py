"""What a base says of answers beyond their scores, kept beside them: its states, and its likeliest next tokens."""
