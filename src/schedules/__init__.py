"""Schedules as values, one kind a module."""
