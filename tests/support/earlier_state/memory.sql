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
CREATE VIRTUAL TABLE conclusion_words USING fts5(content, tokenize = 'porter unicode61 remove_diacritics 2');
CREATE TABLE card (
    observer INTEGER NOT NULL REFERENCES peer,
    target TEXT NOT NULL,
    lines TEXT NOT NULL,
    PRIMARY KEY (observer, target)
) WITHOUT ROWID;
INSERT INTO workspace (key, id, metadata, configuration, created_at) VALUES (1, 'hermes', '{}', '{}', '2026-11-26T03:28:41.048831Z');
INSERT INTO peer (key, workspace, id, metadata, configuration, created_at) VALUES (1, 1, 'hermes', '{}', '{}', '2026-11-26T03:28:41.053181Z');
INSERT INTO peer (key, workspace, id, metadata, configuration, created_at) VALUES (2, 1, 'ada', '{}', '{}', '2026-11-26T03:28:41.053181Z');
INSERT INTO session (key, workspace, id, is_active, metadata, configuration, created_at) VALUES (1, 1, 'a', 1, '{}', '{}', '2026-11-26T03:28:41.050442Z');
INSERT INTO member (session, peer, observe_me, observe_others, joined_at, left_at) VALUES (1, 1, 1, 1, '2026-11-26T03:28:41.053181Z', NULL);
INSERT INTO member (session, peer, observe_me, observe_others, joined_at, left_at) VALUES (1, 2, 1, 1, '2026-11-26T03:28:41.053181Z', NULL);
INSERT INTO message (key, id, workspace, session, position, peer, content, metadata, token_count, created_at) VALUES (1, '0f77708c247c41d688bd000000000002', 1, 1, 1, 2, 'I grow tomatoes', '{"honcho_exec_batch":"0f77708c247c41d688bd000000000001","honcho_exec_row":"96fe54c18d4fcbfc1f7c881d"}', 4, '2026-11-26T03:28:41.063853Z');
INSERT INTO message (key, id, workspace, session, position, peer, content, metadata, token_count, created_at) VALUES (2, '0f77708c247c41d688bd000000000003', 1, 1, 2, 1, 'Nice', '{"honcho_exec_batch":"0f77708c247c41d688bd000000000001","honcho_exec_row":"2b56c79539385901a282d874"}', 1, '2026-11-26T03:28:41.063853Z');
INSERT INTO message_words (rowid, content, day) VALUES (1, 'I grow tomatoes', '2026-11-26 november thursday');
INSERT INTO message_words (rowid, content, day) VALUES (2, 'Nice', '2026-11-26 november thursday');
INSERT INTO conclusion (key, id, workspace, observer, observed, session, content, level, created_at) VALUES (1, '0f77708c247c41d688bd000000000006', 1, 1, 2, 1, 'grows tomatoes', 'explicit', '2026-11-26T03:28:41.085925Z');
INSERT INTO conclusion_words (rowid, content) VALUES (1, 'grows tomatoes');
CREATE INDEX member_peer ON member (peer);
CREATE INDEX message_peer ON message (peer);
CREATE INDEX conclusion_pair ON conclusion (observer, observed);
CREATE INDEX conclusion_session ON conclusion (session);
PRAGMA user_version = 2;
