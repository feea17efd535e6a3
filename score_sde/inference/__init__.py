"""Trained models: loading them, and samples and likelihoods by them."""
