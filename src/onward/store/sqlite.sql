-- All SQL of the SQLite store, in named blocks. {name} stands for the block of that name.
-- Instants are integer microseconds since 1970 in UTC; `:now` is one reading of the clock, the same in a whole statement.
--
-- Statements work on many rows at once and answer with one row of JSON. Each row that Python steps through gives up the
-- interpreter's lock and, beside a busy event loop, waits up to 5 ms to have it back: row by row, 500 commits took 4 s.

-- name: schema table
-- Numbered migrations: each block `schema N` runs once, in one transaction with the row that says so.
CREATE TABLE IF NOT EXISTS onward_schema (version INTEGER NOT NULL) STRICT

-- name: schema there
SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'onward_schema'

-- name: schema found
SELECT ifnull(max(version), 0) FROM onward_schema

-- name: schema add
INSERT INTO onward_schema (version) VALUES (?)

-- name: schema 1
-- `seq` is there for locality only: a process is known by its id.
CREATE TABLE onward_process (
    seq         INTEGER PRIMARY KEY,
    id          TEXT    NOT NULL UNIQUE,
    flow        TEXT    NOT NULL,
    status      TEXT    NOT NULL,
    condition   TEXT    NOT NULL CHECK (condition IN ('ready', 'waiting', 'retrying', 'failed', 'paused', 'cancelled', 'finished')),
    data        TEXT    NOT NULL,
    version     INTEGER NOT NULL,
    epoch       INTEGER NOT NULL,
    attempt     INTEGER NOT NULL,
    excused     INTEGER NOT NULL DEFAULT 0,
    losses      INTEGER NOT NULL DEFAULT 0,
    polls       INTEGER NOT NULL,
    transition  INTEGER NOT NULL,
    moves       INTEGER NOT NULL,
    cancelling  INTEGER NOT NULL,
    entered_at  INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    due_at      INTEGER,
    owner       TEXT,
    lease_until INTEGER,
    error       TEXT,
    -- How the last commit came about. The triggers below copy it to the history.
    kind        TEXT    NOT NULL,
    actor       TEXT    NOT NULL,
    took        INTEGER,
    reason      TEXT,
    -- Stuck is unrepresentable: a row is over, or waits for a person, or has a time at which somebody takes it.
    CONSTRAINT onward_never_stuck CHECK ((due_at IS NULL) = (condition IN ('finished', 'cancelled', 'failed', 'paused'))),
    CONSTRAINT onward_lease_is_whole CHECK ((owner IS NULL) = (lease_until IS NULL)),
    CONSTRAINT onward_rest_has_no_lease CHECK (due_at IS NOT NULL OR owner IS NULL)
) STRICT;
-- Claiming is scheduling and rescue: one index says who is due, whether by its timer or because its lease ran out.
-- Flow and status stand in it so that rows of unknown code are passed over without being read.
CREATE INDEX onward_process_due ON onward_process (max(due_at, ifnull(lease_until, due_at)), flow, status) WHERE due_at IS NOT NULL;
CREATE INDEX onward_process_created ON onward_process (created_at, id);
-- Append-only, in the order of writing: clustered by (process_id, version) it halved the speed of a commit.
CREATE TABLE onward_history (
    seq         INTEGER PRIMARY KEY,
    process_id  TEXT    NOT NULL,
    version     INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    kind        TEXT    NOT NULL,
    from_status TEXT,
    to_status   TEXT    NOT NULL,
    transition  INTEGER NOT NULL,
    attempt     INTEGER NOT NULL,
    epoch       INTEGER NOT NULL,
    actor       TEXT    NOT NULL,
    took        INTEGER,
    reason      TEXT,
    data        TEXT    -- NULL: as before
) STRICT;
-- The second line of defence behind the fence: no version is ever written twice.
CREATE UNIQUE INDEX onward_history_version ON onward_history (process_id, version);
CREATE TABLE onward_step (
    process_id TEXT    NOT NULL,
    transition INTEGER NOT NULL,
    name       TEXT    NOT NULL,
    result     TEXT    NOT NULL,
    at         INTEGER NOT NULL,
    PRIMARY KEY (process_id, transition, name)
) STRICT, WITHOUT ROWID;
-- Row and history cannot be parted: the history is written by the very statement that writes the row.
CREATE TRIGGER onward_process_started AFTER INSERT ON onward_process BEGIN
    INSERT INTO onward_history (process_id, version, at, kind, from_status, to_status, transition, attempt, epoch, actor, took, reason, data)
    VALUES (new.id, new.version, new.updated_at, new.kind, NULL, new.status, new.transition, 0, new.epoch, new.actor, NULL, new.reason, new.data);
