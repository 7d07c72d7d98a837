"""Exceptions whose message is one sentence for the user: what is wrong, where, and the remedy.

The command line turns each class into an exit code; the library never prints and never exits.
"""

from __future__ import annotations


class PnpError(Exception):
    """Base class of everything this package raises on purpose."""


class InputError(PnpError):
    """A file or folder that cannot be used: missing, unreadable, malformed, or of the wrong kind."""


class TakenError(InputError):
    """A file that was to be new, and that somebody else has made meanwhile."""


class StorageError(InputError):
    """A file system that takes no more: full, over a quota, or read-only. Whatever comes next would fail as well."""


class UsageError(PnpError):
    """Arguments that do not make sense, alone or together."""


class ConditionError(PnpError):
    """A condition of a convergence theorem does not hold, so the run is refused."""


class DivergenceError(PnpError):
    """An iteration left the finite numbers, so there is no result."""


class WeightsError(InputError):
    """A weight file that is corrupted, foreign, or not what its label says."""
