"""Noise schedules, solvers and guidance. They see networks only as callables."""
