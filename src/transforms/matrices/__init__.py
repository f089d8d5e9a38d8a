"""Preconditioners that treat each matrix as a whole."""