END;
CREATE TRIGGER onward_process_committed AFTER UPDATE OF version ON onward_process BEGIN
    INSERT INTO onward_history (process_id, version, at, kind, from_status, to_status, transition, attempt, epoch, actor, took, reason, data)
    VALUES (new.id, new.version, new.updated_at, new.kind, old.status, new.status, new.transition, old.attempt, new.epoch, new.actor,
            new.took, new.reason, CASE WHEN new.data IS old.data THEN NULL ELSE new.data END);
END;

-- name: schema 2
-- Suspects are next to none, and every claim asks for them first: without this it looked at all that is due to find none.
CREATE INDEX onward_process_suspect ON onward_process (max(due_at, ifnull(lease_until, due_at)))
 WHERE lease_until IS NOT NULL AND losses >= 1;

-- name: schema 3
-- For people: what needs one of them, what has an error, and what workers have in their hands. All of it is little beside what
-- goes on by itself, and a row that does so is in none of these but for the time that a worker holds it.
CREATE INDEX onward_process_stopped ON onward_process (created_at, id) WHERE condition IN ('failed', 'paused');
CREATE INDEX onward_process_error ON onward_process (created_at, id) WHERE error IS NOT NULL;
CREATE INDEX onward_process_owner ON onward_process (owner) WHERE owner IS NOT NULL;
-- What people did. The kinds are those of the block `people`.
CREATE INDEX onward_history_acts ON onward_history (at, process_id, version)
 WHERE kind IN ('started by hand', 'woken', 'retried', 'paused', 'resumed', 'cancelled', 'stopped', 'moved by hand', 'edited', 'forked', 'deleted');

-- name: schema 4
-- Of which version of its model the data are. In the index for the same reason as flow and status: what only newer code can read
-- is passed over without being read, however large it is.
ALTER TABLE onward_process ADD COLUMN data_version INTEGER NOT NULL DEFAULT 1;
ALTER TABLE onward_history ADD COLUMN data_version INTEGER NOT NULL DEFAULT 1;
DROP INDEX onward_process_due;
CREATE INDEX onward_process_due ON onward_process (max(due_at, ifnull(lease_until, due_at)), flow, status, data_version) WHERE due_at IS NOT NULL;
DROP TRIGGER onward_process_started;
CREATE TRIGGER onward_process_started AFTER INSERT ON onward_process BEGIN
    INSERT INTO onward_history (process_id, version, at, kind, from_status, to_status, transition, attempt, epoch, actor, took, reason, data, data_version)
    VALUES (new.id, new.version, new.updated_at, new.kind, NULL, new.status, new.transition, 0, new.epoch, new.actor, NULL, new.reason, new.data, new.data_version);
END;
DROP TRIGGER onward_process_committed;
CREATE TRIGGER onward_process_committed AFTER UPDATE OF version ON onward_process BEGIN
    INSERT INTO onward_history (process_id, version, at, kind, from_status, to_status, transition, attempt, epoch, actor, took, reason, data, data_version)
    VALUES (new.id, new.version, new.updated_at, new.kind, old.status, new.status, new.transition, old.attempt, new.epoch, new.actor,
            -- The same text means another thing in another version, so it is kept again.
            new.took, new.reason, CASE WHEN new.data IS old.data AND new.data_version = old.data_version THEN NULL ELSE new.data END,
            new.data_version);
END;

-- name: columns
id, flow, status, {condition}, data, {rest}

-- name: light
-- The same without the data, which may be large.
id, flow, status, {condition}, '', {rest}

