-- Schema groups: groups, memberships, and the feed of group changes.
-- Every key begins with organisation_id, so that the tables can be distributed by it.

CREATE TABLE groups (
    organisation_id  uuid        NOT NULL,
    group_id         uuid        NOT NULL,
    revision         bigint      NOT NULL,
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    origin           smallint    NOT NULL,
    display_name     text        NOT NULL,
    display_name_key text        NOT NULL COLLATE "C",
    external_id      text        COLLATE "C",
    -- Kept by whoever changes members, who holds the row's lock: a list counts no memberships.
    member_count     bigint      NOT NULL DEFAULT 0,
    PRIMARY KEY (organisation_id, group_id)
);
CREATE UNIQUE INDEX groups_display_name ON groups (organisation_id, display_name_key);
CREATE INDEX groups_external_id ON groups (organisation_id, external_id);

-- A small row for each user ever seen, also deleted ones: adding a membership and applying a
-- deletion both lock it, so that neither can miss the other.
CREATE TABLE person (
    organisation_id uuid    NOT NULL,
    user_id         uuid    NOT NULL,
    revision        bigint  NOT NULL,
    deleted         boolean NOT NULL,
    active          boolean NOT NULL DEFAULT true,
    PRIMARY KEY (organisation_id, user_id)
);
-- Those who have left are the fewer: reports count them, and take them from all.
CREATE INDEX person_inactive ON person (organisation_id, user_id) WHERE NOT active AND NOT deleted;

CREATE TABLE membership (
    organisation_id uuid NOT NULL,
    group_id        uuid NOT NULL,
    user_id         uuid NOT NULL,
    -- No foreign key to groups: it would be looked up for each of 100,000 who join one group. Whoever
    -- adds members has locked the group, and whoever deletes it deletes them.
    PRIMARY KEY (organisation_id, group_id, user_id)
);
CREATE INDEX membership_user ON membership (organisation_id, user_id, group_id);

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
        PERFORM true FROM groups.feed_lock WHERE organisation_id = organisation FOR NO KEY UPDATE;
        IF NOT FOUND THEN
            INSERT INTO groups.feed_lock (organisation_id) VALUES (organisation) ON CONFLICT DO NOTHING;
            PERFORM true FROM groups.feed_lock WHERE organisation_id = organisation FOR NO KEY UPDATE;
        END IF;
        RETURN QUERY
        INSERT INTO groups.change (organisation_id, sequence, change_id, written_at, kind, subject_id,
                            revision, before, after, actor, traceparent, total, active)
        SELECT organisation, coalesce(last.sequence, 0) + n.position, n.change_id, at, n.kind,
               n.subject_id, n.revision, n.before, n.after, who, n.cause,
               coalesce(last.total, 0) + sum(n.total) OVER (ORDER BY n.position),
               coalesce(last.active, 0) + sum(n.active) OVER (ORDER BY n.position)
          FROM unnest(causes, ids, kinds, subjects, revisions, befores, afters, totals, actives)
               WITH ORDINALITY AS n (cause, change_id, kind, subject_id, revision, before,
                                     after, total, active, position)
          LEFT JOIN (SELECT c.sequence, c.total, c.active FROM groups.change AS c
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
    FOREACH name IN ARRAY ARRAY['groups', 'person', 'membership', 'cursor', 'feed_lock', 'feed_key', 'change'] LOOP
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

GRANT SELECT, INSERT, UPDATE, DELETE ON groups, membership TO muster_group;
GRANT SELECT, INSERT, UPDATE ON person, cursor TO muster_group;
-- DELETE, because changes are not kept for ever (libs/runtime/src/feed/retention.rs).
GRANT SELECT, INSERT, DELETE ON change TO muster_group;
-- To mend totals; what a change says stays as it was written.
GRANT UPDATE (total, active) ON change TO muster_group;
-- UPDATE, because a row lock asks for it.
GRANT SELECT, INSERT, UPDATE ON feed_lock TO muster_group;
GRANT SELECT ON feed_key TO muster_group;

-- Which organisations have moved lately. A view shows the service that, and nothing else of other
-- organisations' changes; nobody logs in as its owner (docs/decisions/0006-reading-the-feed.md).
CREATE VIEW feed_position AS SELECT organisation_id, sequence, written_at FROM change;
CREATE POLICY feed_reader ON change FOR SELECT TO muster_feed_reader USING (true);
GRANT SELECT (organisation_id, sequence, written_at) ON change TO muster_feed_reader;
GRANT SELECT ON feed_position TO muster_group;
-- Whoever takes a view over must be able to create it.
GRANT CREATE ON SCHEMA groups TO muster_feed_reader;
ALTER VIEW feed_position OWNER TO muster_feed_reader;
REVOKE CREATE ON SCHEMA groups FROM muster_feed_reader;
