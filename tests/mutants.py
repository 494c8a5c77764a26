"""Does the suite see what it is there to see? Plants known bugs in the engine, one after another, and runs tests against each.

    make mutants                      all of them
    make mutants NAMES="no_fence …"   these

A mutant is a bug of faults/bugs.py, planted in the program that runs the tests and in all programs that those start; nothing
of it is in the package. It is caught by a test that fails with it and passes without it: the tests are run once more with
nothing planted, by the same means. Each mutant has to be caught by at least two tests; those of one function with other
parameters, or of the contract on other stores, count as one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from faults.bugs import MORE, PLANTED, TWENTY

HERE = Path(__file__).parent
CATCHERS_MIN = 2
PATIENCE_S = 120  # for all tests of a mutant; what has not failed by then has not caught it
AT_ONCE = 2
ALREADY_THERE = "ignore:Module already imported so cannot be rewritten"  # with a bug in it

LITE, POSTGRES = "test_store.py::TestInMemory::", "test_store_postgres.py::TestContract::"
MODEL = "test_lease_model.py::test_no_order_of_claims_pauses_deaths_lost_answers_and_acts_breaks_the_rules"
MORE_CLAIMS = "test_lease_model.py::test_nor_does_any_order_of_more_claims"
WORKER, FAULTS, PEOPLE = "test_worker.py::test_", "test_store_faults.py::test_", "test_control.py::test_"
VERDICTS, CLOCKS, VERSIONS = "test_verdicts.py::test_", "test_clocks.py::test_", "test_versions.py::test_"
OLD_EPOCH = "test_a_commit_of_the_right_version_and_an_old_epoch_is_refused_and_leaves_no_trace"
OLD_VERSION = "test_a_commit_of_the_right_epoch_and_an_old_version_is_refused_and_leaves_no_trace"
EPOCH_GROWS = "test_the_epoch_grows_with_each_claim_and_each_act_and_is_never_reset"
ONE_TAKES_IT = "test_rivals_that_claim_at_once_never_get_the_same_process"
LEASE_OVER = "test_a_live_lease_is_left_alone_and_one_that_is_over_is_taken_over"
BLOCKED = "faults/test_handlers.py::test_a_handler_that_blocks_for_five_leases_keeps_its_process"
BLOCKS = f"{VERDICTS}a_handler_that_blocks_the_event_loop_has_a_lease_all_the_while"
LONG = f"{WORKER}a_handler_that_takes_longer_than_its_lease_keeps_it"

CATCHERS: Mapping[str, Sequence[str]] = {
    "fence_by_version_only": (MODEL, LITE + OLD_EPOCH, POSTGRES + OLD_EPOCH),
    "no_fence": (MODEL, LITE + OLD_EPOCH, POSTGRES + OLD_EPOCH, LITE + OLD_VERSION, POSTGRES + OLD_VERSION),
    "fence_by_owner_only": (MODEL, LITE + OLD_VERSION, POSTGRES + OLD_VERSION),
    "epoch_of_the_lease": (MODEL, LITE + EPOCH_GROWS, POSTGRES + EPOCH_GROWS),
    "claim_by_a_list_of_before": (MODEL, LITE + ONE_TAKES_IT, POSTGRES + ONE_TAKES_IT),
    "renew_what_others_have": (
        MODEL,
        f"{LITE}test_nobody_prolongs_the_lease_of_another_or_one_that_was_given_back",
        f"{POSTGRES}test_nobody_prolongs_the_lease_of_another_or_one_that_was_given_back",
        f"{LITE}test_renewing_prolongs_and_never_shortens_and_tells_what_is_lost",
    ),
    "release_what_others_have": (
        MODEL,
        f"{LITE}test_release_leaves_alone_what_is_no_longer_ours",
        f"{POSTGRES}test_release_leaves_alone_what_is_no_longer_ours",
    ),
    "write_again_what_may_be_written": (MODEL, f"{VERDICTS}a_transition_whose_answer_was_lost_is_made_once"),
    "act_on_what_nobody_saw": (
        MODEL,
        f"{LITE}test_an_act_on_a_version_that_has_moved_on_is_a_conflict_that_says_where_it_is_now",
        f"{POSTGRES}test_an_act_on_a_version_that_has_moved_on_is_a_conflict_that_says_where_it_is_now",
        f"{PEOPLE}two_people_at_once_one_of_them_is_told_no",
    ),
    "never_take_over": (
        MODEL,
        LITE + LEASE_OVER,
        POSTGRES + LEASE_OVER,
        f"{WORKER}what_a_dead_worker_held_is_taken_over_when_its_lease_is_over_and_not_before",
    ),
    "take_over_at_the_start_only": (MORE_CLAIMS, LITE + LEASE_OVER, POSTGRES + LEASE_OVER),
    "tell_before_the_commit": (
        f"{WORKER}observers_are_told_after_the_commit_of_each_one_in_its_order",
        f"{VERDICTS}nobody_is_told_of_a_commit_that_was_refused",
    ),
    "swallow_errors_of_a_group": (
        f"{FAULTS}a_full_disk_never_acknowledges_what_it_rolled_back_and_goes_on_once_there_is_space",
        f"{FAULTS}an_error_in_a_group_makes_each_one_be_tried_alone",
    ),
    "flush_now_and_then": (
        f"{VERDICTS}what_cannot_be_flushed_is_acknowledged_to_nobody",
        "test_store.py::test_every_connection_writes_ahead_and_flushes_what_it_acknowledges",
    ),
    "begin_deferred": (
        f"{VERDICTS}a_claim_waits_for_a_guest_and_takes_what_he_started",
        f"{VERDICTS}a_start_waits_for_a_guest_and_finds_what_he_started",
    ),
    "beat_in_the_loop": (BLOCKED, BLOCKS),
    "expiry_by_the_workers_clock": (
        f"{CLOCKS}a_lease_is_over_when_the_database_says_so_whatever_the_clock_of_a_worker",
        f"{CLOCKS}what_waits_is_due_when_the_database_says_so_whatever_the_clock_of_a_worker",
        f"{CLOCKS}workers_whose_clocks_are_wrong_work_as_ever",
    ),
    "count_attempts_when_they_fail": (
        MORE_CLAIMS,
        f"{LITE}test_a_claim_counts_the_attempt_and_raises_the_epoch_and_is_no_commit",
        f"{POSTGRES}test_a_claim_counts_the_attempt_and_raises_the_epoch_and_is_no_commit",
        f"{WORKER}a_process_whose_workers_die_again_and_again_is_failed_in_the_end",
    ),
    "fail_what_is_unknown": (
        f"{FAULTS}a_row_of_a_status_or_flow_that_nobody_knows_is_shown_and_left_alone",
        f"{WORKER}until_idle_leaves_alone_what_other_code_knows",
    ),
    "act_without_a_new_epoch": (
        MODEL,
        f"{LITE}test_an_act_stands_in_the_history_with_who_and_why_and_fences_who_runs_it",
        f"{POSTGRES}test_an_act_stands_in_the_history_with_who_and_why_and_fences_who_runs_it",
    ),
    "claim_without_a_new_epoch": (MODEL, LITE + EPOCH_GROWS, POSTGRES + EPOCH_GROWS),
    "claim_what_newer_code_wrote": (
        f"{VERSIONS}older_code_leaves_alone_what_it_does_not_know_and_says_why",
        f"{VERSIONS}old_and_new_code_side_by_side_rolled_forward_and_back_touch_nothing_that_is_not_theirs",
    ),
    "claim_what_others_have": (MODEL, LITE + LEASE_OVER),
    "cut_off_by_old_news": (
        f"{VERDICTS}news_of_an_older_lease_ends_nothing",
        "faults/test_leases.py::test_a_slow_heartbeat_takes_nothing_away_from_its_own_worker",
    ),
    "no_heartbeat": (LONG, BLOCKED, BLOCKS),
    "keep_what_was_rolled_back": (
        f"{LITE}test_what_a_handler_rolled_back_leaves_no_trace",
        f"{POSTGRES}test_what_a_handler_rolled_back_leaves_no_trace",
        f"{LITE}test_a_commit_past_the_fence_takes_what_the_handler_wrote_with_it",
    ),
    "transition_without_its_transaction": (
        f"{LITE}test_what_a_handler_writes_is_committed_with_its_transition",
        f"{POSTGRES}test_what_a_handler_writes_is_committed_with_its_transition",
        "test_transactions.py::test_what_a_handler_writes_is_committed_with_its_transition_and_seen_by_nobody_before",
    ),
}


@dataclass(frozen=True)
class Run:
    """What became of the tests of one mutant: ids as pytest writes them, without the parameters."""

    name: str
    failed: Collection[str]
    passed: Collection[str]
    took: float
    said: str  # if it did not come to an end, or could not begin

    @property
    def caught_by(self) -> dict[str, list[str]]:
        """The functions, each with the files in which it failed: the contract is one on two stores."""
        found: dict[str, list[str]] = {}
        for test in sorted(self.failed):
            file, _, function = test.partition("::")
            found.setdefault(function.rpartition("::")[2], []).append(file)
        return found

    @property
    def blind(self) -> list[str]:
        """What is listed as a test that catches it, and did not fail."""
        return sorted(set(CATCHERS.get(self.name, ())) - set(self.failed))

    @property
    def is_caught(self) -> bool:
        return len(self.caught_by) >= CATCHERS_MIN and not self.blind


def environment(name: str) -> dict[str, str]:
    """Of a program that has that bug, and of all that it starts."""
    paths = [str(HERE / "planting"), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "ONWARD_MUTANT": name, "PYTHONPATH": os.pathsep.join(paths)}


def run(name: str, tests: Iterable[str], patience: float = PATIENCE_S) -> Run:
    """Runs these tests with that bug in them and in all their programs."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        done = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "--tb=native", "-p", "no:cacheprovider", "-p", "no:xdist",
             "-W", ALREADY_THERE, f"--junitxml={report}", *tests],
            cwd=HERE, env=environment(name), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            output, _ = done.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            os.killpg(done.pid, 9)
            output = f"it took longer than {patience:g} s\n{done.communicate()[0]}"
        ended = done.returncode in (0, 1) and report.exists()
        failed, passed = _read(report) if ended else (set(), set())
    return Run(name, failed, passed, time.monotonic() - begun, "" if ended else output)


