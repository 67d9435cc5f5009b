"""The tables and indexes of the file."""

import sqlite3

# Expressions for what a list shows and filters by: what Slurm says of the job, else what the task asks for. A
# query must have an expression in the same words as its index.
TASK_NAME = "json_extract(task, '$.name')"
JOB_NAME = "coalesce(json_extract(job, '$.name'), json_extract(task, '$.slurm.job_name'))"
PARTITION = "coalesce(json_extract(job, '$.partition'), json_extract(task, '$.slurm.partition'))"

SCHEMA = f"""
CREATE TABLE IF NOT EXISTS tasks (
    uuid TEXT PRIMARY KEY,
    slurm_username TEXT NOT NULL,
    slurm_job_id INTEGER,
    slurm_job_state TEXT,
    is_open INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    submit_time INTEGER,
    task TEXT NOT NULL,
    job TEXT,
    idempotency_key TEXT UNIQUE,
    warnings TEXT NOT NULL,
    submission_error TEXT,
    alarm_at INTEGER,
    caller TEXT,
    kind TEXT,
    resubmitted_from TEXT,
    taken_over_at INTEGER,
    defaults TEXT
);
CREATE INDEX IF NOT EXISTS tasks_job_id ON tasks (slurm_job_id, created_at);
CREATE INDEX IF NOT EXISTS tasks_state ON tasks (slurm_job_state, created_at);
CREATE INDEX IF NOT EXISTS tasks_user ON tasks (slurm_username, slurm_job_state, created_at);
CREATE INDEX IF NOT EXISTS tasks_open ON tasks (is_open) WHERE is_open;
CREATE INDEX IF NOT EXISTS tasks_caller ON tasks (caller) WHERE is_open;
CREATE INDEX IF NOT EXISTS tasks_ended ON tasks (updated_at) WHERE NOT is_open;
CREATE INDEX IF NOT EXISTS tasks_resubmitted ON tasks (resubmitted_from, created_at)
    WHERE resubmitted_from IS NOT NULL;
CREATE INDEX IF NOT EXISTS tasks_reserved ON tasks (created_at)
    WHERE slurm_job_id IS NULL AND slurm_job_state IS NULL AND submission_error IS NULL;
CREATE INDEX IF NOT EXISTS tasks_created ON tasks (created_at);
CREATE INDEX IF NOT EXISTS tasks_user_created ON tasks (slurm_username, created_at);
CREATE INDEX IF NOT EXISTS tasks_caller_created ON tasks (caller, created_at) WHERE caller IS NOT NULL;
CREATE INDEX IF NOT EXISTS tasks_name ON tasks ({TASK_NAME}, created_at);
CREATE INDEX IF NOT EXISTS tasks_job_name ON tasks ({JOB_NAME}, created_at);
CREATE INDEX IF NOT EXISTS tasks_partition ON tasks ({PARTITION}, created_at);
CREATE TABLE IF NOT EXISTS notifications (
    id TEXT PRIMARY KEY,
    uuid TEXT NOT NULL REFERENCES tasks (uuid) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    method TEXT NOT NULL,
    status TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    attempt_after INTEGER,
    claim TEXT,
    last_error TEXT,
    sent_at INTEGER,
    revived_at INTEGER,
    recipient TEXT,
    digest TEXT,
    message TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS notifications_due ON notifications (method, attempt_after)
    WHERE attempt_after IS NOT NULL;
CREATE INDEX IF NOT EXISTS notifications_uuid ON notifications (uuid, position);
CREATE INDEX IF NOT EXISTS notifications_status ON notifications (status);
CREATE INDEX IF NOT EXISTS notifications_gathered ON notifications (recipient) WHERE recipient IS NOT NULL;
CREATE INDEX IF NOT EXISTS notifications_digest ON notifications (digest) WHERE digest IS NOT NULL;
CREATE TABLE IF NOT EXISTS windows (
    recipient TEXT PRIMARY KEY, until INTEGER NOT NULL, count INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS windows_until ON windows (until);
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY, last_used_at INTEGER, revoked_at INTEGER, key TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS leases (
    name TEXT PRIMARY KEY, owner TEXT NOT NULL, until INTEGER NOT NULL, fence INTEGER NOT NULL, report TEXT
);
CREATE TABLE IF NOT EXISTS reports (
    name TEXT PRIMARY KEY, host TEXT NOT NULL, at INTEGER NOT NULL, figures TEXT NOT NULL
);
"""
# Columns that files of an earlier version do not have.
_ADDED_COLUMNS = (
    ("tasks", "alarm_at INTEGER"),
    ("tasks", "caller TEXT"),
    ("tasks", "kind TEXT"),
    ("tasks", "resubmitted_from TEXT"),
    ("tasks", "taken_over_at INTEGER"),
    ("tasks", "defaults TEXT"),
    ("leases", "report TEXT"),
    ("notifications", "revived_at INTEGER"),
    ("notifications", "recipient TEXT"),
    ("notifications", "digest TEXT"),
)


def add_missing_columns(connection: sqlite3.Connection) -> None:
    """Add the columns that a file of an earlier version does not have."""
    for table, column in _ADDED_COLUMNS:
        existing = {row["name"] for row in connection.execute(f"PRAGMA table_info({table})")}
        if existing and column.split()[0] not in existing:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {column}")
