"""Finds the fastest stable way to train a given model on given data on given hardware, inside a time budget."""

__version__ = "0.1.0"
