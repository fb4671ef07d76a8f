"""From an integer graph to cores on a mesh: what a core must hold, and where each core goes."""
