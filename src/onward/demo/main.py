"""`onward demo`: does the main job before your eyes, kills its own worker half-way, and says what the API really saw."""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

from onward import Condition, Entry, InvalidData, Onward, Record, StoreError
from onward.clock import SystemClock
from onward.codec import printable
from onward.demo.flow import Batch, Document, Status, check_status
from onward.demo.service import RealApi, Seen, Service, StandIn
from onward.demo.show import Show, open_show
from onward.errors import NotFound
from onward.store import upkeep_of
from onward.store.urls import is_postgres, shown
from onward.testing.openai_standin import NOTICE

FOLDER = Path("onward-demo")
QUESTIONS = ("What was decided?", "What was the problem?", "What happens next?")
PROCESSES_MAX, DOCUMENTS_MAX = 1_000, 1_000
SUFFIXES = (".md", ".markdown", ".txt", ".text", ".rst")
LEASE_SECONDS = "2"  # so long a killed worker keeps what it had in its hands
CONCURRENCY_MAX = 100  # processes that one worker drives at once
COMPANY_SECONDS = 1.5  # so long the kill waits for the second worker to have done something
PENDING = (Status.RESPONSES_CREATED, Status.RESPONSES_REASONING)
ANSWER_CHARS_MAX = 160
NO_RIGHT = "42501"
HOW_TO_GET_ONE = (
    "no PostgreSQL at hand? docker run --rm -e POSTGRES_PASSWORD=demo -p 5432:5432 postgres"
    "  and then: --store postgresql://postgres:demo@localhost/postgres"
)


def run_demo(
    *,
    paths: Sequence[Path] = (),
    question: str | None = None,
    number: int | None = None,
    crash: bool = True,
    real: bool = False,
    store: str | None = None,
) -> int:
    """Runs the whole show; the exit code is 0 only if everything finished, once, and nothing was left behind."""
    documents = read_documents(paths)
    questions = (question,) if question else QUESTIONS
    number = number if number is not None else len(questions)
    if not 1 <= number <= PROCESSES_MAX:
        raise InvalidData(f"-n {number}: 1 to {PROCESSES_MAX:,} processes", hint="onward demo -n 5")
    run = secrets.token_hex(2)
    batches = [
        Batch(id=f"demo-{run}-{place + 1}", question=questions[place % len(questions)], documents=documents)
        for place in range(number)
    ]
    FOLDER.mkdir(exist_ok=True)
    store = store or f"sqlite:///{FOLDER}/{run}.db"
    shared = is_postgres(store)
    if shared:
        store = asyncio.run(make_tables(store, f"onward_demo_{run}"))
    chosen: Service = RealApi() if real else StandIn()
    with chosen as service:
        demo = Demo(service, store, batches, crash, FOLDER / f"{run}.log", together=min(2, number) if shared else 1)
        with open_show() as show:
            asyncio.run(demo.run(show))
        return demo.report()


async def make_tables(store: str, home: str) -> str:
    """Our tables, in a PostgreSQL schema of this run's own: nobody else's processes are seen or moved. The URL of it."""
    parts = urlsplit(store)
    query = dict(parse_qsl(parts.query))
    if "pooler" in query:
        raise InvalidData(
            "the demo makes a schema of its own, which a pooler cannot be asked for", hint="give the URL of the database itself"
        )
    url = parts._replace(query=urlencode({**query, "search_path": home})).geturl()
    try:
        await upkeep_of(url, SystemClock(), virtual=False).upgrade(lambda _: None)
    except StoreError as error:
        if isinstance(error.__cause__, OSError):  # nobody is there
            raise StoreError(str(error), hint=HOW_TO_GET_ONE) from error
        if getattr(error.__cause__, "sqlstate", None) == NO_RIGHT:
            raise StoreError(str(error), hint="the demo makes a schema of its own: give it a database that is yours") from error
        raise
    return url


def _home(store: str) -> str:
    return dict(parse_qsl(urlsplit(store).query))["search_path"]


def read_documents(paths: Sequence[Path]) -> list[Document]:
    """The texts to ask about: the given files, the text files of given folders, or the ones in the package."""
    if not paths:
        shipped = sorted(files("onward.demo").joinpath("documents").iterdir(), key=lambda item: item.name)
        return [Document(name=item.name, text=item.read_text(encoding="utf-8")) for item in shipped]
    found: list[Path] = []
    for path in paths:
        found += sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
    if not 1 <= len(found) <= DOCUMENTS_MAX:
        raise InvalidData(f"{len(found)} documents found; 1 to {DOCUMENTS_MAX:,} can be asked about", hint="onward demo notes.md")
    return [_document(path, [other.name for other in found].count(path.name) > 1) for path in found]


