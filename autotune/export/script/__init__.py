"""Pieces of the training script that `to_torch` writes; none holds a branch that the settings do not take."""
