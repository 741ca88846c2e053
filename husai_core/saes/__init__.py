"""Sparse autoencoders: recipe, training, evaluation, checkpoints and foreign formats."""