def _document(path: Path, ambiguous: bool) -> Document:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(
            f"there is no file {printable(str(path))}", hint="name text or Markdown files: onward demo notes.md"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidData(f"{printable(str(path))} cannot be read as UTF-8 text: {error}", hint="onward demo notes.md") from None
    if path.suffix.lower() not in SUFFIXES:
        raise InvalidData(f"{printable(str(path))} is no text file by its name", hint=f"it takes {', '.join(SUFFIXES)}")
    return Document(name=printable(str(path) if ambiguous else path.name, 200), text=text)


class Demo:
    """One run: processes, a worker that is killed, another one that finishes, and the verdict.

    On a database that many share both work side by side; on a file the second one comes after the first.
    """

    def __init__(
        self, service: Service, store: str, batches: Sequence[Batch], crash: bool, log: Path, *, together: int = 1
    ) -> None:
        self._service, self._store, self._batches, self._crash, self._log = service, store, batches, crash, log
        self._together = together
        self._workers: list[subprocess.Popen[bytes]] = []  # also those that are gone
        self._records: list[Record] = []
        self._actors: set[str] = set()  # workers by the names that they have in the history
        self._half_way_at: float | None = None
        self._at_kill: dict[str, int] = {}  # the version of each process; empty before
        self._entries: list[Entry] = []
        self._seen = Seen(0, 0, 0, 0, 0)
        self._trouble = ""
        self._began = time.monotonic()

    async def run(self, show: Show) -> None:
        show.say(self._service.notice)
        documents = len(self._batches[0].documents)
        show.say(f"{len(self._batches)} processes ask about {documents} documents · {shown(self._store)}")
        async with Onward(self._store, flows=[check_status]) as app:
            await app.start_many(self._batches)
            try:
                for _ in range(self._together):
                    self._start_worker(show)
                while not await self._look(app, show):
                    if self._crash and not self._at_kill and self._half_way():
                        await self._kill(app, show)
                    if sum(bool(worker.poll()) for worker in self._workers) > bool(self._at_kill):
                        self._trouble = f"a worker ended in trouble, see {self._log}"
                        break
                    await app.store.wait_for_change(0.2)
            except TimeoutError as error:
                self._trouble = str(error)
            finally:
                for worker in self._workers:
                    _end(worker)
            self._entries = [entry for batch in self._batches for entry in await app.history(batch.id)]
            self._seen = await self._service.seen(*self._made())

    async def _look(self, app: Onward, show: Show) -> bool:
        """Shows what is new. True when nothing will move any more."""
        before = {record.id: record.version for record in self._records}
        records = [await app.get(batch.id) for batch in self._batches]
        for record in records:
            if record.version != before.get(record.id):
                for entry in await app.history(record.id, after=before.get(record.id, -1)):
                    self._actors.add(entry.actor)
                    if entry.kind != "saved" and entry.version <= record.version:
                        show.happened(entry)
        show.stand(records)
        self._records = records
        if time.monotonic() - self._began > self._service.seconds_max:
            raise TimeoutError(f"not done within {self._service.seconds_max:g} s")
        return all(record.due_at is None for record in records)

    def _half_way(self) -> bool:
        """Every process has asked, and some are still waiting for their answers; if possible, each worker has had its share."""
        order = list(Status)
        asked = all(order.index(Status(record.status)) >= order.index(PENDING[0]) for record in self._records)
        if not asked or not any(record.status in PENDING for record in self._records):
            return False
        self._half_way_at = self._half_way_at or time.monotonic()
        working = sum(actor.startswith("worker-") for actor in self._actors)
        return working >= self._together or time.monotonic() > self._half_way_at + COMPANY_SECONDS

    async def _kill(self, app: Onward, show: Show) -> None:
        victim = self._workers[0]
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        await self._look(app, show)
        self._at_kill = {record.id: record.version for record in self._records}
        pending = sum(record.status in PENDING for record in self._records)
        show.say(f"✂ worker 1 was killed with SIGKILL while {pending} processes wait for answers")
        show.say(f"  {sum(record.transition for record in self._records)} stages are resolved, and stay so")
        if self._together == 1:
            self._start_worker(show)
        show.say("  worker 2 goes on; it knows nothing but the rows")

    def _start_worker(self, show: Show) -> None:
        # So few at once that there is something for each of them. The store goes by the environment, which nobody else sees.
        share = min(CONCURRENCY_MAX, math.ceil(len(self._batches) / self._together))
        command = [sys.executable, "-m", "onward", "--app", "onward.demo.flow:app", "run", "--until-idle"]
        with self._log.open("ab") as log:
            worker = subprocess.Popen(
                [*command, "--lease", LEASE_SECONDS, "--concurrency", str(share)],
                env={**self._service.environment, "ONWARD_STORE": self._store},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._workers.append(worker)
        show.say(f"worker {len(self._workers)} is process {worker.pid}")

    # -- the verdict ------------------------------------------------------------------------------------------

    def _made(self) -> tuple[list[str], list[str], list[str]]:
        """Every file and response that any version of any process has known, and how their files' names begin."""
        made: dict[str, set[str]] = {"files": set(), "responses": set()}
        for entry in self._entries:
            data = json.loads(entry.data) if entry.data else {}
            for kind, ids in made.items():
                ids.update(data.get(kind, {}).values())
        return sorted(made["files"]), sorted(made["responses"]), [f"{batch.id}." for batch in self._batches]

    def _stages(self) -> str:
        """How many stages were resolved, by which worker, before and after the kill. The history knows, and nothing else."""
        moves = [entry for entry in self._entries if entry.from_status not in (None, entry.to_status)]
        said = f"{len(moves)} stages resolved"
        if not self._at_kill:
            return said
        last = max(moves, key=lambda entry: entry.at).actor  # whoever was not killed
        before = Counter(entry.actor == last for entry in moves if entry.version <= self._at_kill[entry.process_id])
        after = Counter(entry.actor == last for entry in moves if entry.version > self._at_kill[entry.process_id])

        def by(worker: Counter[bool]) -> str:
            return " + ".join(f"{worker[second]} by worker {second + 1}" for second in (False, True) if worker[second]) or "none"

        return f"{said} (before the kill {by(before)}, after it {by(after)})"

    def report(self) -> int:
        """Prints the answers, how to look again, and the last line."""
        for record in self._records:
            batch = record.process
            print(f"\n{record.id}  {batch.question}")
            for name, answer in batch.answers.items():
                # The stand-in begins each answer by saying what it is; that was said at the top.
                said = " ".join(line for line in answer.splitlines() if not line.startswith(f"({NOTICE}"))
                print(f"  {name}: {printable(said, ANSWER_CHARS_MAX)}")
            for name, problem in batch.problems.items():
                print(f"  {name}: no answer, {printable(problem, ANSWER_CHARS_MAX)}")
        look = f"{_command()} --app onward.demo.flow:app --store {shlex.quote(shown(self._store))}"
        print(f"\nLook again:  {look} ls\n             {look} history {self._records[0].id}")
        if is_postgres(self._store):
            print(f"It leaves the PostgreSQL schema {_home(self._store)}. In psql: DROP SCHEMA {_home(self._store)} CASCADE;")
        faults = self._faults()
        seen = self._seen
        print(
            f"\ndemo: {'FAILED' if faults else 'ok'} · {len(self._records)} processes, {self._stages()}"
            f" · files: {seen.files_created} created, {seen.files_left} left"
            f" · responses: {seen.responses_created} created, {seen.responses_left} left"
            f" · {seen.twice} duplicate effects" + "".join(f" · {fault}" for fault in faults)
        )
        return 1 if faults else 0

    def _faults(self) -> list[str]:
        seen = self._seen
        unfinished = [record for record in self._records if record.condition is not Condition.FINISHED]
        unanswered = sum(len(record.process.problems) for record in self._records)
        expected = sum(len(batch.documents) for batch in self._batches)
        checks = {
            self._trouble: bool(self._trouble),
            f"{len(unfinished)} processes did not finish": bool(unfinished),
            f"{unanswered} documents have no answer": bool(unanswered),
            "something was left behind": bool(seen.files_left or seen.responses_left),
            "something was done twice": bool(seen.twice),
            f"{expected} files and responses were to be created": (seen.files_created, seen.responses_created)
            != (expected, expected),
            "the worker was never killed while responses were pending": self._crash and not self._at_kill,
        }
        return [fault for fault, found in checks.items() if found]


def _command() -> str:
    """How `onward` is called from here: after `make demo` it stands in an environment that is not on the path."""
    beside = Path(sys.executable).parent / "onward"
    if shutil.which("onward") or not beside.exists():
        return "onward"
    return str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside)


def _end(worker: subprocess.Popen[bytes]) -> None:
    if worker.poll() is None:
        worker.terminate()
        try:
            worker.wait(15)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
