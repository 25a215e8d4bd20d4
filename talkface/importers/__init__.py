"""Weights that other programs trained, as bundles: see `kinds.import_checkpoint` and docs/importing.md.

Names and shapes of the tensors say what the network is; nothing of the other program is needed or run. Reading the
file is the business of `talkface.checkpoint`.
"""
