"""Transformers: building, running and storing them."""
