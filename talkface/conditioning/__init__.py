"""Conditioners: from a batch of data to the named tensors a network reads."""