-- name: rest
version, epoch, attempt, polls, transition, moves, cancelling, entered_at, created_at, updated_at, due_at, owner, lease_until,
error, excused, losses, data_version

-- name: condition
-- As it is seen at :now. The row says what was decided; a lease or a clock can make it running or ready.
CASE WHEN lease_until > :now THEN 'running'
     WHEN condition IN ('waiting', 'retrying') AND due_at <= :now THEN 'ready'
     ELSE condition END

-- name: insert
-- Of an id that was deleted the epoch goes on: it fences everybody who had that process, and who may still be at it.
INSERT INTO onward_process (id, flow, status, condition, data, version, epoch, attempt, polls, transition, moves, cancelling,
                            entered_at, created_at, updated_at, due_at, kind, actor, reason, data_version)
SELECT value ->> 0, value ->> 1, value ->> 2, 'ready', value ->> 3, 0,
       (SELECT ifnull(max(h.epoch), 0) FROM onward_history AS h WHERE h.process_id = value ->> 0 AND h.version < 0), 0, 0, 0, 0, 0,
       :now, :now, :now, :now, value ->> 4, :actor, value ->> 5, value ->> 6
  FROM json_each(:processes)
 WHERE true  -- without it the parser takes ON CONFLICT for a join
    ON CONFLICT (id) DO NOTHING

-- name: existing
SELECT json_group_array(id) FROM onward_process WHERE id IN (SELECT value FROM json_each(:ids))

-- name: suspect
-- Its worker was lost with it, and then the next one as well. It may have been the cause, and those that were lost beside it
-- are charged with each attempt as it is: so suspects are taken one at a time, and the deadly one runs out of attempts alone.
(lease_until IS NOT NULL AND losses >= 1)

-- name: known
-- :known is what the caller's code can move.
(flow, status, data_version) IN (SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(:known))

-- name: due
-- Materialised first, so that the update below locks and changes exactly these.
SELECT json_group_array(id) FROM (
    SELECT id FROM onward_process
     WHERE due_at IS NOT NULL
       AND max(due_at, ifnull(lease_until, due_at)) <= :now
       AND {known}
       AND NOT {suspect}
     ORDER BY max(due_at, ifnull(lease_until, due_at)), seq
     LIMIT :limit)

-- name: due suspect
-- By name: a plan that goes through all that is due is a matter of seconds, and nobody would see why.
SELECT json_group_array(id) FROM (
    SELECT id FROM onward_process INDEXED BY onward_process_suspect
     WHERE due_at IS NOT NULL
       AND max(due_at, ifnull(lease_until, due_at)) <= :now
       AND {known}
       AND {suspect}
     ORDER BY max(due_at, ifnull(lease_until, due_at)), seq
     LIMIT 1)

-- name: due of
SELECT json_group_array(id) FROM (SELECT id FROM onward_process
 WHERE id IN (SELECT value FROM json_each(:ids))
   AND due_at <= :now AND (lease_until IS NULL OR lease_until <= :now)
   AND {known}
 ORDER BY max(due_at, ifnull(lease_until, due_at)), seq
 LIMIT :limit)

-- name: claim
-- The attempt is counted here and not when it fails: a handler that kills its worker must not be tried for ever.
-- The version stays: a claim is no commit.
UPDATE onward_process
   SET owner = :owner, epoch = epoch + 1, attempt = attempt + 1, losses = losses + (owner IS NOT NULL), lease_until = :lease_until
 WHERE id IN (SELECT value FROM json_each(:ids))

-- name: claimed
SELECT json_group_array(json_array({columns})) FROM onward_process WHERE id IN (SELECT value FROM json_each(:ids))

