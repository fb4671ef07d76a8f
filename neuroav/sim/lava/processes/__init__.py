"""Lava processes of this project, one small file each.

Only process files may lie in this folder: Lava executes every ``.py`` beside a process when it
looks for its models.
"""

from neuroav.sim.lava.shim import prepare

prepare()
