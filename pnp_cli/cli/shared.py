"""Groups of options that several commands share, each written once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence

Group = Callable[..., None]
"""A function whose parameters are options of the command line; it is never called."""


def takes(before: Sequence[Group] = (), after: Sequence[Group] = ()) -> Callable[[Callable[..., None]], Group]:
    """Give a command the options of some groups, in the order of its help before its own and after them.

    The command itself is called with its own options only. Those of the groups are parameters of its context.
    """

    def decorate(command: Callable[..., None]) -> Group:
        own = _parameters(command)

        @functools.wraps(command)
        def run(**given: object) -> None:
            command(**{parameter.name: given[parameter.name] for parameter in own})

        parameters = [*_of(before), *own, *_of(after)]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _of(groups: Sequence[Group]) -> list[inspect.Parameter]:
    return [parameter for group in groups for parameter in _parameters(group)]


def _parameters(function: Callable[..., None]) -> list[inspect.Parameter]:
    """The parameters of a function, which go by name."""
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    return [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
