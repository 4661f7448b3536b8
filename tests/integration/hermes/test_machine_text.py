"""What the real host makes a user's message of is told from what people say, in the host's own words."""

from __future__ import annotations

import time

import pytest
from agent import background_review, context_compressor, conversation_loop, skill_commands
from cron import scheduler
from gateway import run as gateway_run
from hermes_cli import goals
from hypothesis import given
from hypothesis import strategies as st
from support.faulty import FaultyServer
from support.providers import MakeProvider
from tools.process_registry import format_process_notification
from tools.todo_tool import TodoStore

from honcho_exec.text.host_notices import spoken

SAID = "Please book the train to Porto.\n\nThe early one [7:00], if you can."


def delegation(**more: object) -> str:
    event = {"type": "async_delegation", "delegation_id": "d-1", "goal": "find [a] train", "dispatched_at": 1.0, **more}
    return str(format_process_notification(event))


def process(**more: object) -> str:
    event = {"session_id": "proc_1", "command": "make [all]", "exit_code": 0, "output": "a] b [c\n\n[x]", **more}
    return str(format_process_notification(event))


def summary() -> str:
    return f"{context_compressor.SUMMARY_PREFIX}\n## Historical Task Snapshot\nUser asked: 'book a train'\n\n"


def tasks() -> str:
    store = TodoStore()
    store.write([{"id": "1", "content": "book [it]", "status": "in_progress"}])
    return str(store.format_for_injection())


SKILL = {"content": "# Plan\n\nWrite a plan.\n\n[Skill directory: /x]", "name": "plan"}
INVOKED = '[IMPORTANT: The user has invoked the "plan" skill, indicating they want you to follow its instructions. The full skill content is loaded below.]'  # noqa: E501 - the host's own words
AUTO = '[IMPORTANT: The "plan" skill is auto-loaded. Follow its instructions for this session.]'
BUNDLE = (
    '[IMPORTANT: The user has invoked the "trip" skill bundle, loading 2 skills together. Treat every skill below as'
    " active guidance for this turn.]\n\nBundle: trip\nSkills loaded: plan, pay{said}\n\n"
    '[Loaded as part of the "trip" skill bundle.]\n\nWrite a plan.'
)


def skill(note: str, **more: str) -> str:
    return skill_commands._build_skill_message(SKILL, None, note, **more)


def resumed(message: str) -> str:
    return gateway_run.build_resume_recovery_note("restart_timeout", message)


MACHINE = {
    "delegation": delegation(status="completed", summary="It leaves at 7.\n\nWhat do you think?"),
    "failed delegation": delegation(status="error", error="no [route]"),
    "delegation batch": delegation(is_batch=True, goals=["a"], results=[{"task_index": 0, "summary": "x\n\ny"}]),
    "process": process(),
    "killed process": process(exit_code=-15, completion_reason="killed"),
    "watch": process(type="watch_match", pattern="error"),
    "watch off": process(type="watch_disabled", message="Watch patterns disabled for process proc_1 — 3 windows."),
    "compaction": summary() + context_compressor._SUMMARY_END_MARKER,
    "compaction without end": summary(),
    "old compaction": f"{context_compressor.LEGACY_SUMMARY_PREFIX} they spoke of trains",
    "merged compaction": f"{context_compressor._MERGED_PRIOR_CONTEXT_HEADER}\nold words\n\n"
    f"{context_compressor._MERGED_SUMMARY_DELIMITER}\n\n{summary()}{context_compressor._SUMMARY_END_MARKER}",
    "tasks": tasks(),
    "goal": goals.CONTINUATION_PROMPT_TEMPLATE.format(goal="Book a train"),
    "goal and more": goals.CONTINUATION_PROMPT_WITH_SUBGOALS_TEMPLATE.format(goal="Book", subgoals_block="- early"),
    "kanban": goals.KANBAN_GOAL_CONTINUATION_TEMPLATE.format(reason="not [yet]"),
    "kanban end": goals.KANBAN_GOAL_FINALIZE_TEMPLATE.format(reason="done"),
    "kanban stop": "[System: You are a Hermes kanban worker. A reply is not the end.\n\nDo this:\n1. Finish [it].]",
    "cut off": conversation_loop._get_continuation_prompt(is_partial_stub=True),
    "tool call cut off": conversation_loop._get_continuation_prompt(is_partial_stub=True, dropped_tools=["a"]),
    "only thoughts": conversation_loop._CODEX_INCOMPLETE_NUDGE,
    "memory review": background_review._MEMORY_REVIEW_PROMPT,
    "skill review": background_review._SKILL_REVIEW_PROMPT,
    "both reviews": background_review._COMBINED_REVIEW_PROMPT,
    "resumed": resumed(""),
    "skill alone": skill(INVOKED),
    "skill with a note": skill(INVOKED, runtime_note="x"),
    "bundle alone": BUNDLE.format(said=""),
    "model": "[Note: model was just switched from a [x] to b via c. Adjust your self-identification accordingly.]",
    "persona": "[System: The user has changed the assistant's personality. From now on: be [very] brief]",
    "handoff": '[Session was just handed off from CLI ("trip") to this channel. Briefly confirm you\'re here.]',
    "reload": "[USER INITIATED SKILLS RELOAD:\n\nAdded Skills:\n    - plan: plans\n\nUse skills_list.]",
    "servers": "[IMPORTANT: MCP servers have been reloaded. 2 changed. The tool list has been updated accordingly.]",
    "browser": "[System note: The user invoked /browser connect and connected your browser tools to a browser.]",
    "two notes": f"[Note: model was just switched from a to b via c. Go on.]\n\n{process()}",
}

