"""Sparse autoencoders: recipe, training, evaluation, checkpoints and their numerical kernels."""
