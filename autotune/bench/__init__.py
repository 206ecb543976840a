"""Whole spaces as tables: recorded once by a sweep, then searched thousands of times without training."""
