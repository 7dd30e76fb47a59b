-- Schema approver: who was declared to approve for whom, what has come of it, and the feed of the
-- changes. Every key begins with organisation_id, so that the tables can be distributed by it.

-- What is known of users. A deleted one stays, without an address.
CREATE TABLE person (
    organisation_id uuid    NOT NULL,
    user_id         uuid    NOT NULL,
    revision        bigint  NOT NULL,
    active          boolean NOT NULL,
    deleted         boolean NOT NULL,
    email           text    NOT NULL,
    email_key       text    COLLATE "C",
    PRIMARY KEY (organisation_id, user_id)
);
CREATE INDEX person_email ON person (organisation_id, email_key);

-- The declared approvers of a user, in order. `approver_id` is set the first time that the address
-- belongs to an active user, and follows that person from then on.
CREATE TABLE declaration (
    organisation_id uuid    NOT NULL,
    user_id         uuid    NOT NULL,
    email_key       text    NOT NULL COLLATE "C",
    position        integer NOT NULL,
    email           text    NOT NULL,
    approver_id     uuid,
    PRIMARY KEY (organisation_id, user_id, email_key)
);
CREATE INDEX declaration_email ON declaration (organisation_id, email_key);
CREATE INDEX declaration_approver ON declaration (organisation_id, approver_id);
CREATE INDEX declaration_unlinked ON declaration (organisation_id, user_id, email_key)
    WHERE approver_id IS NULL;

-- How far this service has followed identity (libs/follower), and who lists the organisation's users
-- afresh, where somebody does.
CREATE TABLE cursor (
    organisation_id uuid   NOT NULL PRIMARY KEY,
    sequence        bigint NOT NULL,
    resume_token    text   NOT NULL,
    listing         uuid,
    listing_at      timestamptz
);

-- The feed (libs/runtime/src/feed.rs), the same in every service.
CREATE TABLE feed_lock (
    organisation_id uuid NOT NULL PRIMARY KEY
);
-- The keys of tokens: the newest seals, all open (docs/operations.md has how to change it).
CREATE TABLE feed_key (
    secret     bytea       NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO feed_key (secret)
VALUES (sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8')));
CREATE TABLE change (
    organisation_id uuid        NOT NULL,
    sequence        bigint      NOT NULL,
    change_id       uuid        NOT NULL,
    written_at      timestamptz NOT NULL,
    kind            smallint    NOT NULL,
    subject_id      uuid        NOT NULL,
    revision        bigint      NOT NULL,
    before          jsonb,
    after           jsonb,
    actor           text        NOT NULL,
    traceparent     text,
    total           bigint      NOT NULL,
    active          bigint      NOT NULL,
    PRIMARY KEY (organisation_id, sequence)
);
CREATE INDEX change_subject ON change (organisation_id, subject_id, sequence);
CREATE INDEX change_written_at ON change (written_at);

-- Locks the organisation's feed and appends changes: two statements, each of which sees what was
-- committed before it, in one round trip (libs/runtime, `feed::append`).
CREATE FUNCTION feed_append(
    organisation uuid, at timestamptz, who text, causes text[], ids uuid[], kinds smallint[],
    subjects uuid[], revisions bigint[], befores jsonb[], afters jsonb[], totals bigint[],
    actives bigint[]
) RETURNS SETOF bigint LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM true FROM approver.feed_lock WHERE organisation_id = organisation FOR NO KEY UPDATE;
        IF NOT FOUND THEN
            INSERT INTO approver.feed_lock (organisation_id) VALUES (organisation) ON CONFLICT DO NOTHING;
            PERFORM true FROM approver.feed_lock WHERE organisation_id = organisation FOR NO KEY UPDATE;
        END IF;
        RETURN QUERY
        INSERT INTO approver.change (organisation_id, sequence, change_id, written_at, kind, subject_id,
                            revision, before, after, actor, traceparent, total, active)
        SELECT organisation, coalesce(last.sequence, 0) + n.position, n.change_id, at, n.kind,
               n.subject_id, n.revision, n.before, n.after, who, n.cause,
               coalesce(last.total, 0) + sum(n.total) OVER (ORDER BY n.position),
               coalesce(last.active, 0) + sum(n.active) OVER (ORDER BY n.position)
          FROM unnest(causes, ids, kinds, subjects, revisions, befores, afters, totals, actives)
               WITH ORDINALITY AS n (cause, change_id, kind, subject_id, revision, before,
                                     after, total, active, position)
          LEFT JOIN (SELECT c.sequence, c.total, c.active FROM approver.change AS c
                      WHERE c.organisation_id = organisation
                      ORDER BY c.sequence DESC LIMIT 1) AS last ON true
        RETURNING change.sequence;
    END
$$;

-- The service's role works on one organisation at a time: the one set in its transaction. Without
-- one, a statement fails or finds nothing.
DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['person', 'declaration', 'cursor', 'feed_lock', 'feed_key', 'change'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        IF name <> 'feed_key' THEN
            EXECUTE format(
                'CREATE POLICY own ON %I USING (organisation_id = current_setting(''muster.organisation_id'')::uuid)', name);
            -- Plans are made as if all rows were of one organisation: an index that leads to a row is
            -- better than one that leads to its organisation, also before the next ANALYZE has seen
            -- how many rows have come (docs/decisions/0023-plans.md).
            EXECUTE format('ALTER TABLE %I ALTER COLUMN organisation_id SET (n_distinct = 1)', name);
        END IF;
    END LOOP;
END $$;
-- Known before an organisation is: how far each has been followed, and the key of resume tokens.
CREATE POLICY everybody ON cursor FOR SELECT USING (true);
CREATE POLICY everybody ON feed_lock FOR SELECT USING (true);
CREATE POLICY everybody ON feed_key FOR SELECT USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON declaration TO muster_approver;
GRANT SELECT, INSERT, UPDATE ON person, cursor TO muster_approver;
-- DELETE, because changes are not kept for ever (libs/runtime/src/feed/retention.rs).
GRANT SELECT, INSERT, DELETE ON change TO muster_approver;
-- To erase; nothing else changes what a change says.
GRANT UPDATE (before, after) ON change TO muster_approver;
-- UPDATE, because a row lock asks for it.
GRANT SELECT, INSERT, UPDATE ON feed_lock TO muster_approver;
GRANT SELECT ON feed_key TO muster_approver;

-- Which organisations have moved lately. A view shows the service that, and nothing else of other
-- organisations' changes; nobody logs in as its owner (docs/decisions/0006-reading-the-feed.md).
CREATE VIEW feed_position AS SELECT organisation_id, sequence, written_at FROM change;
CREATE POLICY feed_reader ON change FOR SELECT TO muster_feed_reader USING (true);
GRANT SELECT (organisation_id, sequence, written_at) ON change TO muster_feed_reader;
GRANT SELECT ON feed_position TO muster_approver;
-- Whoever takes a view over must be able to create it.
GRANT CREATE ON SCHEMA approver TO muster_feed_reader;
ALTER VIEW feed_position OWNER TO muster_feed_reader;
REVOKE CREATE ON SCHEMA approver FROM muster_feed_reader;
