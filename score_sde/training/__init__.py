"""Training of networks: from a config to an objective, a state and its updates."""
