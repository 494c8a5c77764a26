-- All SQL of the PostgreSQL store, in named blocks, the same as SQLite's as far as both need them. {name} stands for the
-- block of that name. Where a statement needs {now}, its $1 is the clock: NULL for the database's own, or the instant of a test.
--
-- One statement is one transaction here, unless a handler or a caller has begun one. Rows are given as one array for each
-- column, so that a statement has the same text, and the same plan, for one row and for a thousand.

-- name: now
-- Stable, so that an index can be searched by it; read once for each statement, also inside of a transaction. `now()` would
-- stand still there, `clock_timestamp()` would keep every index from being used.
coalesce($1::timestamptz, statement_timestamp())

-- name: home
-- PostgreSQL's own kind of schema, the one that ?search_path=NAME of the URL names, if it is not there yet.
DO $$ DECLARE name text := (parse_ident(split_part(current_setting('search_path'), ',', 1), false))[1]; BEGIN
    IF current_schema() IS NULL AND name <> '$user' THEN EXECUTE format('CREATE SCHEMA IF NOT EXISTS %I', name); END IF; END $$

-- name: schema table
-- Numbered migrations: each block `schema N` runs once, in one transaction with the row that says so. One that cannot run in
-- a transaction is called `schema N concurrently`: see store/schema.py.
CREATE TABLE IF NOT EXISTS onward_schema (version integer PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())

-- name: schema there
SELECT to_regclass('onward_schema') IS NOT NULL

-- name: schema add
INSERT INTO onward_schema (version) VALUES ($1)

-- name: schema 1
CREATE TABLE onward_process (
    id          text COLLATE "C" PRIMARY KEY,
    flow        text COLLATE "C" NOT NULL,
    status      text COLLATE "C" NOT NULL,
    condition   text    NOT NULL CHECK (condition IN ('ready', 'waiting', 'retrying', 'failed', 'paused', 'cancelled', 'finished')),
    data        jsonb   NOT NULL,
    version     integer NOT NULL,
    epoch       integer NOT NULL,
    attempt     integer NOT NULL,
    excused     integer NOT NULL DEFAULT 0,
    losses      integer NOT NULL DEFAULT 0,
    polls       integer NOT NULL,
    transition  integer NOT NULL,
    moves       integer NOT NULL,
    -- A hash of the id: the key for partitions, or for several databases, should one machine ever be too small.
    bucket      smallint NOT NULL CHECK (bucket BETWEEN 0 AND 1023),
    cancelling  boolean NOT NULL,
    changed     boolean NOT NULL DEFAULT true,  -- whether the last commit changed the data; only then the history keeps it
    entered_at  timestamptz NOT NULL,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    due_at      timestamptz,
    lease_until timestamptz,
    -- When it can be claimed: by its timer, or because its lease ran out. The only indexed column that an update changes,
    -- and it stays the same from stage to stage under one lease. Such an update touches no index (a "HOT" one).
    claim_at    timestamptz GENERATED ALWAYS AS (greatest(due_at, lease_until)) STORED,
    owner       text,
    error       text,
    -- Stuck is unrepresentable: a row is over, or waits for a person, or has a time at which somebody takes it.
    CONSTRAINT onward_never_stuck CHECK ((due_at IS NULL) = (condition IN ('finished', 'cancelled', 'failed', 'paused'))),
    CONSTRAINT onward_lease_is_whole CHECK ((owner IS NULL) = (lease_until IS NULL)),
    CONSTRAINT onward_rest_has_no_lease CHECK (due_at IS NOT NULL OR owner IS NULL)
) WITH (
    -- Room on each page for the next versions of its rows, without which no update is a HOT one.
    fillfactor = 70,
    -- Every row changes many times: vacuum after 1 % and not after 20 % of them, and without pauses.
    autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0.05
);
-- Claiming is scheduling and rescue: one index says who is due. What is over or waits for a person is not in it.
CREATE INDEX onward_process_due ON onward_process (claim_at) WHERE claim_at IS NOT NULL;
-- Those that may have killed their workers: next to none, and every claim asks for them first.
CREATE INDEX onward_process_suspect ON onward_process (claim_at) WHERE owner IS NOT NULL AND losses >= 1;
CREATE INDEX onward_process_created ON onward_process (created_at, id);
-- Partitioned by time, so that what is too old goes by dropping a table. Nothing refers to it, and it is only added to.
CREATE TABLE onward_history (
    process_id  text COLLATE "C" NOT NULL,
    version     integer NOT NULL,
    at          timestamptz NOT NULL,
    kind        text    NOT NULL,
    from_status text COLLATE "C",
    to_status   text COLLATE "C" NOT NULL,
    transition  integer NOT NULL,
    attempt     integer NOT NULL,
    epoch       integer NOT NULL,
    actor       text    NOT NULL,
    took        bigint,  -- microseconds
    reason      text,
    data        jsonb    -- NULL: as before
) PARTITION BY RANGE (at);
-- Takes what has no partition of its month, so that no commit ever fails for it. The months have the same index and settings.
CREATE TABLE onward_history_default PARTITION OF onward_history DEFAULT
  WITH (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.1);
