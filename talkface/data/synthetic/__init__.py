"""The synthetic corpus: people that nobody is, drawn and voiced from a seed, with exact truth."""
