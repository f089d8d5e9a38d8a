"""Schedules as values."""