-- The second line of defence behind the fence: no version is written twice into one partition.
CREATE UNIQUE INDEX onward_history_default_version ON onward_history_default (process_id, version);
CREATE TABLE onward_step (
    process_id text COLLATE "C" NOT NULL,
    transition integer NOT NULL,
    name       text COLLATE "C" NOT NULL,
    result     text NOT NULL,
    at         timestamptz NOT NULL,
    PRIMARY KEY (process_id, transition, name)
);

-- name: schema 2 concurrently
-- For people: what needs one of them, what has an error, and what workers have in their hands. All of it is little beside what
-- goes on by itself. None of these columns changes from stage to stage under one lease: such an update stays a HOT one.
DROP INDEX CONCURRENTLY IF EXISTS onward_process_stopped;
CREATE INDEX CONCURRENTLY onward_process_stopped ON onward_process (created_at, id) WHERE condition IN ('failed', 'paused');
DROP INDEX CONCURRENTLY IF EXISTS onward_process_error;
CREATE INDEX CONCURRENTLY onward_process_error ON onward_process (created_at, id) WHERE error IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS onward_process_owner;
CREATE INDEX CONCURRENTLY onward_process_owner ON onward_process (owner) WHERE owner IS NOT NULL;
-- What people did, in each partition that has no such index yet; the kinds are those of the block `people`. What this SELECT
-- answers are statements, which are run in their turn. No index can be made on all partitions at once without a lock.
SELECT format(command, left(c.relname, 58) || '_acts', c.relname)
  FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid, (VALUES
       (1, $$DROP INDEX CONCURRENTLY IF EXISTS %1$I$$),
       (2, $$CREATE INDEX CONCURRENTLY %1$I ON %2$I (at, process_id, version) WHERE kind IN ('started by hand', 'woken', 'retried', 'paused', 'resumed', 'cancelled', 'stopped', 'moved by hand', 'edited', 'forked', 'deleted')$$)
       ) AS step (place, command)
 WHERE i.inhparent = 'onward_history'::regclass AND c.relkind = 'r'
   AND NOT EXISTS (SELECT FROM pg_index AS x JOIN pg_class AS n ON n.oid = x.indexrelid
                    WHERE x.indrelid = c.oid AND x.indisvalid AND n.relname = left(c.relname, 58) || '_acts')
 ORDER BY c.relname, step.place;

-- name: schema 3
-- Of which version of its model the data are. A constant default touches no row, however many there are; and no index has the
-- column, so an update that changes it stays a HOT one.
ALTER TABLE onward_process ADD COLUMN data_version integer NOT NULL DEFAULT 1;
ALTER TABLE onward_history ADD COLUMN data_version integer NOT NULL DEFAULT 1;

-- name: columns
p.id, p.flow, p.status, {condition} AS condition, p.data::text, {rest}

-- name: light
-- The same without the data, which may be large.
p.id, p.flow, p.status, {condition} AS condition, '' AS data, {rest}

-- name: rest
p.version, p.epoch, p.attempt, p.polls, p.transition, p.moves, p.cancelling, p.entered_at, p.created_at, p.updated_at, p.due_at,
p.owner, p.lease_until, p.error, {now} AS as_of, p.excused, p.losses, p.data_version

-- name: condition
-- As it is seen now. The row says what was decided; a lease or a clock can make it running or ready.
CASE WHEN p.lease_until > {now} THEN 'running'
     WHEN p.condition IN ('waiting', 'retrying') AND p.due_at <= {now} THEN 'ready'
     ELSE p.condition END

-- name: insert
-- $2 to $9: ids, flows, statuses, data, kinds, reasons, versions of data, buckets. $10: who. Of an id given twice the first counts. Answers the
-- new ids. Of an id that was deleted the epoch goes on: it fences everybody who had that process, and who may still be at it.
WITH item AS MATERIALIZED (
    SELECT DISTINCT ON (id) id, flow, status, data, kind, reason, data_version, bucket
      FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::integer[], $9::smallint[])
      WITH ORDINALITY AS item (id, flow, status, data, kind, reason, data_version, bucket, place)
     ORDER BY id, place),
started AS (
    INSERT INTO onward_process (id, flow, status, condition, data, version, epoch, attempt, polls, transition, moves, bucket,
                                cancelling, entered_at, created_at, updated_at, due_at, data_version)
    SELECT id, flow, status, 'ready', data::jsonb, 0,
           (SELECT coalesce(max(h.epoch), 0) FROM onward_history AS h WHERE h.process_id = item.id AND h.version < 0),
           0, 0, 0, 0, bucket, false, {now}, {now}, {now}, {now}, data_version
      FROM item
        ON CONFLICT (id) DO NOTHING
 RETURNING id, status, epoch, updated_at, data)
INSERT INTO onward_history (process_id, version, at, kind, from_status, to_status, transition, attempt, epoch, actor, reason, data, data_version)
SELECT started.id, 0, updated_at, item.kind, NULL, started.status, 0, 0, started.epoch, $10::text, item.reason, started.data, item.data_version
  FROM started JOIN item USING (id)
