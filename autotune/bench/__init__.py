"""Whole spaces as tables: a sweep records them once, then they are searched thousands of times without training."""
