"""Training-time defences: each a small module that the one training loop calls twice a step."""
