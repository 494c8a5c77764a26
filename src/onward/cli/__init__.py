"""The command line: a face of `Control`, and nothing more. Data goes to stdout, all else to stderr."""

from onward.cli import leaving
from onward.cli.group import LazyGroup

# Commands are imported when they are asked for: `onward --help` needs neither the user's app nor a store.
# A name, the module that defines a command of that name, and its line in the overview.
COMMANDS = {
    "Begin": {
        "init": ("onward.cli.init", "Write a small example that runs."),
        "demo": ("onward.cli.demo", "Watch batches of documents go through a crash, without a key."),
    },
    "Work": {
        "run": ("onward.cli.run", "Be a worker: drive every process that is due."),
        "start": ("onward.cli.start", "Start a process; prints its id."),
    },
    "Look": {
        "panel": ("onward.cli.panel", "See all of it in a browser, and act on it."),
        "ls": ("onward.cli.ls", "List processes, or count them."),
        "show": ("onward.cli.show", "Show one process, now or at an earlier version."),
        "history": ("onward.cli.history", "What happened to a process, commit by commit."),
        "diff": ("onward.cli.diff", "What changed in a process's data."),
        "at": ("onward.cli.at", "A process as it was, what came next, and what could have come."),
        "compare": ("onward.cli.compare", "Two futures side by side: a fork and its origin."),
        "export": ("onward.cli.export", "A process as JSON, or as a test that fails where it failed."),
        "watch": ("onward.cli.watch", "Follow one process, or the counts of all."),
        "stats": ("onward.cli.stats", "How many of each flow are in which condition, and how fast they come and go."),
        "workers": ("onward.cli.workers", "Who holds processes right now."),
        "explain": ("onward.cli.show", "Say in one sentence why a process is not moving."),
    },
    "Act": {
        "wake": ("onward.cli.act", "Make waiting processes due now."),
        "retry": ("onward.cli.act", "Let failed processes go on from their stage."),
        "pause": ("onward.cli.act", "Let nothing happen to processes until they are resumed."),
        "resume": ("onward.cli.act", "Let paused processes go on."),
        "cancel": ("onward.cli.act", "Cancel processes: they clean up, then end."),
        "stop": ("onward.cli.act", "End processes here and now, without cleaning up."),
        "move": ("onward.cli.hand", "Move processes to another status by hand."),
        "edit": ("onward.cli.hand", "Change the data of a process, with the difference shown first."),
        "fork": ("onward.cli.hand", "Begin a new process as another one was at a version."),
        "delete": ("onward.cli.act", "Delete processes that are over, with their history."),
    },
    "Check": {
        "graph": ("onward.cli.graph", "Draw a flow: text, Mermaid, SVG or JSON."),
        "check": ("onward.cli.check", "Prove the flows, and hold them against what is stored."),
        "prove": ("onward.cli.prove", "Crash a flow at every point, and compare with an undisturbed run."),
        "db": ("onward.cli.db", "Look after the store: status, upgrade, prune, backup."),
        "doctor": ("onward.cli.doctor", "Facts about this installation, to paste into an issue."),
        "completion": ("onward.cli.completion", "Print the completion script of a shell."),
    },
}

cli = LazyGroup("onward", COMMANDS)


def main() -> None:
    leaving.own_program = True
    cli(prog_name="onward")


__all__ = ["cli", "main"]
