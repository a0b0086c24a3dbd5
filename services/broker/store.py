"""The broker's tables, as forward-only migrations.

The id of a message, question or reminder is the id of the command that made it: repeating the command finds it there.
"""

from __future__ import annotations

from libhive import redo

MIGRATIONS = (
    """
    CREATE TABLE mailboxes (
        name TEXT PRIMARY KEY, uid INTEGER NOT NULL, open INTEGER NOT NULL, allowed TEXT,
        lease TEXT NOT NULL DEFAULT '', status TEXT NOT NULL DEFAULT ''
    ) WITHOUT ROWID;
    CREATE TABLE holds (agent TEXT NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (agent, reason)) WITHOUT ROWID;
    CREATE TABLE mail (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, recipient TEXT NOT NULL, sender TEXT NOT NULL,
        kind TEXT NOT NULL, body TEXT NOT NULL, in_reply_to TEXT NOT NULL, root TEXT NOT NULL, hops INTEGER NOT NULL,
        question TEXT NOT NULL, choices TEXT NOT NULL, deadline_ms INTEGER NOT NULL, details TEXT NOT NULL,
        state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, lease TEXT NOT NULL DEFAULT '',
        turn TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT '', stored_ms INTEGER NOT NULL,
        offered_ms INTEGER NOT NULL DEFAULT 0, seen_ms INTEGER NOT NULL DEFAULT 0, acked_ms INTEGER NOT NULL DEFAULT 0,
        UNIQUE (id, recipient)
    );
    CREATE INDEX mail_open ON mail (recipient, seq) WHERE state IN ('stored', 'offered', 'seen');
    CREATE INDEX mail_replies ON mail (in_reply_to) WHERE in_reply_to <> '';
    CREATE INDEX mail_by_sender ON mail (sender, seq);
    CREATE INDEX mail_by_recipient ON mail (recipient, seq);
    CREATE TABLE questions (
        id TEXT PRIMARY KEY, asker TEXT NOT NULL, recipient TEXT NOT NULL, text TEXT NOT NULL, choices TEXT NOT NULL,
        state TEXT NOT NULL, asked_ms INTEGER NOT NULL, deadline_ms INTEGER NOT NULL, default_answer TEXT NOT NULL,
        answer TEXT NOT NULL DEFAULT '', answered_by TEXT NOT NULL DEFAULT '', answered_ms INTEGER NOT NULL DEFAULT 0,
        answer_id TEXT NOT NULL DEFAULT ''
    ) WITHOUT ROWID;
    CREATE INDEX questions_open ON questions (deadline_ms) WHERE state = 'open';
    CREATE TABLE reminders (
        id TEXT PRIMARY KEY, agent TEXT NOT NULL, text TEXT NOT NULL, due_ms INTEGER NOT NULL,
        created_ms INTEGER NOT NULL, state TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX reminders_due ON reminders (due_ms) WHERE state = 'pending';
    """,
    """
    ALTER TABLE mail ADD COLUMN ended_ms INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE mail ADD COLUMN pause TEXT NOT NULL DEFAULT '';
    CREATE INDEX mail_held ON mail (pause) WHERE state = 'held';
    CREATE INDEX mail_thread ON mail (root, seq) WHERE hops > 0;
    CREATE TABLE conversations (
        key TEXT PRIMARY KEY, state TEXT NOT NULL, question TEXT NOT NULL, hops_base INTEGER NOT NULL,
        messages_base INTEGER NOT NULL, until_ms INTEGER NOT NULL
    ) WITHOUT ROWID;
    ALTER TABLE reminders ADD COLUMN cron TEXT NOT NULL DEFAULT '';
    ALTER TABLE reminders ADD COLUMN zone TEXT NOT NULL DEFAULT '';
    ALTER TABLE reminders ADD COLUMN catch_up TEXT NOT NULL DEFAULT 'once';
    ALTER TABLE reminders ADD COLUMN set_by TEXT NOT NULL DEFAULT '';
    ALTER TABLE reminders ADD COLUMN fired INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE reminders ADD COLUMN last_ms INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE reminders ADD COLUMN spans TEXT NOT NULL DEFAULT '[]';
    CREATE INDEX reminders_of ON reminders (agent) WHERE state = 'pending';
    CREATE VIRTUAL TABLE mail_words USING fts5(
        body, content='', contentless_delete=1, tokenize='unicode61 remove_diacritics 2'
    );
    CREATE TABLE progress (what TEXT PRIMARY KEY, upto INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE mail_spans (
        last INTEGER PRIMARY KEY, first INTEGER NOT NULL, oldest_ms INTEGER NOT NULL, newest_ms INTEGER NOT NULL
    );
    """,
    """
    DROP INDEX mail_open;
    CREATE INDEX mail_open ON mail (recipient, seq) WHERE (state = 'stored' OR state = 'offered' OR state = 'seen');
    """,
    redo.TABLE,
)