-- name: commit
-- The fence: a worker whose lease was taken over finds another epoch, one that a person overtook another version, one whose
-- process is gone and its id used again another owner, and none of them writes anything. One statement is one transaction here:
-- it is durable when it returns. Where fewer rows changed than were given, `committed` says which. Short groups are filled up
-- with rows of NULL, which match nothing. The first three parameters are now: as ?1 some Pythons would take it for a named one.
UPDATE onward_process AS p
   SET status = item.status, condition = item.condition, data = ifnull(item.data, p.data),
       data_version = CASE WHEN item.data IS NULL THEN p.data_version ELSE item.data_version END,
       version = p.version + 1, attempt = item.attempt, excused = item.excused, polls = item.polls, transition = item.transition,
       moves = item.moves, cancelling = item.cancelling, due_at = ? + item.due_after,
       losses = CASE item.kind WHEN 'saved' THEN p.losses ELSE 0 END,  -- to have saved something is no outcome yet
       entered_at = CASE item.enters WHEN 1 THEN ? ELSE p.entered_at END,
       updated_at = max(p.updated_at, ?),  -- stamps of one process never go back, whatever the clock does
       owner = CASE item.goes_on WHEN 1 THEN p.owner END,
       lease_until = CASE item.goes_on WHEN 1 THEN p.lease_until END,
       error = item.error, kind = item.kind, actor = p.owner, took = item.took, reason = item.reason
  FROM (WITH given (id, version, epoch, data, took, transition, moves, status, condition, attempt, polls, cancelling,
                    due_after, enters, goes_on, error, kind, reason, excused, data_version, owner) AS (
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?))
        SELECT * FROM given) AS item
 WHERE p.id = item.id AND p.version = item.version AND p.epoch = item.epoch AND p.owner = item.owner

-- name: committed
-- The places of those items (rows of `given`, above) that stand in the history: ours, even where its answer was lost. The
-- epoch alone does not tell: the same worker may have committed something else to that version.
SELECT json_group_array(item.key) FROM json_each(:items) AS item
  JOIN onward_history AS h
    ON h.process_id = item.value ->> 0 AND h.version = (item.value ->> 1) + 1 AND h.epoch = item.value ->> 2
   AND h.to_status = item.value ->> 7 AND h.transition = item.value ->> 5 AND h.kind = item.value ->> 16
   AND h.took IS item.value ->> 4 AND h.reason IS item.value ->> 17 AND h.actor = item.value ->> 20
   AND CASE WHEN item.value ->> 3 IS NULL THEN h.data IS NULL
            ELSE item.value ->> 3 = (SELECT d.data FROM onward_history AS d
                                      WHERE d.process_id = h.process_id AND d.version <= h.version AND d.data IS NOT NULL
                                      ORDER BY d.version DESC LIMIT 1) END

-- name: act
-- A person's commit: no epoch is asked for, and a new one fences whoever is running it. Within a visit the number of the
-- attempt stays: a claim may have counted one more since the person looked.
UPDATE onward_process
   SET status = :status, condition = :condition, data = ifnull(:data, data), version = version + 1, epoch = epoch + 1,
       data_version = CASE WHEN :data IS NULL THEN data_version ELSE :data_version END,
       excused = :excused, losses = 0,
       attempt = CASE transition WHEN :transition THEN attempt ELSE :attempt END, polls = :polls, transition = :transition, moves = :moves, cancelling = :cancelling, due_at = :due_at,
       entered_at = CASE :enters WHEN 1 THEN :now ELSE entered_at END, updated_at = max(updated_at, :now),
       owner = NULL, lease_until = NULL, error = :error, kind = :kind, actor = :actor, took = NULL, reason = :reason
 WHERE id = :id AND version = :version

-- name: delete
DELETE FROM onward_process WHERE id = :id AND version = :version RETURNING status, transition, epoch

-- name: delete steps
DELETE FROM onward_step WHERE process_id = :id

-- name: delete history
DELETE FROM onward_history WHERE process_id = :id AND version >= 0

-- name: deleted
-- What stays of it. Its version is below those of a process, and of what else was deleted under that id: a new one may come.
INSERT INTO onward_history (process_id, version, at, kind, from_status, to_status, transition, attempt, epoch, actor, reason)
SELECT :id, min(ifnull(min(version), 0), 0) - 1, :now, 'deleted', :status, :status, :transition, 0, :epoch, :actor, :reason
  FROM onward_history WHERE process_id = :id AND version < 0

-- name: renew
-- A renewal never shortens, and leaves the version alone: the handler beside it still has to commit against it.
UPDATE onward_process SET lease_until = max(lease_until, :lease_until)
 WHERE (id, epoch) IN (SELECT value ->> 0, value ->> 1 FROM json_each(:held)) AND owner = :owner

