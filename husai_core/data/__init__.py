"""Data that experiments are made of: modular addition and synthetic worlds with known features."""
