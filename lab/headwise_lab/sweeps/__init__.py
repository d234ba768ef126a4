"""Sweeps: many trials from one file, run by several workers. A sweep that was stopped in any way can be continued.

``schema`` and ``reading`` turn a TOML file into a :class:`SweepFile`; ``cases`` and ``planning`` (``kv.planning`` for
texts) make a ``plan`` of it; ``running`` gives an executor (``executor``, ``local``) the trials that the store lacks;
``status`` reports how many trials are done.
"""
