"""The Python interface: what ``import neuroav`` offers, loaded when it is asked for.

Read in this order: ``make`` (networks come from modules and files), ``network`` (what one can do),
``results`` (what that gives), ``inputs`` (what may be fed).
"""