RETURNING process_id

-- name: suspect
-- Its worker was lost with it, and then the next one as well. It may have been the cause, and those that were lost beside it
-- are charged with each attempt as it is: so suspects are taken one at a time, and the deadly one runs out of attempts alone.
(p.owner IS NOT NULL AND p.losses >= 1)

-- name: known
-- $2 is {flow: ["version status"]}, what the caller's code can move.
$2::jsonb -> p.flow ? (p.data_version || ' ' || p.status)

-- name: claim
-- The attempt is counted here and not when it fails: a handler that kills its worker must not be tried for ever.
-- The version stays: a claim is no commit. Rows that another worker is claiming at this moment are passed over.
-- $3: owner, $4: lease, $5: how many, $6: whether a suspect may be taken.
WITH suspect AS MATERIALIZED (
    SELECT p.id FROM onward_process AS p
     WHERE p.claim_at <= {now} AND {suspect} AND {known}
     ORDER BY p.claim_at LIMIT $6::integer FOR NO KEY UPDATE SKIP LOCKED),
due AS MATERIALIZED (
    SELECT p.id FROM onward_process AS p
     WHERE p.claim_at <= {now} AND NOT {suspect} AND {known}
     ORDER BY p.claim_at LIMIT $5::integer - (SELECT count(*) FROM suspect) FOR NO KEY UPDATE SKIP LOCKED)
UPDATE onward_process AS p
   SET owner = $3, epoch = p.epoch + 1, attempt = p.attempt + 1, losses = p.losses + (p.owner IS NOT NULL)::integer,
       lease_until = {now} + $4::interval
 WHERE p.id = ANY (ARRAY(SELECT id FROM suspect UNION ALL SELECT id FROM due))
RETURNING {columns}

-- name: claim of
-- The same for these ids only: $6.
WITH due AS MATERIALIZED (
    SELECT p.id FROM onward_process AS p
     WHERE p.id = ANY ($6::text[]) AND p.claim_at <= {now} AND {known}
     ORDER BY p.claim_at LIMIT $5::integer FOR NO KEY UPDATE SKIP LOCKED)
UPDATE onward_process AS p
   SET owner = $3, epoch = p.epoch + 1, attempt = p.attempt + 1, losses = p.losses + (p.owner IS NOT NULL)::integer,
       lease_until = {now} + $4::interval
 WHERE p.id = ANY (ARRAY(SELECT id FROM due))
RETURNING {columns}

-- name: given
-- The rows of a group commit, in the order of their ids: whoever locks many rows does it in that order, so that no two wait
-- for each other. $2 to $8 are each row's own, $9 says which of the shapes in the other arrays it has: processes that take
-- the same step share one, and to send and to read fifteen arrays of them all cost as much again as the commit.
SELECT id, version, epoch, text::jsonb AS data, took, transition, moves,
       ($10::text[])[shape] AS status, ($11::text[])[shape] AS condition, ($12::integer[])[shape] AS attempt,
       ($13::integer[])[shape] AS polls, ($14::boolean[])[shape] AS cancelling, ($15::bigint[])[shape] AS due_after,
       ($16::boolean[])[shape] AS enters, ($17::boolean[])[shape] AS goes_on, ($18::text[])[shape] AS error,
       ($19::text[])[shape] AS kind, ($20::text[])[shape] AS reason, ($21::integer[])[shape] AS excused,
       ($22::integer[])[shape] AS data_version,
       ($23::text[])[shape] AS from_status, ($24::integer[])[shape] AS attempted, ($25::text[])[shape] AS owner
  FROM unnest($2::text[], $3::integer[], $4::integer[], $5::text[], $6::bigint[], $7::integer[], $8::integer[], $9::smallint[])
    AS item (id, version, epoch, text, took, transition, moves, shape)

-- name: given one
-- The same for a row alone, which is the case that people wait for: arrays of one cost four times the commit itself.
SELECT $2::text AS id, $3::integer AS version, $4::integer AS epoch, $5::text::jsonb AS data, $6::bigint AS took,
       $7::integer AS transition, $8::integer AS moves, $9::text AS status, $10::text AS condition, $11::integer AS attempt,
       $12::integer AS polls, $13::boolean AS cancelling, $14::bigint AS due_after, $15::boolean AS enters,
       $16::boolean AS goes_on, $17::text AS error, $18::text AS kind, $19::text AS reason, $20::integer AS excused,
       $21::integer AS data_version, $22::text AS from_status, $23::integer AS attempted, $24::text AS owner

