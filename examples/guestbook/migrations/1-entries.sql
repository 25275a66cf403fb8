-- One row for each entry. The newest first is the order of the identity, so the primary key is the only index.
-- The limits are the ones of src/entry.rs; the application says them kindly, the database makes sure.
create table entries (
    id      bigint      generated always as identity primary key,
    name    text        not null check (char_length(name) between 1 and 60),
    message text        not null check (char_length(message) between 1 and 1000),
    at      timestamptz not null default clock_timestamp()
);
