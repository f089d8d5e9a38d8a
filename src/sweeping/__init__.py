"""Sweeps: one training function over many chains."""