-- name: commit
-- The fence: a worker whose lease was taken over finds another epoch, one that a person overtook another version, one whose
-- process is gone and its id used again another owner, and none of them writes anything. Row and history cannot be parted: what the update did feeds the insert. Answers the ids written.
WITH item AS MATERIALIZED ({given}),
moved AS (
    UPDATE onward_process AS p
       SET status = item.status, condition = item.condition, data = coalesce(item.data, p.data),
           -- The same values mean another thing in another version, so they are kept again.
           changed = item.data IS NOT NULL AND (item.data <> p.data OR item.data_version <> p.data_version),
           data_version = CASE WHEN item.data IS NULL THEN p.data_version ELSE item.data_version END,
           version = p.version + 1, attempt = item.attempt, excused = item.excused, polls = item.polls, transition = item.transition,
           moves = item.moves, cancelling = item.cancelling, due_at = {now} + item.due_after * interval '1 microsecond',
           losses = CASE item.kind WHEN 'saved' THEN p.losses ELSE 0 END,  -- to have saved something is no outcome yet
           entered_at = CASE WHEN item.enters THEN {now} ELSE p.entered_at END,
           updated_at = greatest(p.updated_at, {now}),  -- stamps of one process never go back, whatever the clock does
           owner = CASE WHEN item.goes_on THEN p.owner END,
           lease_until = CASE WHEN item.goes_on THEN p.lease_until END,
           error = item.error
      FROM item
     WHERE p.id = item.id AND p.version = item.version AND p.epoch = item.epoch AND p.owner = item.owner
 RETURNING p.id, p.version, p.updated_at, item.kind, item.from_status, p.status, p.transition, item.attempted, p.epoch,
           item.owner, item.took, item.reason, CASE WHEN p.changed THEN p.data END AS data, p.data_version),
written AS (
    INSERT INTO onward_history (process_id, version, at, kind, from_status, to_status, transition, attempt, epoch, actor, took, reason, data, data_version)
    SELECT * FROM moved
 RETURNING process_id)
SELECT {now}, array_agg(process_id) FROM written

-- name: commit soon
-- Before that in a handler's transaction, whose COMMIT follows at once: should a network swallow it, the row is not locked for
-- longer than this, also where the server's own probes do not reach the worker, as behind a pooler.
SET LOCAL idle_in_transaction_session_timeout = '5s'

-- name: savepoint
-- Of a handler's, in its transaction. They may be nested: the name is that of the last one, which is over when it is released.
SAVEPOINT onward

-- name: savepoint release
RELEASE SAVEPOINT onward

-- name: savepoint back
ROLLBACK TO SAVEPOINT onward; RELEASE SAVEPOINT onward

-- name: committed
-- Which of a group's rows stand in the history: ours, even where the answer to their commit was lost. The epoch alone does
-- not tell: the same worker may have committed something else to that version.
WITH item AS MATERIALIZED ({given})
SELECT {now}, array_agg(item.id) FROM item
  JOIN onward_history AS h
    ON h.process_id = item.id AND h.version = item.version + 1 AND h.epoch = item.epoch
   AND h.to_status = item.status AND h.transition = item.transition AND h.kind = item.kind
   AND h.took IS NOT DISTINCT FROM item.took AND h.reason IS NOT DISTINCT FROM item.reason AND h.actor = item.owner
   AND CASE WHEN item.data IS NULL THEN h.data IS NULL
            ELSE item.data = (SELECT d.data FROM onward_history AS d
                               WHERE d.process_id = h.process_id AND d.version <= h.version AND d.data IS NOT NULL
                               ORDER BY d.version DESC LIMIT 1) END

-- name: act
-- A person's commit: no epoch is asked for, and a new one fences whoever is running it.
-- Within a visit the number of the attempt stays: a claim may have counted one more since the person looked.
-- $2: id, $3: version, $4: who, $5: why, then what changes. `was` is the row that it found, with the attempt that it ended.
WITH was AS MATERIALIZED (
    SELECT p.id, p.status, p.attempt,
           CASE WHEN $18::text::jsonb <> p.data OR $19 <> p.data_version THEN $18::text::jsonb END AS fresh FROM onward_process AS p WHERE p.id = $2 AND p.version = $3 FOR NO KEY UPDATE),
moved AS (
    UPDATE onward_process AS p
       SET status = $6, condition = $7, data = coalesce($18::text::jsonb, p.data),
           data_version = CASE WHEN $18::text IS NULL THEN p.data_version ELSE $19::integer END, changed = false, version = p.version + 1, epoch = p.epoch + 1, excused = $9,
           attempt = CASE p.transition WHEN $11 THEN p.attempt ELSE $8 END, losses = 0, polls = $10, transition = $11, moves = $12, cancelling = $13, due_at = {now} + $14::interval,
           entered_at = CASE WHEN $15::boolean THEN {now} ELSE p.entered_at END, updated_at = greatest(p.updated_at, {now}),
           owner = NULL, lease_until = NULL, error = $16
     WHERE p.id = (SELECT id FROM was)
 RETURNING {columns}),
written AS (
    INSERT INTO onward_history (process_id, version, at, kind, from_status, to_status, transition, attempt, epoch, actor, reason, data, data_version)
    SELECT moved.id, moved.version, moved.updated_at, $17::text, was.status, moved.status, moved.transition, was.attempt, moved.epoch,
           $4::text, $5::text, was.fresh, moved.data_version FROM moved, was)
SELECT * FROM moved

-- name: delete
-- What stays of it has a version below those of a process, and of what else was deleted under that id: a new one may come.
-- $2: id, $3: version, $4: who, $5: why.
WITH gone AS (
    DELETE FROM onward_process AS p WHERE p.id = $2 AND p.version = $3 RETURNING p.id, p.status, p.transition, p.epoch),
