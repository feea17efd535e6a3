"""Evaluation of trained models: losses, bits/dim, samples and their figures."""
