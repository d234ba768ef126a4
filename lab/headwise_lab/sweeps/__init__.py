"""Sweeps: many trials from one file, run by several workers, and going on after any kind of end.

``schema`` and ``reading`` turn a TOML file into a :class:`SweepFile`; ``cases`` and ``planning`` (``kv.planning`` for
texts) make a ``plan`` of it; ``running`` has an executor (``executor``, ``local``) run what the store lacks; ``status``
tells how far it is.
"""
