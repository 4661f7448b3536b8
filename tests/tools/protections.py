"""Take each protection out, and see that a test fails without it.

    python tests/tools/protections.py [WORD …] [--jobs 2]

Each protection is a few lines of the package. In a copy of the checkout they are changed so that they protect nothing,
and the tests that ought to notice are run there. What was noticed, and by which test, is printed as a table. The exit
status is 1 if nobody noticed, or if one of the tests fails with every protection in its place. With WORDs, only the
protections in whose names one of them is.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PROTECTIONS", "Protection"]

ROOT = Path(__file__).parents[2]
COPIED = ("honcho_exec", "tests", "docs", "setup.cfg", "README.md")
PATIENCE = 300.0
"""Seconds after which a run counts as failed: without some protections a test waits for ever."""

DELIVERY = "tests/unit/delivery/test_delivery.py"
OUTBOX = "tests/unit/outbox/test_outbox.py"
MOVED = "tests/unit/outbox/test_outbox_moved.py"
WRITER = "tests/unit/outbox/test_writer.py"
MIGRATION = "tests/unit/storage/test_migration.py"
DURABILITY = "tests/integration/test_durability.py"
OUTAGE = "tests/integration/test_outage.py"
KILL = "tests/reliability/test_kill.py"
MACHINE = "tests/reliability/test_delivery_machine.py"
OUTBOX_MACHINE = "tests/reliability/test_outbox_machine.py"
INTERRUPTS = "tests/integration/test_interrupts.py"
CONTRACT = "tests/reliability/test_contract.py"


@dataclass(frozen=True)
class Protection:
    """Something that keeps a promise.

    Attributes:
        name: what is protected, in words.
        module: where, below `honcho_exec/`.
        lines: as they stand in the source, once.
        without: what stands there when it protects nothing.
        tests: which tests must notice.
    """

    name: str
    module: str
    lines: str
    without: str
    tests: tuple[str, ...]

    def take_out(self, package: Path) -> None:
        """Change the copy of the package; ValueError when its source has other lines."""
        path = package / self.module
        source = path.read_text(encoding="utf-8")
        if source.count(self.lines) != 1:
            raise ValueError(
                f"{self.module} has these lines {source.count(self.lines)} times, not once; say in"
                f" {Path(__file__).name} how {self.name!r} is kept now: {self.lines!r}"
            )
        path.write_text(source.replace(self.lines, self.without), encoding="utf-8")


PROTECTIONS = (
    Protection(
        "a turn is committed before sync_turn returns",
        "outbox/writer.py",
        "            self._waiting.append(change)\n",
        "            self._waiting.append(change)\n            change.let_go()\n            time.sleep(0.1)\n",
        (f"{OUTBOX}::test_what_was_admitted_survives_the_process",),
    ),
    Protection(
        "a turn given while the outbox is locked waits in memory",
        "outbox/writer.py",
        "            except Busy:\n                self._delay()\n                return False\n",
        "",
        (f"{DURABILITY}::test_a_turn_that_is_given_while_somebody_locks_the_outbox_is_kept_and_delivered",),
    ),
    Protection(
        "turns that were not stored when the provider closes fail",
        "outbox/writer.py",
        "                self._fail(change, StateError(",
        "                (lambda *_: None)(change, StateError(",
        (f"{WRITER}::test_closing_tells_that_turns_in_memory_were_not_stored",),
    ),
    Protection(
        "a change that cannot be made costs no other",
        "outbox/writer.py",
        "                if len(batch) == 1:\n                    self._fail(self._waiting.popleft(), _known(error))\n",
        "                for _ in batch:\n                    self._fail(self._waiting.popleft(), _known(error))\n",
        (f"{WRITER}::test_change_that_cannot_be_made_costs_no_other",),
    ),
    Protection(
        "one thread at a time stores",
        "outbox/writer.py",
        "        while self._active.acquire(blocking=False):\n            try:\n",
        "        while True:\n"
        '            self._active = type("", (), {"locked": bool, "release": id})()\n'
        "            try:\n",
        (f"{WRITER}::test_threads_of_many_callers_are_served_by_one_at_a_time",),
    ),
    Protection(
        "what was in the spill of an earlier version is imported once",
        "outbox/migrations.py",
        '"INSERT OR IGNORE INTO taken VALUES (?, ?)"',
        '"INSERT OR REPLACE INTO taken VALUES (?, ?)"',
        (f"{WRITER}::test_spill_of_an_earlier_version_is_imported_first_and_once",),
    ),
    Protection(
        "what was committed is flushed to the disk by the lane",
        "delivery/pump.py",
        "            self._outbox.file.flush()\n",
        "",
        (f"{DELIVERY}::test_what_the_lane_has_seen_survives_a_power_cut",),
    ),
    Protection(
        "the server is asked before anything is sent again",
        "delivery/attempt.py",
        "        if batch.must_verify and not isinstance(",
        "        if not batch and not isinstance(",
        (f"{MACHINE}::test_each_failure_by_itself",),
    ),
    Protection(
        "what may still arrive is waited for",
        "delivery/attempt.py",
        "        if wait > 0 and len(stored)",
        "        if wait > 1e9 and len(stored)",
        (f"{MACHINE}::test_each_failure_by_itself",),
    ),
    Protection(
        "a card is not sent again before the first attempt is over",
        "delivery/attempt.py",
        "not isinstance(batch.rows[0].write, Deletion):\n",
        'type(batch.rows[0].write).__name__ not in {"Deletion", "Card"}:\n',
        (f"{DELIVERY}::test_a_card_that_lands_late_does_not_stand_over_the_next",),
    ),
    Protection(
        "a look counts from its beginning",
        "delivery/attempt.py",
        "        wait = batch.ambiguous_until.since(self._clock.boot_time()) or 0.0\n"
        "        stored = exists(self.api, batch, batch.rows)\n",
        "        stored = exists(self.api, batch, batch.rows)\n"
        "        wait = batch.ambiguous_until.since(self._clock.boot_time()) or 0.0\n",
        (f"{MACHINE}::test_what_is_done_while_the_server_looks_is_not_sent_again",),
    ),
    Protection(
        "a request is recorded before it is sent",
        "outbox/outbox.py",
        "SET attempts = attempts + 1, must_verify = 1, ambiguous_boot = ?",
        "SET attempts = attempts + 1, ambiguous_boot = ?",
        (f"{MACHINE}::test_each_failure_by_itself",),
    ),
    Protection(
        "a row leaves the file only after the answer",
        "delivery/attempt.py",
        "        try:\n            send(self.api, batch, rows, ",
        "        self._on_passed(batch, rows, probe=probe)\n        try:\n            send(self.api, batch, rows, ",
        (f"{MACHINE}::test_each_failure_by_itself",),
    ),
    Protection(
        "a message carries the key of its row",
        "client/api.py",
        "metadata[ROW_KEY] = key\n",
        "pass\n",
        (f"{MACHINE}::test_each_failure_by_itself",),
    ),
    Protection(
        "rows of a batch that was sent are not sent in another",
        "outbox/claim.py",
        "owner <> ? OR batch IS NOT NULL AS barred",
        "owner <> ? AS barred",
        (f"{OUTBOX_MACHINE}::TestOutbox", f"{MACHINE}::test_a_message_that_is_tried_again_lets_nobody_overtake"),
    ),
    Protection(
        "only Honcho's own list is taken for an answer to the look",
        "client/reconciliation.py",
        "            self._check_page()\n            if collect(",
        "            if collect(",
        (f"{MACHINE}::test_a_look_that_fails_says_nothing_of_what_was_looked_for",),
    ),
    Protection(
        "a look that is refused parks nothing",
        "delivery/requests.py",
        "        raise Unavailable(str(error), cause=error.cause, status=error.status) from error\n",
        "        raise\n",
        (f"{MACHINE}::test_a_look_that_fails_says_nothing_of_what_was_looked_for",),
    ),
    Protection(
        "all conclusions of a batch must be there, not one",
        "delivery/requests.py",
        " if known.issuperset(row.write.texts)]\n",
        " if known]\n",
        (f"{MACHINE}::test_a_conclusion_that_is_there_already_does_not_vouch_for_those_beside_it",),
    ),
    Protection(
        "what has a source key is not written twice",
        "delivery/attempt.py",
        "        stored += already_stored(self.api, [row for row in current.rows if row not in stored])\n",
        "",
        ("tests/integration/test_promises.py::test_what_was_imported_twice_is_there_once",),
    ),
    Protection(
        "only the holder of a stream's oldest row may send",
        "outbox/claim.py",
        '        if head is None or head["owner"] != self._holder.name:\n',
        "        if head is None:\n",
        (f"{OUTBOX}::test_within_a_stream_only_the_holder_of_the_oldest_row_may_send",),
    ),
    Protection(
        "a living holder's rows are not adopted",
        "outbox/outbox.py",
        " and not self._holder.alive(owner)]",
        "]",
        (f"{OUTBOX}::test_a_row_is_its_holders_until_that_is_dead", f"{MACHINE}::TestDelivery"),
    ),
    Protection(
        "another process is alive as long as its mark is locked",
        "outbox/lease.py",
        "        except OSError:\n            return True\n        finally:\n",
        "        except OSError:\n            return False\n        finally:\n",
        (f"{KILL}::test_a_dead_process_is_followed_within_seconds_and_a_living_one_that_hangs_is_not",),
    ),
    Protection(
        "a dead holder's rows are adopted",
        "delivery/pump.py",
        "            elif not self._outbox.adopt():\n",
        "            elif True:\n",
        (f"{DELIVERY}::test_a_later_process_delivers_to_the_session_the_turn_was_given_in",),
    ),
    Protection(
        "a forked child does not use its parent's lane",
        "runtime/lane.py",
        "        if self._forks != fork_count():\n            raise Closed(ADVICE)\n",
        "",
        ("tests/unit/runtime/test_lane.py::test_a_lane_is_closed_in_a_forked_child_and_a_new_one_works",),
    ),
    Protection(
        "a forked child inherits no SQLite connection",
        "storage/pool.py",
        "        pool.close_idle()\n",
        "        pass\n",
        (
            "tests/integration/test_forks.py::test_a_child_is_left_no_connection_and_does_not_lose_its_log_when_the_parent_ends",
        ),
    ),
    Protection(
        "only the lane reaches the cache",
        "client/session_cache.py",
        "        self._lane.check()\n        if not ref.key:",
        "        if not ref.key:",
        ("tests/integration/test_race.py::test_the_cache_cannot_be_reached_from_another_thread",),
    ),
    Protection(
        "who is a member does not join again",
        "client/membership.py",
        "for peer, observes in wanted.items() if peer not in self._members[session]}",
        "for peer, observes in wanted.items()}",
        ("tests/unit/conversation/test_joining.py",),
    ),
    Protection(
        "a list of members that is nonsense has nobody join again",
        "client/api.py",
        'honcho.Session(session, self._sdk).peers())\n            self._guard.check_answer("items")\n',
        "honcho.Session(session, self._sdk).peers())\n",
        (f"{MACHINE}::test_a_list_of_members_that_is_nonsense_joins_nobody_again",),
    ),
    Protection(
        "Futures settle in the order of their turns",
        "delivery/turns.py",
        "        for future in done:\n",
        "        for future in reversed(done):\n",
        (f"{MACHINE}::test_turns_that_go_together_are_told_of_in_their_order",),
    ),
    Protection(
        "a refused batch is halved until the row is found",
        "delivery/poison.py",
        "        if len(batch.rows) > 1:\n            self._outbox.bisect(batch)\n            return\n",
        "",
        (f"{DELIVERY}::test_a_refused_message_is_parked_and_the_others_arrive",),
    ),
    Protection(
        "a server that refuses everything parks nothing",
        "delivery/poison.py",
        "            self._attempts.api.ping()\n        except RequestError:\n            return False\n",
        "            self._attempts.api.ping()\n        except RequestError:\n            pass\n",
        ("tests/integration/test_outage.py::test_a_server_that_suddenly_refuses_everything_parks_nothing",),
    ),
    Protection(
        "a refused key is not hammered",
        "delivery/schedule.py",
        "_AUTH_PAUSE_SECONDS = 60.0\n",
        "_AUTH_PAUSE_SECONDS = 0.0\n",
        (f"{MACHINE}::test_during_an_outage_it_is_tried_again_and_not_hammered",),
    ),
    Protection(
        "a server that fails everything parks nothing",
        "delivery/poison.py",
        "            if not self._something_passes(batch):\n",
        "            if False:\n",
        (f"{DELIVERY}::test_a_server_that_chokes_on_everything_parks_nothing",),
    ),
    Protection(
        "rows that fail next to a suspect are suspects too",
        "delivery/poison.py",
        "                suspects.append(behind)\n",
        "                skipped.add(behind.stream)\n",
        (f"{MACHINE}::test_many_that_cannot_go_hold_nobody_up",),
    ),
    Protection(
        "a suspect is handed to the holder of the next row",
        "delivery/poison.py",
        "                    self._outbox.hand_over(suspect)\n",
        "                    pass\n",
        (f"{MACHINE}::test_one_that_the_server_chokes_on_does_not_hold_up_another_process",),
    ),
    Protection(
        "a suspect is parked before what overtook it is settled",
        "delivery/attempt.py",
        "        if probe:\n"
        "            self._park_overtaken(batch)\n"
        "        self.refusals = 0\n"
        "        self._complete(rows, new=True)\n",
        "        self._complete(rows, new=True)\n        if probe:\n            self._park_overtaken(batch)\n",
        (f"{MACHINE}::test_killed_where_a_suspect_is_overtaken",),
    ),
    Protection(
        "a suspect waits until it is known whether it was overtaken",
        "delivery/attempt.py",
        "        if self._was_overtaken(batch):\n",
        "        if False:\n",
        (f"{MACHINE}::test_a_suspect_whose_overtaking_is_not_known_waits",),
    ),
    Protection(
        "an outage is met with waits that grow",
        "delivery/schedule.py",
        "        pause = self._pause_after(error)\n",
        "        pause = 0.0\n",
        (f"{MACHINE}::test_during_an_outage_it_is_tried_again_and_not_hammered",),
    ),
    Protection(
        "a server that is back after a short outage is used soon",
        "delivery/sender.py",
        "        self._breaker.allow_probe()\n",
        "",
        ("tests/unit/net/test_backoff.py::test_an_outage_is_over_soon_after_it_and_costs_few_requests",),
    ),
    Protection(
        "all conversations follow the first that reaches the server again",
        "net/backoff.py",
        "        waiting = _outages().pop(self._endpoint)\n",
        "        waiting: list[Backoff] = []\n",
        ("tests/unit/net/test_backoff.py::test_once_one_gets_through_all_others_follow_at_once",),
    ),
    Protection(
        "a backlog goes in batches of 100",
        "outbox/claim.py",
        "MAX_BATCH = 100\n",
        "MAX_BATCH = 10\n",
        (f"{DELIVERY}::test_a_backlog_drains_in_few_requests",),
    ),
    Protection(
        "a full outbox takes nothing more",
        "outbox/enqueue.py",
        'f" WHERE (SELECT rows FROM size) + ? <= ? {on_conflict}"',
        'f" WHERE (SELECT rows FROM size) + ? <= ? + 9 {on_conflict}"',
        (f"{OUTBOX}::test_a_full_outbox_takes_all_of_a_turn_or_nothing",),
    ),
    Protection(
        "what is being sent cannot be dropped",
        "outbox/inspection.py",
        '"DELETE FROM rows WHERE (parked_at IS NOT NULL OR NOT must_verify)"',
        '"DELETE FROM rows WHERE true"',
        (f"{DELIVERY}::test_a_turn_that_a_person_drops_is_told_to_whoever_waits", f"{OUTBOX_MACHINE}::TestOutbox"),
    ),
    Protection(
        "a damaged file is kept",
        "storage/database.py",
        "            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))\n",
        "            path.with_name(path.name + suffix).unlink()\n",
        (f"{OUTBOX}::test_a_damaged_file_is_set_aside_and_a_new_one_begun",),
    ),
    Protection(
        "a file that another process uses is not upgraded",
        "storage/migration.py",
        'connection.execute("PRAGMA locking_mode=EXCLUSIVE")\n',
        "pass\n",
        (f"{MIGRATION}::test_file_that_another_process_uses_is_not_upgraded",),
    ),
    Protection(
        "rows are copied before a file is upgraded",
        "storage/migration.py",
        "            _back_up(connection, path)\n",
        "            pass\n",
        (f"{MIGRATION}::test_backup_is_private_and_as_the_earlier_version_left_the_file",),
    ),
    Protection(
        "a file that was moved is seen to be",
        "storage/database.py",
        "            if not pool.moved:\n                if connection",
        "            if True:\n                if connection",
        (f"{DURABILITY}::test_killed_after_the_state_was_removed",),
    ),
    Protection(
        "turns whose rows were removed with their file fail",
        "delivery/turns.py",
        "        if newest is None or newest is self._incident:\n",
        "        if True:\n",
        (f"{DURABILITY}::test_turns_of_a_removed_state_fail_and_later_ones_are_delivered",),
    ),
    Protection(
        "what is left of the log of a moved file is removed",
        "storage/pool.py",
        "                path.unlink(missing_ok=True)\n",
        "                pass\n",
        (f"{MOVED}::test_a_copy_that_is_put_back_is_not_mixed_with_the_log_of_another",),
    ),
    Protection(
        "an id alone does not say which row it is",
        "outbox/outbox.py",
        "\"(id, turn) IN (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))\"",
        "\"id IN (SELECT json_extract(value, '$[0]') FROM json_each(?))\"",
        (f"{MOVED}::test_nothing_that_was_settled_in_a_moved_file_takes_another_row_with_it",),
    ),
    Protection(
        "who is alive is seen to be where the marks were removed",
        "outbox/lease.py",
        "        while not self.closed and not self.marked:\n",
        "        while False:\n",
        (f"{MOVED}::test_processes_that_use_a_removed_folder_do_not_take_each_other_for_dead",),
    ),
    Protection(
        "on a full disk the reserved space is given back",
        "delivery/pump.py",
        " and not isinstance(error, Busy) and self._outbox.file.make_room()\n",
        " and False\n",
        (
            "tests/integration/test_full_disk.py::test_pending_rows_are_delivered_on_a_full_file_system_and_everything_resumes",
        ),
    ),
    Protection(
        "the outbox's log is emptied when it is long",
        "storage/pool.py",
        "wal_autocheckpoint={_MAX_LOG_PAGES}",
        "wal_autocheckpoint=0",
        (f"{OUTBOX}::test_the_log_stays_below_four_times_the_pending_rows",),
    ),
    Protection(
        "deleted rows are overwritten",
        "storage/pool.py",
        "PRAGMA secure_delete=ON",
        "PRAGMA secure_delete=OFF",
        (f"{OUTBOX}::test_nothing_of_what_was_delivered_stays_in_the_files",),
    ),
    Protection(
        "the log next to the file is emptied",
        "outbox/file.py",
        "        self._db.truncate_log()\n        self.reserve",
        "        self._db.checkpoint()\n        self.reserve",
        (f"{OUTBOX}::test_nothing_of_what_was_delivered_stays_in_the_files",),
    ),
    Protection(
        "nobody else may read the files",
        "storage/database.py",
        "os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600",
        "os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644",
        (f"{OUTBOX}::test_nothing_of_what_was_delivered_stays_in_the_files",),
    ),
    Protection(
        "processes that begin a file at once all use it",
        "storage/pool.py",
        "!= sqlite3.SQLITE_BUSY or time.monotonic() >= ends",
        "!= sqlite3.SQLITE_BUSY or True",
        (f"{OUTBOX}::test_processes_that_begin_the_same_file_at_once_all_can_use_it",),
    ),
    Protection(
        "no fork while a thread is inside SQLite",
        "forks.py",
        "            self._changed.wait_for(lambda: self._inside.keys() <= {me}, timeout=_FORK_WAIT_SECONDS)\n",
        "",
        ("tests/integration/test_forks.py",),
    ),
    Protection(
        "the next try comes in its time, not with the idle look",
        "delivery/schedule.py",
        "                self._timer.set(delay, keep_alive=keep_alive)\n",
        "                self._timer.is_set or self._timer.set(delay, keep_alive=keep_alive)\n",
        (f"{OUTAGE}::test_the_next_try_comes_in_its_time_however_long_the_idle_looks_are_apart",),
    ),
    Protection(
        "a refusal is believed only so often",
        "delivery/poison.py",
        "return self._attempts.refusals <= _MAX_BELIEVED or self._something_passes(batch)",
        "return True",
        (f"{OUTAGE}::test_writes_that_are_all_refused_are_not_parked_one_by_one",),
    ),
    Protection(
        "one try of a session's opening at a time",
        "conversation/opening.py",
        "                self._retry_timer.set(delay)\n",
        "                Timer(self._retry).set(delay)\n",
        (f"{OUTAGE}::test_tool_calls_in_an_outage_do_not_add_up_to_more_and_more_tries",),
    ),
    Protection(
        "a session that cannot be opened is waited for once",
        "conversation/pending_sync.py",
        "return min(deadline.remaining(), _BRIEF_SECONDS) if waited_out else deadline.remaining()",
        "return deadline.remaining()",
        (f"{OUTAGE}::test_a_session_that_cannot_be_opened_is_waited_for_once_and_is_not_green",),
    ),
    Protection(
        "a tool's reads share one deadline",
        "conversation/reader.py",
        '        since: float = getattr(self._thread, "since", self._clock.monotonic())\n',
        "        since = self._clock.monotonic()\n",
        (f"{OUTAGE}::test_a_tools_reads_share_one_deadline",),
    ),
    Protection(
        "calls run where no signal handler interrupts them",
        "runtime/offload.py",
        "    if _pool().here:\n        return job()\n",
        "    return job()\n",
        (f"{INTERRUPTS}::test_call_that_is_interrupted_at_any_line_stops_nothing",),
    ),
    Protection(
        "a Future is completed although a caller left its condition locked",
        "delivery/futures.py",
        "        held = self._condition.acquire(timeout=_LEAKED_SECONDS)\n",
        "        held = self._condition.acquire()\n",
        (f"{INTERRUPTS}::test_future_is_completed_although_its_condition_stays_locked",),
    ),
    Protection(
        "what a callback raises ends no thread of ours",
        "runtime/log.py",
        "    except BaseException as error:",
        "    except Exception as error:",
        (f"{OUTAGE}::test_delivery_survives_callbacks_that_raise_base_exceptions",),
    ),
    Protection(
        "a failing server is left alone",
        "net/breaker.py",
        "            opens = self._probing or self._failures >= self._threshold\n",
        "            opens = False\n",
        (f"{OUTAGE}::test_with_an_open_breaker_tools_answer_at_once_and_say_when_to_try",),
    ),
    Protection(
        "what another process cannot send is not green",
        "provider/status.py",
        "    return failed_at is not None and (delivered_at is None or failed_at > delivered_at)\n",
        "    return False\n",
        (f"{OUTAGE}::test_what_another_process_cannot_send_is_not_green",),
    ),
)


@dataclass(frozen=True)
class Noticed:
    """What tests said; `by` is the first that failed, or why there is none, and None where all passed."""

    by: str | None


def run(tests: Iterable[str], out: Protection | None = None) -> Noticed:
    """Run tests in a copy of the checkout, with a protection taken out of it."""
    with tempfile.TemporaryDirectory(prefix="without-") as folder:
        copy = Path(folder)
        for name in COPIED:
            place = ROOT / name
            if place.is_dir():
                shutil.copytree(place, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(place, copy / name)
        if out is not None:
            out.take_out(copy / "honcho_exec")
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-m",
            "",
            "-x",
            "-q",
            "--no-header",
            "-p",
            "no:cacheprovider",
            *tests,
        ]
        try:
            done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=PATIENCE, check=False)
        except subprocess.TimeoutExpired:
            return Noticed(f"it is busy for ever ({' '.join(tests)})")
        if done.returncode == 0:
            return Noticed(None)
        failed = re.search(r"^(?:FAILED|ERROR) \S+?::(.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
        if failed is None or done.returncode != 1:
            raise RuntimeError(f"{out and out.name}: the tests did not run\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return Noticed(failed[1])


def main() -> None:
    """Take out what was asked for, print the table, and fail if anything went unnoticed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("words", nargs="*", metavar="WORD")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    chosen = [one for one in PROTECTIONS if not arguments.words or any(word in one.name for word in arguments.words)]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        whole = pool.submit(run, sorted({test for one in chosen for test in one.tests}))
        found = list(zip(chosen, pool.map(lambda one: run(one.tests, one), chosen), strict=True))
    sys.exit(show(found, whole.result()))


def show(found: Sequence[tuple[Protection, Noticed]], whole: Noticed) -> int:
    """Print the table; returns the exit status."""
    print("| without this | this test fails |")
    print("| --- | --- |")
    for protection, noticed in found:
        print(f"| {protection.name} | {f'`{noticed.by}`' if noticed.by else '**nobody noticed**'} |")
    if whole.by is not None:
        print(f"\nWith every protection in its place, {whole.by} fails.")
    return 1 if whole.by is not None or any(noticed.by is None for _, noticed in found) else 0


if __name__ == "__main__":
    main()
