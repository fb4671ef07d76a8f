"""Executors of the integer graph, and the one of its real-valued twin.

``reference`` says what a deployment means, ``fast`` does the same for whole test sets, ``lava``
runs it as a Lava process graph, ``real`` runs the twin. All yield ``trace.Trace`` values.
"""
