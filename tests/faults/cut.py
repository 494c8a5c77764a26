"""What becomes of a worker's processes, locks and sessions when its network is cut, seen by somebody who still has one.

As a program, it is such a cut by the kernel itself, with nobody in between who goes on acknowledging: it has to be started
in a network of its own, by `unshare --net`, which it then takes away from one of two workers. The other one and the look at
the database go through a socket in the file system. It prints what it has seen.
"""

from __future__ import annotations

import fcntl
import json
import socket
import struct
import sys
import time
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psycopg
from postgres import PrivateServer

from .fleet import LEASE_S, Fleet, Worker, fleet, until

PROCESSES = 40
PAUSED_S = 0.3  # of a handler: most processes are in somebody's hands
HELD_MIN = 3  # processes in the hands of a worker when it is cut off
TAKEN_MAX_S = LEASE_S + 6.0  # the promise is one second after the lease; a busy machine may take longer
LOOK_EVERY_S = 0.03
GONE_S = 9.0  # a real cut is looked at for so long: nothing may be left of the worker in the server after five

SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1

# Whoever has locked a row has the lock of his own transaction; those that wait for the row wait for that one.
LOCKS = """
SELECT coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0), a.query LIKE 'WITH item AS%%'
  FROM pg_stat_activity AS a JOIN pg_locks AS l USING (pid)
 WHERE a.application_name = %s AND l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted"""


@dataclass
class Seen:
    held: dict[str, int]  # id -> epoch, of the worker that is cut off
    taken: dict[str, float] = field(default_factory=dict)  # id -> when somebody else had it
    locked_s: float = 0.0  # the longest that a session of that worker has had a lock since the cut
    half_done: int = 0  # of its sessions, those in which a transition is written and its COMMIT has not come
    sessions_s: float = 0.0  # until then it had sessions

    @property
    def left(self) -> set[str]:
        return set(self.held) - set(self.taken)


def look_on(workers: Fleet, cut: Worker, owner: str, lasts_s: float) -> Seen:
    """For as long as the cut lasts, and until nothing is left that could be taken over."""
    began = time.monotonic()
    with closing(psycopg.connect(workers.url, autocommit=True)) as looking:
        held = looking.execute("SELECT id, epoch FROM onward_process WHERE owner = %s", [owner]).fetchall()
        seen = Seen(dict(held))
        while (since := time.monotonic() - began) < lasts_s or (len(seen.left) > seen.half_done and since < TAKEN_MAX_S):
            for id, epoch in looking.execute("SELECT id, epoch FROM onward_process WHERE id = ANY (%s)", [list(seen.held)]):
                if epoch > seen.held[id]:
                    seen.taken.setdefault(id, since)
            locks = looking.execute(LOCKS, [cut.application]).fetchall()
            seen.locked_s = max([seen.locked_s, *(min(float(age), since) for age, _ in locks)])
            seen.half_done = sum(half_done for _, half_done in locks)
            if looking.execute("SELECT FROM pg_stat_activity WHERE application_name = %s", [cut.application]).fetchall():
                seen.sessions_s = since
            time.sleep(LOOK_EVERY_S)
    return seen


def wait_for_work(workers: Fleet, owner: str) -> None:
    def held() -> int:
        return len(workers.ask("SELECT FROM onward_process WHERE owner = %s", owner))

    until(lambda: held() >= HELD_MIN, "work in the hands of the worker that is to be cut off", workers)


# -- a network of its own -----------------------------------------------------------------------------------------


def main(folder: Path) -> None:
    network(up=True)
    with PrivateServer(settings={"unix_socket_directories": "."}) as server:
        url = server.create_database("onward_cut")
        with fleet(folder, url) as workers:
            workers.start(PROCESSES, pace=PAUSED_S)
            cut = workers.worker(concurrency=PROCESSES - 2 * HELD_MIN)
            owner = workers.owner(cut)
            workers.url = f"postgresql://postgres@/onward_cut?host={server.data}&port={server.port}"
            workers.worker(concurrency=PROCESSES - 2 * HELD_MIN)
            workers.work_on()
            wait_for_work(workers, owner)
            network(up=False)
            seen = look_on(workers, cut, owner, GONE_S)
            network(up=True)
            healed_at = time.monotonic()
            until(lambda: cut.acknowledged(healed_at), "a commit of the worker that was cut off", workers)
            resumed_s = min(cut.acknowledged(healed_at)) - healed_at
            counts = workers.come_to_rest()
    print(json.dumps({"seen": asdict(seen), "resumed_s": resumed_s, "counts": counts}))


def network(*, up: bool) -> None:
    """Of the loopback device, the only one there is. What is under way is lost, and nobody hears of it."""
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", IFF_UP if up else 0))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
