"""Generators of synthetic data, for tasks that show what a recurrent network can learn."""
