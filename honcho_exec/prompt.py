"""What the system prompt says of this memory."""

from __future__ import annotations

__all__ = ["system_prompt"]

_MODES = {
    "hybrid": "What Honcho knows of the user is put before each turn, and these tools reach the rest: ",
    "context": "What Honcho knows of the user is put before each turn.",
    "tools": "Nothing is put before the turns; use these tools to reach what Honcho knows: ",
}
_TOOLS = (
    "honcho_profile (standing facts), honcho_search (what was said, in every session), honcho_context (summary, "
    "representation, card, last messages), honcho_reasoning (a question answered by a language model; slow), "
    "honcho_conclude (keep, delete or list lasting facts)."
)


def system_prompt(recall_mode: str) -> str:
    """Static text for a recall mode, so that prompts stay cacheable."""
    return "# Honcho memory\n" + _MODES[recall_mode] + (_TOOLS if recall_mode != "context" else "")
