"""Ctrl-C at a chosen moment of a run."""

from typing import Any

import pytest


def interrupted_at_call(patched: pytest.MonkeyPatch, owner: Any, name: str, call: int) -> None:
    """Have a function of a module or class raise KeyboardInterrupt when it is called for the `call`-th time."""
    real, calls = getattr(owner, name), []

    def interrupted(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    patched.setattr(owner, name, interrupted)
