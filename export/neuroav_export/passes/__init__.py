"""Compiler passes: each a function from a graph to a new graph, one file per concern."""