steps AS (DELETE FROM onward_step WHERE process_id = (SELECT id FROM gone)),
old AS (DELETE FROM onward_history WHERE process_id = (SELECT id FROM gone) AND version >= 0)
INSERT INTO onward_history (process_id, version, at, kind, from_status, to_status, transition, attempt, epoch, actor, reason)
SELECT id, (SELECT least(coalesce(min(h.version), 0), 0) - 1 FROM onward_history AS h WHERE h.process_id = $2 AND h.version < 0),
       {now}, 'deleted', status, status, transition, 0, epoch, $4::text, $5::text FROM gone
RETURNING process_id

-- name: renew
-- A renewal never shortens, and leaves the version alone: the handler beside it still has to commit against it. It waits for
-- nobody: a row that is being written at this moment is asked for again a little later. $2, $3: ids and epochs; $4: owner.
WITH held AS MATERIALIZED (
    SELECT p.id FROM onward_process AS p JOIN unnest($2::text[], $3::integer[]) AS item (id, epoch) USING (id, epoch)
     WHERE p.owner = $4 ORDER BY p.id FOR NO KEY UPDATE OF p SKIP LOCKED)
UPDATE onward_process AS p SET lease_until = greatest(p.lease_until, {now} + $5::interval)
 WHERE p.id = ANY (ARRAY(SELECT id FROM held))
RETURNING p.id

-- name: taken away
SELECT item.id FROM unnest($1::text[], $2::integer[]) AS item (id, epoch) LEFT JOIN onward_process AS p USING (id)
 WHERE p.epoch IS DISTINCT FROM item.epoch

-- name: release
-- $2 to $4: ids, epochs, owners; $5: whether a handler had begun.
WITH held AS MATERIALIZED (
    SELECT p.id FROM onward_process AS p
      JOIN unnest($2::text[], $3::integer[], $4::text[]) AS item (id, epoch, owner) USING (id, epoch, owner)
     ORDER BY p.id FOR NO KEY UPDATE OF p)
UPDATE onward_process AS p
   SET owner = NULL, lease_until = NULL, due_at = {now},
       attempt = CASE WHEN $5::boolean THEN p.attempt ELSE greatest(p.attempt - 1, 0) END
 WHERE p.id = ANY (ARRAY(SELECT id FROM held))

-- name: release all but
-- $2: owner, $3: ids, $4: lease. Whatever has a lease can be claimed when that is over, so the index finds it.
UPDATE onward_process AS p SET owner = NULL, lease_until = NULL, attempt = greatest(p.attempt - 1, 0)
 WHERE p.claim_at <= {now} + $4::interval AND p.owner = $2 AND p.id <> ALL ($3::text[])

-- name: step
-- Fenced by epoch and visit, not by version: many are recorded at once, and a save between them moves the version on.
-- $2: id, $3: epoch, $4: owner, $5: transition, $6: name, $7: result.
INSERT INTO onward_step (process_id, transition, name, result, at)
SELECT p.id, p.transition, $6, $7, {now} FROM onward_process AS p
 WHERE p.id = $2 AND p.epoch = $3 AND p.owner = $4 AND p.transition = $5
    ON CONFLICT DO NOTHING
RETURNING name

-- name: steps
SELECT name, result FROM onward_step WHERE process_id = $1 AND transition = $2

-- name: get
SELECT {columns} FROM onward_process AS p WHERE p.id = $2

