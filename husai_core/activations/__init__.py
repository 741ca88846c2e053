"""Activations: extraction at a hook point, held-out splits, moments and rank."""
