"""Leaves the program although a handler cannot be ended: its thread or coroutine would keep the interpreter for ever."""

from __future__ import annotations

import os
import sys
import threading

EXIT_S = 5.0  # for the interpreter to end by itself

own_program = False  # set by `main`: who calls our commands in a program of their own must not be ended by them


def soon() -> None:
    """To be called when everything is committed and every lease given back."""
    if own_program:
        timer = threading.Timer(EXIT_S, _leave)
        timer.daemon = True
        timer.start()


def _leave() -> None:
    sys.stderr.write("a handler does not end; the worker leaves without it\n")
    sys.stderr.flush()
    os._exit(0)
