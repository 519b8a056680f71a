"""What the operator, who starts the app, lets its visitors do."""