-- name: taken away
SELECT json_group_array(held.value ->> 0) FROM json_each(:held) AS held
  LEFT JOIN onward_process AS p ON p.id = held.value ->> 0
 WHERE p.epoch IS NOT held.value ->> 1

-- name: release
UPDATE onward_process
   SET owner = NULL, lease_until = NULL, due_at = :now, attempt = CASE WHEN :begun THEN attempt ELSE max(attempt - 1, 0) END
 WHERE (id, epoch, owner) IN (SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(:held))

-- name: release all but
UPDATE onward_process SET owner = NULL, lease_until = NULL, attempt = max(attempt - 1, 0)
 WHERE owner = :owner AND id NOT IN (SELECT value FROM json_each(:ids))

-- name: step
-- Fenced by epoch and visit, not by version: many are recorded at once, and a save between them moves the version on.
INSERT INTO onward_step (process_id, transition, name, result, at)
SELECT id, transition, :name, :result, :now FROM onward_process
 WHERE id = :id AND epoch = :epoch AND owner = :owner AND transition = :transition
    ON CONFLICT DO NOTHING

-- name: steps
SELECT json_group_array(json_array(name, result)) FROM onward_step WHERE process_id = :id AND transition = :transition

-- name: get
SELECT json_group_array(json_array({columns})) FROM onward_process WHERE id = :id

