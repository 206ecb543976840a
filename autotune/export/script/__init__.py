"""Pieces of the training script that `to_torch` writes; no piece contains a branch that the settings do not use."""
