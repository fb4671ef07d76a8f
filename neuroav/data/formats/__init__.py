"""Readers of the files that recordings are published in."""