-- name: list all
-- A search is put together by store/search.py: one of these lists, whichever is the shortest that holds all that is asked for;
-- then `before` and `until`; then a `term` for each thing that is asked, of which :wanted says whether it has to hold or must
-- not; and at the end `found`. Its values are named here, and numbered from $2 on there.
WITH found AS (SELECT p.* FROM onward_process AS p WHERE p.created_at IS NOT NULL

-- name: list stopped
WITH found AS (SELECT p.* FROM onward_process AS p WHERE p.condition IN ('failed', 'paused')

-- name: list errors
WITH found AS (SELECT p.* FROM onward_process AS p WHERE p.error IS NOT NULL

-- name: list held
-- This list is short, and sorted at the end: OFFSET 0 keeps the planner from going through all rows in their order instead.
WITH found AS (SELECT p.* FROM (SELECT * FROM onward_process AS h WHERE h.owner IS NOT NULL OFFSET 0) AS p WHERE true

-- name: list ids
WITH found AS (SELECT p.* FROM (SELECT * FROM onward_process AS i WHERE i.id = ANY (:ids::text[]) OFFSET 0) AS p WHERE true

-- name: list beginning
WITH found AS (SELECT p.* FROM (
    SELECT * FROM onward_process AS b WHERE b.id >= :low::text AND b.id < :high::text OFFSET 0) AS p WHERE true

-- name: list words
WITH found AS (SELECT p.* FROM (
    SELECT * FROM onward_process AS w
     WHERE w.id = ANY (ARRAY(SELECT b.id FROM onward_process AS b WHERE b.id >= :low::text AND b.id < :high::text
                             UNION ALL SELECT e.id FROM onward_process AS e WHERE e.error IS NOT NULL)) OFFSET 0) AS p WHERE true

-- name: few beginning
SELECT count(*) FROM (SELECT 1 FROM onward_process AS p WHERE p.id >= :low::text AND p.id < :high::text LIMIT :most::bigint) AS few

-- name: few errors
SELECT count(*) FROM (SELECT 1 FROM onward_process AS p WHERE p.error IS NOT NULL LIMIT :most::bigint) AS few

-- name: before
AND (p.created_at, p.id) < (SELECT b.created_at, b.id FROM onward_process AS b WHERE b.id = :id::text)

-- name: until
AND (p.created_at, p.id) >= (:at::timestamptz, :id::text)

-- name: term flow
AND (p.flow = ANY (:values::text[])) = :wanted::boolean

-- name: term flow like
AND (p.flow LIKE ANY (:patterns::text[])) = :wanted::boolean

-- name: term status
-- :renamed are the old names of those statuses: {flow: [old names]}.
AND (p.status = ANY (:values::text[]) OR (:renamed::jsonb -> p.flow ? p.status) IS TRUE) = :wanted::boolean

-- name: term status like
AND (p.status LIKE ANY (:patterns::text[]) OR (:renamed::jsonb -> p.flow ? p.status) IS TRUE) = :wanted::boolean

-- name: term id
AND (p.id = ANY (:values::text[])) = :wanted::boolean

-- name: term id like
AND (p.id LIKE ANY (:patterns::text[])) = :wanted::boolean

-- name: term worker
AND coalesce(p.owner LIKE ANY (:patterns::text[]), false) = :wanted::boolean

-- name: term is
AND ({condition} = ANY (:conditions::text[])) = :wanted::boolean

-- name: term is known
-- :known is {flow: ["version status"]} of the code at hand; what is not over and not in it is orphaned.
AND (CASE WHEN p.condition NOT IN ('finished', 'cancelled')
           AND (:known::jsonb -> p.flow ? (p.data_version || ' ' || p.status)) IS NOT TRUE THEN 'orphaned'
          ELSE {condition} END = ANY (:conditions::text[])) = :wanted::boolean

-- name: term error
-- Of letters only those of ASCII are the same in capitals, as in SQLite: that is what COLLATE "C" makes of it.
AND coalesce(p.error COLLATE "C" ILIKE ANY (:patterns::text[]), false) = :wanted::boolean

-- name: term word
AND (p.id LIKE :beginning::text OR coalesce(p.error COLLATE "C" ILIKE :part::text, false)) = :wanted::boolean

-- name: term data
AND coalesce(CASE jsonb_typeof(p.data #> :path::text[]) WHEN 'object' THEN NULL WHEN 'array' THEN NULL WHEN 'null' THEN 'null'
                  ELSE p.data #>> :path::text[] END LIKE ANY (:patterns::text[]), false) = :wanted::boolean

-- name: term age
AND ({now} - p.created_at BETWEEN :least::interval AND :most::interval) = :wanted::boolean

-- name: term in
AND ({now} - p.entered_at BETWEEN :least::interval AND :most::interval) = :wanted::boolean

-- name: term due
AND coalesce(p.due_at - {now} BETWEEN :least::interval AND :most::interval, false) = :wanted::boolean

-- name: term updated
AND ({now} - p.updated_at BETWEEN :least::interval AND :most::interval) = :wanted::boolean

-- name: term updated at
AND (p.updated_at BETWEEN :least::timestamptz AND :most::timestamptz) = :wanted::boolean

-- name: term attempt
AND (p.attempt BETWEEN :least::integer AND :most::integer) = :wanted::boolean

-- name: term version
AND (p.version BETWEEN :least::integer AND :most::integer) = :wanted::boolean

-- name: found
ORDER BY p.created_at DESC, p.id DESC LIMIT :limit::bigint)
SELECT {columns} FROM found AS p ORDER BY p.created_at DESC, p.id DESC

-- name: found light
ORDER BY p.created_at DESC, p.id DESC LIMIT :limit::bigint)
SELECT {light} FROM found AS p ORDER BY p.created_at DESC, p.id DESC

-- name: found place
ORDER BY p.created_at DESC, p.id DESC LIMIT 2 OFFSET :skipped::bigint)
SELECT p.created_at, p.id FROM found AS p ORDER BY p.created_at DESC, p.id DESC

-- name: search begin
-- A search has a transaction, in which each statement is planned for its own values and goes through an index: the planner would
-- rather read and sort a million rows, since it cannot tell how few of them are needed. All that it asks is of one instant.
BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;
SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off

-- name: search end
COMMIT

-- name: counts
SELECT p.flow, p.status, {condition} AS seen, count(*), min(p.entered_at), p.data_version
  FROM onward_process AS p GROUP BY 1, 2, 3, 6 ORDER BY 1, 2, 3, 6

-- name: leases
SELECT p.owner, p.flow, p.status, count(*), max(p.lease_until), min(p.entered_at), {now} FROM onward_process AS p
 WHERE p.owner IS NOT NULL GROUP BY 1, 2, 3 ORDER BY 1, 2, 3

-- name: people
-- The kinds of what people do. Here and in the indexes `…_acts` they have to be the same, or those are not used.
kind IN ('started by hand', 'woken', 'retried', 'paused', 'resumed', 'cancelled', 'stopped', 'moved by hand', 'edited', 'forked', 'deleted')

-- name: acts
-- $1, $2, $3: before which entry. $4: how many.
SELECT process_id, version, at, kind, from_status, to_status, transition, attempt, epoch, actor, took, reason,
       CASE WHEN data IS NOT NULL THEN '' END, data_version
  FROM onward_history WHERE {people} AND (at, process_id, version) < ($1::timestamptz, $2::text, $3::integer)
 ORDER BY at DESC, process_id DESC, version DESC LIMIT $4

-- name: history
SELECT process_id, version, at, kind, from_status, to_status, transition, attempt, epoch, actor, took, reason,
       CASE WHEN $4 AND data IS NOT NULL THEN '' ELSE data::text END, data_version
  FROM onward_history WHERE process_id = $1 AND version > $2 ORDER BY version LIMIT $3

-- name: data at
SELECT data::text, data_version FROM onward_history
 WHERE process_id = $1 AND version <= $2 AND data IS NOT NULL
   AND EXISTS (SELECT 1 FROM onward_history WHERE process_id = $1 AND version = $2)
 ORDER BY version DESC LIMIT 1

-- name: next due
SELECT p.claim_at - {now} FROM onward_process AS p
 WHERE p.claim_at IS NOT NULL AND {known} ORDER BY p.claim_at LIMIT 1

-- name: news
-- Another one after each commit of anything: it costs nothing, and polling it is the truth. NOTIFY is only a hint.
SELECT pg_current_snapshot()::text

-- name: at work
SELECT FROM pg_stat_activity WHERE pid = $1 AND state = 'active'

-- name: notify
SELECT pg_notify('onward', '')

-- name: schema found
SELECT max(version) FROM onward_schema

-- name: forgetful
-- What to type, where the session does not wait for the disk. We set that in sessions of our own; behind a pooler we cannot.
SELECT format('ALTER ROLE %I IN DATABASE %I SET synchronous_commit = on', current_user, current_database())
 WHERE current_setting('synchronous_commit') = 'off'

-- name: month
-- The partition of one month; its name and both days are put in by store/postgres/upkeep.py. Made apart and then attached:
-- that locks only the partition `default`, in which nothing is, and holds up no commit.
CREATE TABLE onward_history_month (LIKE onward_history INCLUDING DEFAULTS)
  WITH (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.1);
CREATE UNIQUE INDEX onward_history_month_version ON onward_history_month (process_id, version);
CREATE INDEX onward_history_month_acts ON onward_history_month (at, process_id, version) WHERE {people};
ALTER TABLE onward_history ATTACH PARTITION onward_history_month FOR VALUES FROM ('the first of the month') TO ('the first of the next')

-- name: drop month
DROP TABLE onward_history_month

-- name: partitions
SELECT c.relname, greatest(c.reltuples, 0)::bigint FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
 WHERE i.inhparent = 'onward_history'::regclass ORDER BY c.relname

-- name: default months
-- Those of which the partition `default` has rows: no partition can be made of them any more.
SELECT to_char(at AT TIME ZONE 'UTC', '"y"YYYY"m"MM'), count(*) FROM onward_history_default GROUP BY 1 ORDER BY 1

-- name: default readable
-- Not by a role that has rights on the four tables alone: those are enough for all of the partitions, but only by way of them.
SELECT has_table_privilege('onward_history_default', 'SELECT')

-- name: upkeep alone
-- For the transaction that holds the lock below. It must have no snapshot meanwhile: one would keep everything from being
-- vacuumed, and CREATE INDEX CONCURRENTLY would wait for it for ever.
SET LOCAL idle_in_transaction_session_timeout = 0

-- name: upkeep lock
-- One upkeep at a time: a lock that goes with its transaction, so that it works behind a pooler as well.
SELECT pg_try_advisory_xact_lock(hashtext('onward'), hashtext(coalesce(current_schema(), '')))

-- name: upkeep patience
-- Whoever waits for a lock on a table keeps all that come after it waiting too: so a migration gives up soon, and tries again.
SET LOCAL lock_timeout = '2s'

-- name: walk
-- Through a cursor, and left after enough data. $2: after which id, $3: how many.
SELECT p.id, p.flow, p.status, {condition} AS condition, CASE WHEN p.condition IN ('finished', 'cancelled') THEN '' ELSE p.data::text END AS data, {rest}
  FROM onward_process AS p WHERE p.id > $2 ORDER BY p.id LIMIT $3

-- name: conditions
SELECT {condition} AS seen, count(*) FROM onward_process AS p GROUP BY 1

-- name: history size
-- As the last ANALYZE found it; and the first entry that is found in the oldest partition, one of the oldest.
SELECT (SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
         WHERE i.inhparent = 'onward_history'::regclass),
       (SELECT at FROM onward_history LIMIT 1)

-- name: size
SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class AS c
 WHERE c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass('onward_history'))
    OR c.oid IN (to_regclass('onward_process'), to_regclass('onward_step'), to_regclass('onward_schema'))

-- name: dead rows
-- Of the table in which every commit leaves one. The sessions tell once a second, those that fall idle within ten.
SELECT n_dead_tup, n_live_tup FROM pg_stat_all_tables WHERE relid = 'onward_process'::regclass

-- name: held back
-- Whose transaction is the oldest that may still see dead rows: until it ends, none of them can be cleared away. Sessions and
-- prepared transactions count in their own database only, standbys in all. What is seen by vacuum itself it clears away.
-- $1: open for at least so long, which a role without pg_read_all_stats is not told; $2: and at least so many transactions ago.
WITH holder AS (
    SELECT greatest(age(a.backend_xid), age(a.backend_xmin)) AS xids, clock_timestamp() - a.xact_start AS open_for,
           format('%s %s (%s)', CASE WHEN a.datid IS NULL THEN 'the standby of session' ELSE 'session' END, a.pid,
                  concat_ws(', ', nullif(a.application_name, ''), a.usename, a.state)) AS who,
           CASE WHEN a.datid IS NULL THEN 'end the long query on it' ELSE format('SELECT pg_terminate_backend(%s)', a.pid) END AS cure
      FROM pg_stat_activity AS a
     WHERE (a.datname = current_database() OR a.datid IS NULL) AND a.pid <> pg_backend_pid()
       AND NOT EXISTS (SELECT FROM pg_stat_progress_vacuum AS v WHERE v.pid = a.pid)
     UNION ALL
    SELECT age(transaction), clock_timestamp() - prepared, format('the prepared transaction %L', gid), format('ROLLBACK PREPARED %L', gid)
      FROM pg_prepared_xacts WHERE database = current_database()
     UNION ALL
    SELECT age(xmin), NULL, format('the replication slot %s', slot_name),
           CASE WHEN active THEN 'end the long query on its standby' ELSE format('SELECT pg_drop_replication_slot(%L)', slot_name) END
      FROM pg_replication_slots)
SELECT who, open_for, cure FROM holder WHERE xids >= $2 AND coalesce(open_for >= $1::interval, true) ORDER BY xids DESC LIMIT 1

-- name: prune until
SELECT {now}, {now} - $2::interval

-- name: prune page
-- The next ones by age, from ($2, $3) on, and which of them have been over since before $1.
SELECT p.id, p.created_at, p.condition IN ('finished', 'cancelled') AND p.updated_at < $1 FROM onward_process AS p
 WHERE p.created_at < $1 AND (p.created_at, p.id) > ($2::timestamptz, $3::text)
 ORDER BY p.created_at, p.id LIMIT $4

-- name: prune processes
-- Asked again, since a person may have done something with it since it was looked at.
DELETE FROM onward_process AS p
 WHERE p.id = ANY ($2::text[]) AND p.condition IN ('finished', 'cancelled') AND p.updated_at < $1 RETURNING p.id

-- name: prune history
WITH gone AS (DELETE FROM onward_history WHERE process_id = ANY ($1::text[]) RETURNING 1) SELECT count(*) FROM gone

-- name: prune steps
WITH gone AS (DELETE FROM onward_step WHERE process_id = ANY ($1::text[]) RETURNING 1) SELECT count(*) FROM gone

-- name: prune count
SELECT cardinality($1::text[]), (SELECT count(*) FROM onward_history WHERE process_id = ANY ($1) AND at >= $2),
       (SELECT count(*) FROM onward_step WHERE process_id = ANY ($1))

-- name: scratch make
SELECT format('CREATE DATABASE %I TEMPLATE template0', $1::text)

-- name: scratch drop
SELECT format('DROP DATABASE IF EXISTS %I WITH (FORCE)', $1::text)

-- name: user tables
-- The user's tables in this database, each with the statement that reads it. Columns that the database fills in by a function
-- are left out, and what refers to them: those have another value each time, since no rollback gives a number back.
WITH RECURSIVE drawn AS (
    SELECT a.attrelid, a.attnum FROM pg_attribute AS a LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE a.attidentity <> ''
        OR (a.attgenerated = '' AND pg_get_expr(d.adbin, d.adrelid) ~ '\w\(|^\(*(CURRENT|LOCAL)(_DATE|_?TIME)')
     UNION
    SELECT k.conrelid, k.conkey[place] FROM drawn
      JOIN pg_constraint AS k ON k.contype = 'f' AND k.confrelid = drawn.attrelid
     CROSS JOIN generate_subscripts(k.confkey, 1) AS place WHERE k.confkey[place] = drawn.attnum),
their AS (
    SELECT c.oid, c.relname, n.nspname,
           ARRAY(SELECT a.attname::text FROM drawn JOIN pg_attribute AS a USING (attrelid, attnum) WHERE attrelid = c.oid) AS without
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_')
SELECT concat(nullif(nspname, 'public') || '.', relname),
       format('SELECT (to_jsonb(their) - %L::text[])::text FROM %I.%I AS their', without, nspname, relname)
  FROM their ORDER BY 1
