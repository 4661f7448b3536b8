"""Give an agent of your own a memory: python docs/examples/plain_python.py."""

from __future__ import annotations

import json

from honcho_exec import HonchoProvider


def answer(question: str, context: str) -> str:
    """Stand in for your language model, which gets the question and what the memory recalls."""
    return f"({len(context)} characters recalled for {question!r})"


def main() -> None:
    """Make one turn, and look up in a second conversation what was said."""
    with HonchoProvider(session_id="monday") as memory:
        said = "My sister Noor lives in Marseille."
        reply = answer(said, memory.prefetch(said))
        # The turn is on disk when this returns; the Future completes when Honcho has it.
        memory.sync_turn(said, reply).result(timeout=10)
        memory.handle_tool_call("honcho_conclude", {"conclusion": "Has a sister in Marseille"})

    with HonchoProvider(session_id="tuesday") as memory:
        found = json.loads(memory.handle_tool_call("honcho_search", {"query": "Where does the sister live?"}))
        print(found["result"])


if __name__ == "__main__":
    main()