def _read(report: Path) -> tuple[set[str], set[str]]:
    """The tests that failed, and those that passed with all of their parameters."""
    failed, passed = set(), set()
    for case in ElementTree.parse(report).iter("testcase"):
        *module, last = (case.get("classname") or "").removeprefix(f"{HERE.name}.").split(".")
        place = f"{'/'.join(module)}.py::{last}" if last.startswith("Test") else f"{'/'.join([*module, last])}.py"
        test = f"{place}::{(case.get('name') or '').partition('[')[0]}"
        if case.find("failure") is not None or case.find("error") is not None:
            failed.add(test)
        elif case.find("skipped") is None:
            passed.add(test)
    return failed, passed - failed


def judge(names: Collection[str]) -> tuple[Run, list[Run]]:
    """The run without a bug, and those with one. Only what passes without is counted with."""
    every = sorted({test for name in names for test in CATCHERS[name]})
    with ThreadPoolExecutor(AT_ONCE) as pool:
        without = pool.submit(run, "nothing", every, 5 * PATIENCE_S)
        runs = list(pool.map(lambda name: run(name, CATCHERS[name]), names))
        sound = without.result()
    return sound, [
        Run(one.name, set(one.failed) & set(sound.passed), one.passed, one.took, one.said) for one in runs
    ]  # fmt: skip