-- name: list all
-- A search is put together by store/search.py: one of these lists, whichever is the shortest that holds all that is asked for;
-- then `before` and `until`; then a `term` for each thing that is asked, of which :wanted says whether it has to hold or must
-- not; and at the end `found`. Each list names its index: a plan without it reads a million rows for a page.
WITH found AS (SELECT * FROM onward_process INDEXED BY onward_process_created WHERE created_at IS NOT NULL

-- name: list stopped
WITH found AS (SELECT * FROM onward_process INDEXED BY onward_process_stopped WHERE condition IN ('failed', 'paused')

-- name: list errors
WITH found AS (SELECT * FROM onward_process INDEXED BY onward_process_error WHERE error IS NOT NULL

-- name: list held
WITH found AS (SELECT * FROM onward_process INDEXED BY onward_process_owner WHERE owner IS NOT NULL

-- name: list ids
WITH found AS (SELECT * FROM onward_process INDEXED BY sqlite_autoindex_onward_process_1
 WHERE id IN (SELECT value FROM json_each(:ids))

-- name: list beginning
WITH found AS (SELECT * FROM onward_process INDEXED BY sqlite_autoindex_onward_process_1 WHERE id >= :low AND id < :high

-- name: list words
WITH found AS (SELECT * FROM onward_process NOT INDEXED
 WHERE seq IN (SELECT seq FROM onward_process WHERE id >= :low AND id < :high
               UNION ALL SELECT seq FROM onward_process INDEXED BY onward_process_error WHERE error IS NOT NULL)

-- name: few beginning
SELECT count(*) FROM (SELECT 1 FROM onward_process WHERE id >= :low AND id < :high LIMIT :most)

-- name: few errors
SELECT count(*) FROM (SELECT 1 FROM onward_process INDEXED BY onward_process_error WHERE error IS NOT NULL LIMIT :most)

-- name: before
AND (created_at, id) < (SELECT created_at, id FROM onward_process WHERE id = :id)

-- name: until
AND (created_at, id) >= (:at, :id)

-- name: term flow
AND (flow IN (SELECT value FROM json_each(:values))) = :wanted

-- name: term flow like
AND (EXISTS (SELECT 1 FROM json_each(:patterns) WHERE flow GLOB value)) = :wanted

-- name: term status
-- :renamed are the old names of those statuses, with their flows: [flow, old name].
AND (status IN (SELECT value FROM json_each(:values))
     OR (flow, status) IN (SELECT value ->> 0, value ->> 1 FROM json_each(:renamed))) = :wanted

-- name: term status like
AND (EXISTS (SELECT 1 FROM json_each(:patterns) WHERE status GLOB value)
     OR (flow, status) IN (SELECT value ->> 0, value ->> 1 FROM json_each(:renamed))) = :wanted

-- name: term id
AND (id IN (SELECT value FROM json_each(:values))) = :wanted

-- name: term id like
AND (EXISTS (SELECT 1 FROM json_each(:patterns) WHERE onward_process.id GLOB value)) = :wanted

-- name: term worker
AND (CASE WHEN owner IS NULL THEN false ELSE EXISTS (SELECT 1 FROM json_each(:patterns) WHERE owner GLOB value) END) = :wanted

-- name: term is
AND ({condition} IN (SELECT value FROM json_each(:conditions))) = :wanted

-- name: term is known
-- What is not over and not known is orphaned.
AND (CASE WHEN condition NOT IN ('finished', 'cancelled') AND NOT {known} THEN 'orphaned'
          ELSE {condition} END IN (SELECT value FROM json_each(:conditions))) = :wanted

-- name: term error
-- Of letters only those of ASCII are the same in capitals, in PostgreSQL as well.
AND (CASE WHEN error IS NULL THEN false ELSE EXISTS (SELECT 1 FROM json_each(:patterns) WHERE error LIKE value ESCAPE '\') END) = :wanted

-- name: term word
AND (id GLOB :beginning OR ifnull(error LIKE :part ESCAPE '\', false)) = :wanted

-- name: term data
-- Each of the :paths is one way to read the same. The data of a row that somebody spoiled is no JSON and matches nothing: CASE
-- does not look further then, AND would.
AND (CASE WHEN json_valid(data) THEN EXISTS (
     SELECT 1 FROM json_each(:paths) AS path, json_each(:patterns) AS pattern
      WHERE CASE json_type(data, path.value)
                 WHEN 'text' THEN data ->> path.value
                 WHEN 'integer' THEN data -> path.value WHEN 'real' THEN data -> path.value
                 WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' WHEN 'null' THEN 'null' END GLOB pattern.value)
     ELSE false END) = :wanted

-- name: term age
AND (:now - created_at BETWEEN :least AND :most) = :wanted

-- name: term in
AND (:now - entered_at BETWEEN :least AND :most) = :wanted

-- name: term due
AND ifnull(due_at - :now BETWEEN :least AND :most, 0) = :wanted

-- name: term updated
AND (:now - updated_at BETWEEN :least AND :most) = :wanted

-- name: term updated at
AND (updated_at BETWEEN :least AND :most) = :wanted

-- name: term attempt
AND (attempt BETWEEN :least AND :most) = :wanted

-- name: term version
AND (version BETWEEN :least AND :most) = :wanted

-- name: found
ORDER BY created_at DESC, id DESC LIMIT :limit)
SELECT json_group_array(json_array({columns})) FROM found

-- name: found light
ORDER BY created_at DESC, id DESC LIMIT :limit)
SELECT json_group_array(json_array({light})) FROM found

-- name: found place
ORDER BY created_at DESC, id DESC LIMIT 2 OFFSET :skipped)
SELECT json_group_array(json_array(created_at, id)) FROM found

-- name: counts
SELECT json_group_array(json_array(flow, status, seen, number, oldest, data_version)) FROM (
    SELECT flow, status, {condition} AS seen, count(*) AS number, min(entered_at) AS oldest, data_version
      FROM onward_process GROUP BY 1, 2, 3, 6 ORDER BY 1, 2, 3, 6)

-- name: leases
SELECT json_group_array(json_array(owner, flow, status, number, until, oldest)) FROM (
    SELECT owner, flow, status, count(*) AS number, max(lease_until) AS until, min(entered_at) AS oldest
      FROM onward_process INDEXED BY onward_process_owner WHERE owner IS NOT NULL GROUP BY 1, 2, 3 ORDER BY 1, 2, 3)

-- name: people
-- The kinds of what people do. Here and in the index onward_history_acts they have to be the same, or that is not used.
kind IN ('started by hand', 'woken', 'retried', 'paused', 'resumed', 'cancelled', 'stopped', 'moved by hand', 'edited', 'forked', 'deleted')

-- name: acts
SELECT json_group_array(json_array(process_id, version, at, kind, from_status, to_status, transition, attempt, epoch,
                                   actor, took, reason, data, data_version)) FROM (
    SELECT process_id, version, at, kind, from_status, to_status, transition, attempt, epoch, actor, took, reason,
           CASE WHEN typeof(data) <> 'null' THEN '' ELSE data END AS data, data_version
      FROM onward_history INDEXED BY onward_history_acts
     WHERE {people} AND (at, process_id, version) < (:at, :id, :version)
     ORDER BY at DESC, process_id DESC, version DESC LIMIT :limit)

-- name: history
SELECT json_group_array(json_array(process_id, version, at, kind, from_status, to_status, transition, attempt, epoch,
                                   actor, took, reason, data, data_version)) FROM (
    -- :light asks for the type only, and SQLite reads no data to tell it: a page of entries may have hundreds of megabytes.
    SELECT process_id, version, at, kind, from_status, to_status, transition, attempt, epoch, actor, took, reason,
           CASE WHEN :light AND typeof(data) <> 'null' THEN '' ELSE data END AS data, data_version
      FROM onward_history WHERE process_id = :id AND version > :after ORDER BY version LIMIT :limit)

-- name: data at
SELECT data, data_version FROM onward_history
 WHERE process_id = :id AND version <= :version AND data IS NOT NULL
   AND EXISTS (SELECT 1 FROM onward_history WHERE process_id = :id AND version = :version)
 ORDER BY version DESC LIMIT 1

-- name: next due
SELECT max(due_at, ifnull(lease_until, due_at)) FROM onward_process
 WHERE due_at IS NOT NULL AND {known}
 ORDER BY max(due_at, ifnull(lease_until, due_at)) LIMIT 1

-- name: walk
-- Stepped through row by row, and left after enough data: nothing else is under way beside it.
SELECT id, flow, status, {condition}, CASE WHEN condition IN ('finished', 'cancelled') THEN '' ELSE data END, {rest}
  FROM onward_process WHERE id > :after ORDER BY id LIMIT :limit

-- name: conditions
SELECT {condition}, count(*) FROM onward_process GROUP BY 1

-- name: history size
-- Written in the order of time, so the first one is the oldest.
SELECT count(*), (SELECT at FROM onward_history ORDER BY seq LIMIT 1) FROM onward_history

-- name: prune page
-- The rows after :after, a page of them, and which have been over since before :until.
SELECT seq, condition IN ('finished', 'cancelled') AND updated_at < :until FROM onward_process
 WHERE seq > :after ORDER BY seq LIMIT :limit

-- name: prune count
WITH old (id) AS (SELECT id FROM onward_process WHERE seq IN (SELECT value FROM json_each(:old)))
SELECT (SELECT count(*) FROM old), (SELECT count(*) FROM onward_history WHERE process_id IN (SELECT id FROM old)),
       (SELECT count(*) FROM onward_step WHERE process_id IN (SELECT id FROM old))

-- name: prune steps
DELETE FROM onward_step
 WHERE process_id IN (SELECT id FROM onward_process WHERE seq IN (SELECT value FROM json_each(:old)))

-- name: prune history
DELETE FROM onward_history
 WHERE process_id IN (SELECT id FROM onward_process WHERE seq IN (SELECT value FROM json_each(:old)))

-- name: prune processes
DELETE FROM onward_process WHERE seq IN (SELECT value FROM json_each(:old))

-- name: user tables
-- The user's tables in this database, each with the statement that reads it. Columns that the database fills in by a function
-- are left out: those have another value each time.
SELECT m.name, 'SELECT ' || group_concat(printf('"%w"', c.name), ', ') || printf(' FROM "%w"', m.name)
  FROM sqlite_master AS m, pragma_table_xinfo(m.name) AS c
 WHERE m.type = 'table' AND m.name NOT GLOB 'onward_*' AND m.name NOT GLOB 'sqlite_*'
   AND coalesce(c.dflt_value NOT GLOB '*(*' AND c.dflt_value NOT LIKE 'CURRENT_%', true)
 GROUP BY m.name