BEFORE_SPEECH = {
    "resumed": resumed(SAID),
    "new message": "[System note: A new message has arrived. IGNORE those pending results.]\n\n" + SAID,
    "model": "[Note: model was just switched from a to b via c. Adjust your self-identification.]\n\n" + SAID,
    "reload and model": f"[USER INITIATED SKILLS RELOAD:\n\nx]\n\n[Note: model was just switched from a]\n\n{SAID}",
    "compaction": f"{summary()}{context_compressor._SUMMARY_END_MARKER}\n\n{SAID}",
    "tasks": f"{tasks()}\n\n{SAID}",
    "discord": "[Triggering message id: `5` — use as `message_id` for reply via the discord tools.]\n\n" + SAID,
    "skill": skill(INVOKED, user_instruction=SAID),
    "skill with a note": skill(INVOKED, user_instruction=SAID, runtime_note="x"),
    "bundle": BUNDLE.format(said=f"\n\nUser instruction: {SAID}"),
}

PEOPLE = [
    SAID,
    "[7:00] works for me",
    "[IMPORTANT: call my mother] and book the train",
    "[IMPORTANT: call my mother]",
    "[System: Windows 11]\n\nIt crashes when I log in.",
    "[Note: I am away on Monday]\n\nBook the train.",
    'What does "[ASYNC DELEGATION COMPLETE — d-1]" mean?',
    "> [IMPORTANT: Background process proc_1 completed normally (exit code 0).\n> Command: ls\n> Output:\n> x]\n\nwhy?",
    "[System note: The previous turn was interrupted by a restart] keeps coming up, what is it?",
    "[ASYNC DELEGATION COMPLETE — d-1] is what I saw. Did it work?",
    "[ASYNC DELEGATION COMPLETE — d-1]\nis what I saw. Did it work?",
    "[IMPORTANT: Background process proc_1 exited] is in my log, fix it",
    f"{process()}\n\nWhy was I shown this?",
    "[CONTEXT COMPACTION — REFERENCE ONLY] shows up in my chats, why?",
    "```\n[CONTEXT COMPACTION — REFERENCE ONLY] Earlier turns were compacted into this.\n```\nis this yours?",
    "[Continuing toward your standing goal] is printed twice",
    '[IMPORTANT: The user has invoked the "plan" skill is what I see in the log',
    "Review the conversation above and update the skill library, please",
    "The full skill content is loaded below.] is missing a bracket",
    "/resume trip",
    f"I got this:\n\n{delegation(status='completed', summary='done')}",
]


@pytest.mark.parametrize("text", MACHINE.values(), ids=MACHINE)
def test_what_the_host_says_is_nobodys_speech(text: str) -> None:
    assert text
    assert spoken(text) == ""
    assert spoken(f"\n{text}\n") == ""


@pytest.mark.parametrize("text", BEFORE_SPEECH.values(), ids=BEFORE_SPEECH)
def test_what_is_said_behind_a_notice_is_kept(text: str) -> None:
    assert text != SAID
    assert spoken(text) == SAID


def test_what_is_said_behind_a_skill_that_came_by_itself_is_kept() -> None:
    assert spoken(f"{skill(AUTO)}\n\n{skill(AUTO)}\n\nBook the train.") == "Book the train."


@pytest.mark.parametrize("text", PEOPLE)
def test_what_people_say_and_quote_is_theirs(text: str) -> None:
    assert spoken(text) == text


def test_a_cron_jobs_prompt_is_nobodys_speech() -> None:
    prompt = scheduler._build_job_prompt({"id": "1", "prompt": "Report [all] news"}) or ""
    assert "Report [all] news" in prompt
    assert spoken(prompt) == ""


@given(st.text().filter(lambda text: not text.strip().startswith(("[", "Review the conversation"))))
def test_ordinary_text_is_all_speech(text: str) -> None:
    assert spoken(text) == text.strip()


@given(st.lists(st.sampled_from(["[", "]", "\n\n", "a", *PEOPLE[:9], *(text[:40] for text in MACHINE.values())])))
def test_it_is_always_an_end_of_the_text_or_a_part_of_a_skill(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert spoken(text) in text
    assert spoken(spoken(text)) in spoken(text)


@pytest.mark.parametrize(
    "seed", ["[System: ", "[System: The x]\n\n", "[", "[ASYNC DELEGATION COMPLETE — ", "\n--- x", "[[]"]
)
def test_hostile_text_takes_time_in_proportion(seed: str) -> None:
    text = f"[System: {seed * (500_000 // len(seed))}"
    start = time.thread_time()
    spoken(text)
    spoken(seed * (500_000 // len(seed)))
    assert time.thread_time() - start < 1


def test_a_machines_message_is_not_stored_as_the_users(server: FaultyServer, make_provider: MakeProvider) -> None:
    provider = make_provider(base_url=server.url)
    provider.sync_turn(MACHINE["delegation"], "It leaves at 7.").result(20)
    provider.sync_turn(BEFORE_SPEECH["resumed"], "Booked.").result(20)
    provider.sync_turn(PEOPLE[5], "It is a notice.").result(20)
    posted = [
        (message["peer_id"], message["content"])
        for seen in server.requests
        if seen.is_for("POST", "/messages$")
        for message in seen.body_json["messages"]
    ]
    assert [content for peer, content in posted if peer == "ada"] == [SAID, PEOPLE[5]]
    assert [content for peer, content in posted if peer == "hermes"] == [
        "It leaves at 7.",
        "Booked.",
        "It is a notice.",
    ]
