"""Configuration, training loop and evaluation of float networks."""
