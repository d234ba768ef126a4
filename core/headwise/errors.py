"""The errors users of headwise meet: one sentence each, with what was given, what was wanted, and whose code it was."""

from __future__ import annotations


class HeadwiseError(ValueError):
    """Anything the user can put right; the command line prints it without a traceback and exits with status 2."""


class StrategyError(HeadwiseError):
    """A strategy that is unknown, ambiguous, broken on import, or given options it does not have."""


class ContractError(StrategyError):
    """A strategy that returned something its hook does not allow."""


class BudgetError(HeadwiseError):
    """A budget that cannot be met; the message names the nearest one that can."""


class ModelError(HeadwiseError):
    """A model that cannot be found, loaded or attached to."""


class DataError(HeadwiseError):
    """A benchmark, record or table file that is missing, malformed or not ours to write."""
