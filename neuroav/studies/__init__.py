"""Studies of many runs: ``sweep`` over configuration keys, ``robustness`` under disturbances.

``neuroav.studies.sweep`` needs Optuna, and what draws needs Matplotlib; both come with the extra
``studies`` and are imported by these modules alone.
"""
