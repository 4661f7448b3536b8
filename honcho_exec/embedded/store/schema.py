"""The tables of `memory.db`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

__all__ = ["MIGRATIONS"]

_FIRST: Final = """
CREATE TABLE workspace (
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    metadata TEXT NOT NULL,
    configuration TEXT NOT NULL,
    created_at TEXT NOT NULL
);
CREATE TABLE peer (
    key INTEGER PRIMARY KEY,
    workspace INTEGER NOT NULL REFERENCES workspace,
    id TEXT NOT NULL,
    metadata TEXT NOT NULL,
    configuration TEXT NOT NULL,
    created_at TEXT NOT NULL,
    UNIQUE (workspace, id)
);
CREATE TABLE session (
    key INTEGER PRIMARY KEY,
    workspace INTEGER NOT NULL REFERENCES workspace,
    id TEXT NOT NULL,
    is_active INTEGER NOT NULL DEFAULT 1,
    metadata TEXT NOT NULL,
    configuration TEXT NOT NULL,
    created_at TEXT NOT NULL,
    UNIQUE (workspace, id)
);
CREATE TABLE member (
    session INTEGER NOT NULL REFERENCES session,
    peer INTEGER NOT NULL REFERENCES peer,
    observe_me INTEGER,
    observe_others INTEGER,
    joined_at TEXT NOT NULL,
    left_at TEXT,
    PRIMARY KEY (session, peer)
) WITHOUT ROWID;
CREATE INDEX member_peer ON member (peer);
CREATE TABLE message (
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    workspace INTEGER NOT NULL REFERENCES workspace,
    session INTEGER NOT NULL REFERENCES session,
    position INTEGER NOT NULL,
    peer INTEGER NOT NULL REFERENCES peer,
    content TEXT NOT NULL,
    metadata TEXT NOT NULL,
    token_count INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    UNIQUE (session, position)
);
CREATE INDEX message_peer ON message (peer);
CREATE VIRTUAL TABLE message_words USING fts5(content, day, tokenize = 'porter unicode61 remove_diacritics 2');
CREATE TABLE conclusion (
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    workspace INTEGER NOT NULL REFERENCES workspace,
    observer INTEGER NOT NULL REFERENCES peer,
    observed INTEGER NOT NULL REFERENCES peer,
    session INTEGER REFERENCES session,
    content TEXT NOT NULL,
    level TEXT NOT NULL DEFAULT 'explicit',
    created_at TEXT NOT NULL
);
CREATE INDEX conclusion_pair ON conclusion (observer, observed);
CREATE INDEX conclusion_session ON conclusion (session);
CREATE VIRTUAL TABLE conclusion_words USING fts5(content, tokenize = 'porter unicode61 remove_diacritics 2');
CREATE TABLE card (
    observer INTEGER NOT NULL REFERENCES peer,
    target TEXT NOT NULL,
    lines TEXT NOT NULL,
    PRIMARY KEY (observer, target)
) WITHOUT ROWID;
"""

# Earlier versions kept the name of a deleted session, empty and inactive.
_FREE_NAMES: Final = "DELETE FROM session WHERE NOT is_active;"

MIGRATIONS: Final[Sequence[str]] = (_FIRST, _FREE_NAMES)
"""Scripts, oldest first; a released one is never edited."""
