CREATE TABLE rows (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    destination TEXT NOT NULL,
    stream TEXT NOT NULL,
    owner TEXT NOT NULL,
    turn TEXT NOT NULL,
    kind TEXT NOT NULL,
    workspace TEXT NOT NULL,
    session TEXT NOT NULL,
    user_peer TEXT NOT NULL,
    ai_peer TEXT NOT NULL,
    payload TEXT NOT NULL,
    dedup TEXT UNIQUE,
    admitted_at REAL NOT NULL,
    batch TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    first_sent_at REAL,
    look INTEGER NOT NULL DEFAULT 0,
    settle_at REAL NOT NULL DEFAULT 0,
    error TEXT,
    parked_at REAL
    , key TEXT, admitted_by TEXT NOT NULL DEFAULT '', place TEXT, admitted_boot TEXT NOT NULL DEFAULT '', admitted_seconds REAL NOT NULL DEFAULT 0, ambiguous_boot TEXT NOT NULL DEFAULT '', session_key TEXT NOT NULL DEFAULT '');
CREATE TABLE health (destination TEXT PRIMARY KEY, delivered_at REAL, error TEXT, error_at REAL);
CREATE TABLE size (rows INTEGER NOT NULL);
CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY,
    destination TEXT NOT NULL,
    at REAL NOT NULL,
    waited REAL NOT NULL,
    rows INTEGER NOT NULL
);
CREATE TABLE taken (key TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE stored_conclusions (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE);
CREATE TABLE dated_sessions (
    id INTEGER PRIMARY KEY,
    destination TEXT NOT NULL,
    session TEXT NOT NULL,
    latest REAL NOT NULL,
    UNIQUE (destination, session)
);
CREATE TABLE arrivals (
    origin TEXT NOT NULL,
    place TEXT NOT NULL,
    boot TEXT NOT NULL,
    seconds REAL NOT NULL,
    PRIMARY KEY (origin, place)
) WITHOUT ROWID;
INSERT INTO rows (id, destination, stream, owner, turn, kind, workspace, session, user_peer, ai_peer, payload, dedup, admitted_at, batch, attempts, first_sent_at, look, settle_at, error, parked_at, key, admitted_by, place, admitted_boot, admitted_seconds, ambiguous_boot, session_key) VALUES (1, 'here', '["here", "s", "message"]', '35c91ebc2747.03a563370369', 't-parked', 'message', 'w', 's', 'ada', 'hermes', '{"peer": "ada", "content": "refused", "created_at": null, "metadata": {}, "source_key": null}', NULL, 1795663721.138194, '0f77708c247c41d688bd000000000007', 0, 1795663721.162785, 0, 0.0, 'too long', 1795663721.1659896, 'd027b7b842d88b400f8c2c19', '5f7d5f933c8b41d4b97e7baccbc25d4e', 'e5d8863d144f76c800a6896d', '2b748ae6-37fc-4170-941e-0a2c7ed47ea8/monotonic 0 0 boottime 0 0', 30390.231716247, '', '');
INSERT INTO rows (id, destination, stream, owner, turn, kind, workspace, session, user_peer, ai_peer, payload, dedup, admitted_at, batch, attempts, first_sent_at, look, settle_at, error, parked_at, key, admitted_by, place, admitted_boot, admitted_seconds, ambiguous_boot, session_key) VALUES (2, 'here', '["here", "s", "message"]', '35c91ebc2747.03a563370369', 't-sent', 'message', 'w', 's', 'ada', 'hermes', '{"peer": "ada", "content": "sent", "created_at": null, "metadata": {}, "source_key": "k1"}', '["here", "message", "s", "k1"]', 1795663721.166143, '0f77708c247c41d688bd000000000008', 1, 1795663721.1695225, 1, 30396.263405149, NULL, NULL, '535da4768c61b91dab1b3fa8', '5f7d5f933c8b41d4b97e7baccbc25d4e', 'e5d8863d144f76c800a6896d', '2b748ae6-37fc-4170-941e-0a2c7ed47ea8/monotonic 0 0 boottime 0 0', 30390.259665001, '2b748ae6-37fc-4170-941e-0a2c7ed47ea8/monotonic 0 0 boottime 0 0', '');
INSERT INTO rows (id, destination, stream, owner, turn, kind, workspace, session, user_peer, ai_peer, payload, dedup, admitted_at, batch, attempts, first_sent_at, look, settle_at, error, parked_at, key, admitted_by, place, admitted_boot, admitted_seconds, ambiguous_boot, session_key) VALUES (3, 'here', '["here", "s", "message"]', '35c91ebc2747.03a563370369', 't-sent', 'message', 'w', 's', 'ada', 'hermes', '{"peer": "hermes", "content": "answered", "created_at": null, "metadata": {}, "source_key": "k2"}', '["here", "message", "s", "k2"]', 1795663721.1661932, '0f77708c247c41d688bd000000000008', 1, 1795663721.1695225, 1, 30396.263405149, NULL, NULL, 'd95c324a33cac384ef2979e6', '5f7d5f933c8b41d4b97e7baccbc25d4e', 'e5d8863d144f76c800a6896d', '2b748ae6-37fc-4170-941e-0a2c7ed47ea8/monotonic 0 0 boottime 0 0', 30390.259713303, '2b748ae6-37fc-4170-941e-0a2c7ed47ea8/monotonic 0 0 boottime 0 0', '');
INSERT INTO rows (id, destination, stream, owner, turn, kind, workspace, session, user_peer, ai_peer, payload, dedup, admitted_at, batch, attempts, first_sent_at, look, settle_at, error, parked_at, key, admitted_by, place, admitted_boot, admitted_seconds, ambiguous_boot, session_key) VALUES (4, 'here', '["here", "s", "message"]', '35c91ebc2747.03a563370369', 't-fresh', 'message', 'w', 's', 'ada', 'hermes', '{"peer": "ada", "content": "fresh", "created_at": null, "metadata": {}, "source_key": "k3"}', '["here", "message", "s", "k3"]', 1795663721.1701772, NULL, 0, NULL, 0, 0.0, NULL, NULL, 'a15998668f6c072a87f12412', '5f7d5f933c8b41d4b97e7baccbc25d4e', 'e5d8863d144f76c800a6896d', '2b748ae6-37fc-4170-941e-0a2c7ed47ea8/monotonic 0 0 boottime 0 0', 30390.263697924, '', '');
INSERT INTO rows (id, destination, stream, owner, turn, kind, workspace, session, user_peer, ai_peer, payload, dedup, admitted_at, batch, attempts, first_sent_at, look, settle_at, error, parked_at, key, admitted_by, place, admitted_boot, admitted_seconds, ambiguous_boot, session_key) VALUES (5, 'here', '["here", "s", "conclusion", "hermes", "ada"]', '35c91ebc2747.03a563370369', 't-concluded', 'conclusion', 'w', 's', 'ada', 'hermes', '{"content": "grows tomatoes", "observer": "hermes", "observed": "ada", "id": null, "created_at": null}', '["here", "conclusion", "hermes", "ada", "grows tomatoes"]', 1795663721.1704545, NULL, 0, NULL, 0, 0.0, NULL, NULL, 'a7649126c0604c32828ac0a6', '5f7d5f933c8b41d4b97e7baccbc25d4e', 'e5d8863d144f76c800a6896d', '2b748ae6-37fc-4170-941e-0a2c7ed47ea8/monotonic 0 0 boottime 0 0', 30390.263975236, '', '');
INSERT INTO health (destination, delivered_at, error, error_at) VALUES ('here', NULL, 'refused', 1795663721.1708078);
INSERT INTO size (rows) VALUES (5);
CREATE INDEX rows_by_owner ON rows (destination, parked_at, owner, id);
CREATE INDEX rows_by_stream ON rows (stream, parked_at, id);
CREATE INDEX rows_by_batch ON rows (batch);
CREATE INDEX rows_by_turn ON rows (turn);
CREATE TRIGGER row_added AFTER INSERT ON rows BEGIN UPDATE size SET rows = rows + 1; END;
CREATE TRIGGER row_gone AFTER DELETE ON rows BEGIN UPDATE size SET rows = rows - 1; END;
CREATE TRIGGER delivery_added AFTER INSERT ON deliveries BEGIN
    DELETE FROM deliveries WHERE id <= new.id - 1000;
END;
CREATE TRIGGER stored_conclusion_added AFTER INSERT ON stored_conclusions BEGIN
    DELETE FROM stored_conclusions WHERE id <= new.id - 10000;
END;
CREATE TRIGGER dated_session_added AFTER INSERT ON dated_sessions BEGIN
    DELETE FROM dated_sessions WHERE id <= new.id - 10000;
END;
CREATE INDEX rows_under_way ON rows (stream, id) WHERE look;
PRAGMA user_version = 7;
