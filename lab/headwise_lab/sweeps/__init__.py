"""Sweeps: many trials from one file, run by several workers, and going on after any kind of end.

``schema`` and ``reading`` turn a TOML file into a :class:`SweepFile`, ``cases`` and ``planning`` that into trials,
``running`` has an executor (``executor``, ``local``) run what the store lacks, and ``status`` tells how far it is.
"""
