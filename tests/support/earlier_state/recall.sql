CREATE TABLE session (
    destination TEXT NOT NULL,
    name TEXT NOT NULL,
    turns INTEGER NOT NULL DEFAULT 0,
    llm_calls INTEGER NOT NULL DEFAULT 0,
    characters INTEGER NOT NULL DEFAULT 0,
    answered INTEGER,
    tried INTEGER NOT NULL DEFAULT 0,
    empty INTEGER NOT NULL DEFAULT 0,
    used_at REAL NOT NULL,
    PRIMARY KEY (destination, name)
) WITHOUT ROWID;
INSERT INTO session VALUES ('embedded hermes', 'a', 7, 2, 900, 5, 5, 0, 1795663721.0);
PRAGMA user_version = 1;
