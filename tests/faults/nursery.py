"""The parent of all programs under test: it has imported everything, so that a child lives a few milliseconds after it is
asked for. It forks before any thread or store exists; children open the store for themselves.

Orders come as lines of JSON on standard input, answers and news (exited, stopped) leave on standard output. Signals are
sent from here, because only the parent knows that a pid has not been given to somebody else. When the input ends, all
children are killed; when this program is killed, the kernel kills them.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import signal
import sys
from typing import Any

from . import roles

PR_SET_PDEATHSIG = 1
MESSAGE_BYTES_MAX = 65_536


def die_with_the_parent(parent: int) -> None:
    """Nothing is left behind, however the parent ends. Where the kernel cannot do it, the end of the input has to."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died in between
            os._exit(1)


def main(parent: int) -> int:
    die_with_the_parent(parent)
    gc.freeze()
    bell, ringing = os.pipe()
    os.set_blocking(ringing, False)
    os.set_blocking(bell, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests; they end us by closing our input
    signal.set_wakeup_fd(ringing)
    children: set[int] = set()
    unread = b""
    _say({"ready": os.getpid()})
    while True:
        ready, _, _ = select.select([0, bell], [], [])
        if bell in ready:
            os.read(bell, 4096)
        _reap(children)
        if 0 not in ready:
            continue
        received = os.read(0, MESSAGE_BYTES_MAX)
        if not received:
            break
        *orders, unread = (unread + received).split(b"\n")
        for order in map(json.loads, orders):
            if "signal" in order:
                if order["pid"] in children:
                    os.kill(order["pid"], order["signal"])
                continue
            server = os.getpid()
            pid = os.fork()
            if pid == 0:
                die_with_the_parent(server)
                _become_a_child(bell, ringing, order)
                return roles.play(order)
            children.add(pid)
            _say({"n": order["n"], "pid": pid})
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    for pid in children:
        os.waitpid(pid, 0)
    return 0


def _reap(children: set[int]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
        if pid == 0:
            return
        if os.WIFSTOPPED(status):
            _say({"pid": pid, "stopped": True})
        elif os.WIFCONTINUED(status):
            _say({"pid": pid, "stopped": False})
        else:
            children.discard(pid)
            _say({"pid": pid, "exited": os.waitstatus_to_exitcode(status)})


def _become_a_child(bell: int, ringing: int, order: dict[str, Any]) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.close(bell)
    os.close(ringing)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    log = os.open(f"{order['folder']}/log-{order['boot']}", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(nothing)
    os.close(log)
    os.environ["CRASH"] = order.get("crash", "")


def _say(news: dict[str, Any]) -> None:
    os.write(1, json.dumps(news).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
