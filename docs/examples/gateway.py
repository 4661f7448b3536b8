"""Keep the memories of several people apart in one process: python docs/examples/gateway.py."""

from __future__ import annotations

from honcho_exec import HonchoProvider


def open_chat(key: str, user: str) -> HonchoProvider:
    """Return the memory of one chat; its key names the session, and its user the peer."""
    memory = HonchoProvider()
    memory.initialize(platform="telegram", gateway_session_key=key, user_id=user)
    return memory


def main() -> None:
    """Serve two people, each of whom finds only what they said."""
    chats = {user: open_chat(f"telegram:dm:{user}", user) for user in ("17", "42")}
    try:
        chats["17"].sync_turn("I am allergic to walnuts.", "I will remember that.")
        chats["42"].sync_turn("I collect walnuts.", "How many have you got?")
        for user, memory in chats.items():
            memory.flush(timeout=10)
            print(user, [hit.content for hit in memory.search("walnuts") if hit.peer != "hermes"])
    finally:
        # Chats share threads, files and connections; each one is shut down when it ends.
        for memory in chats.values():
            memory.shutdown()


if __name__ == "__main__":
    main()
