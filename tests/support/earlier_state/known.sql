CREATE TABLE members (
    destination TEXT NOT NULL,
    session TEXT NOT NULL,
    peer TEXT NOT NULL,
    since TEXT NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (destination, session, peer)
) WITHOUT ROWID;
CREATE TABLE entries (
    destination TEXT NOT NULL,
    observer TEXT NOT NULL,
    observed TEXT NOT NULL,
    content TEXT NOT NULL,
    PRIMARY KEY (destination, observer, observed, content)
) WITHOUT ROWID;
CREATE TABLE done (destination TEXT NOT NULL, what TEXT NOT NULL, PRIMARY KEY (destination, what)) WITHOUT ROWID;
CREATE TABLE names (
    destination TEXT NOT NULL,
    own TEXT NOT NULL,
    session TEXT NOT NULL,
    earlier TEXT NOT NULL,
    PRIMARY KEY (destination, own),
    UNIQUE (destination, session)
) WITHOUT ROWID;
INSERT INTO members (destination, session, peer, since, at) VALUES ('embedded hermes', 'a', 'hermes', '2026-11-26T03:28:41.048831Z', 1795663721.0537188);
INSERT INTO members (destination, session, peer, since, at) VALUES ('embedded hermes', 'a', 'ada', '2026-11-26T03:28:41.048831Z', 1795663721.0537188);
INSERT INTO names (destination, own, session, earlier) VALUES ('embedded hermes', 'a-99b4ae0e261695ce9cb3', 'a', '');
PRAGMA user_version = 3;