def table(runs: Sequence[Run]) -> str:
    lines = ["| mutant | what it plants | caught by | s |", "| --- | --- | --- | --: |"]
    for one in runs:
        plants = (PLANTED[one.name].__doc__ or "").partition("\n")[0]
        caught = ", ".join(f"`{'`, `'.join(files)}::{test}`" for test, files in one.caught_by.items()) or "nothing"
        blind = f"; not by {', '.join(f'`{test}`' for test in one.blind)}" if one.blind else ""
        lines.append(f"| {one.name} | {plants} | {len(one.caught_by)}: {caught}{blind} | {one.took:.0f} |")
    return "\n".join(lines)


def main(asked: Sequence[str]) -> int:
    if unknown := set(asked) - set(CATCHERS):
        print(f"no such mutant: {', '.join(sorted(unknown))}; there are: {', '.join(CATCHERS)}")
        return 2
    sound, runs = judge(asked or list(CATCHERS))
    print(table(runs) + "\n")
    wrong = [one for one in (sound, *runs) if one.said]
    for one in wrong:
        print(f"{one.name} did not come to its end:\n{one.said}")
    if sound.failed:
        print(f"fail without any bug: {', '.join(sorted(sound.failed))}")
    for title, group in (("the twenty", TWENTY), ("more", MORE)):
        of = [one for one in runs if one.name in group]
        if of:
            caught = sum(one.is_caught for one in of)
            print(f"{title}: {caught} of {len(of)} are caught, each by {CATCHERS_MIN} tests or more")
    return int(bool(sound.failed) or bool(sound.said) or not all(one.is_caught for one in runs))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
