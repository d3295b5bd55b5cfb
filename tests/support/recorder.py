"""Stands in for a part of the daemon whose calls a test looks at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Recorder:
    """Notes each call as (method, *arguments); ``values`` are its attributes, and what its methods return."""

    def __init__(self, calls: list[tuple[Any, ...]], **values: Any) -> None:
        self._calls = calls
        self.__dict__.update({name: value for name, value in values.items() if not callable(value)})
        self._results = {name: value for name, value in values.items() if callable(value)}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            self._calls.append((name, *arguments, *keywords.values()))
            return self._results[name](*arguments) if name in self._results else None

        return call
