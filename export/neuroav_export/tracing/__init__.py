"""How a network is read: ``neuroav_export.trace`` is the way in.

``modules`` and ``norse`` convert layers; ``steps`` runs any other network once and records it, with
``ops``, ``op``, ``sums``, ``axes``, ``layout`` and ``values``; ``graph`` makes nodes of the record.
"""
