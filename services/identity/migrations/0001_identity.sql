-- Schema identity: organisations, their admins and API keys, users, and the feed of user changes.
-- Every key begins with organisation_id, so that the tables can be distributed by it.

CREATE TABLE organisation (
    organisation_id     uuid        NOT NULL PRIMARY KEY,
    slug                text        NOT NULL COLLATE "C" UNIQUE,
    display_name        text        NOT NULL,
    default_locale      text        NOT NULL,
    unknown_members     smallint    NOT NULL,
    custom_field_1_name text        NOT NULL,
    custom_field_2_name text        NOT NULL,
    custom_field_3_name text        NOT NULL,
    suspended           boolean     NOT NULL,
    created_at          timestamptz NOT NULL
);

CREATE TABLE admin (
    organisation_id   uuid        NOT NULL REFERENCES organisation,
    admin_id          uuid        NOT NULL,
    email             text        NOT NULL,
    email_key         text        NOT NULL COLLATE "C",
    display_name      text        NOT NULL,
    created_at        timestamptz NOT NULL,
    -- Argon2id, as a PHC string; none until the admin has set a password.
    password_hash     text,
    last_signed_in_at timestamptz,
    PRIMARY KEY (organisation_id, admin_id),
    UNIQUE (organisation_id, email_key)
);

-- Where an e-mail address signs in to: the one thing that is looked up before an organisation is
-- known. The service reads it through `sign_in_account` below, and no other way.
CREATE TABLE admin_login (
    organisation_id uuid NOT NULL,
    email_key       text NOT NULL COLLATE "C",
    admin_id        uuid NOT NULL,
    PRIMARY KEY (organisation_id, email_key),
    FOREIGN KEY (organisation_id, admin_id) REFERENCES admin ON DELETE CASCADE
);
CREATE INDEX admin_login_email ON admin_login (email_key, organisation_id);
CREATE INDEX admin_login_admin ON admin_login (organisation_id, admin_id);

-- From when on an e-mail address, or a client's address, may try to sign in again. The subject is
-- a SHA-256. Who is no admin, and clients, are in no organisation: the id is then nil.
CREATE TABLE sign_in_attempt (
    organisation_id uuid        NOT NULL,
    subject         bytea       NOT NULL,
    failures        integer     NOT NULL,
    free_at         timestamptz NOT NULL,
    PRIMARY KEY (organisation_id, subject)
);
CREATE INDEX sign_in_attempt_free_at ON sign_in_attempt (organisation_id, free_at);

-- One-time links: to set a password with, and to choose an organisation at sign-in. Only the
-- SHA-256 of the secret is kept, which begins with what it is for.
CREATE TABLE invitation (
    organisation_id uuid        NOT NULL,
    secret_hash     bytea       NOT NULL,
    admin_id        uuid        NOT NULL,
    expires_at      timestamptz NOT NULL,
    PRIMARY KEY (organisation_id, secret_hash),
    FOREIGN KEY (organisation_id, admin_id) REFERENCES admin ON DELETE CASCADE
);

-- Sessions of admins in the console. Only the SHA-256 of what the browser holds is kept.
CREATE TABLE session (
    organisation_id uuid        NOT NULL,
    secret_hash     bytea       NOT NULL,
    admin_id        uuid        NOT NULL,
    created_at      timestamptz NOT NULL,
    used_at         timestamptz NOT NULL,
    PRIMARY KEY (organisation_id, secret_hash),
    FOREIGN KEY (organisation_id, admin_id) REFERENCES admin ON DELETE CASCADE
);
CREATE INDEX session_admin ON session (organisation_id, admin_id);

-- Who did what in the console and on the command line. The service adds to it and reads it.
CREATE TABLE audit (
    organisation_id uuid        NOT NULL REFERENCES organisation,
    audit_id        uuid        NOT NULL,
    happened_at     timestamptz NOT NULL,
    actor           text        NOT NULL,
    actor_name      text        NOT NULL,
    action          smallint    NOT NULL,
    subject         text        NOT NULL,
    client_address  text        NOT NULL,
    trace_id        text        NOT NULL,
    PRIMARY KEY (organisation_id, audit_id)
);

CREATE TABLE api_key (
    organisation_id uuid        NOT NULL REFERENCES organisation,
    api_key_id      uuid        NOT NULL,
    secret_hash     bytea       NOT NULL,
    prefix          text        NOT NULL,
    label           text        NOT NULL,
    created_at      timestamptz NOT NULL,
    creator         text        NOT NULL,
    expires_at      timestamptz,
    revoked_at      timestamptz,
    first_used_at   timestamptz,
    last_used_at    timestamptz,
    -- Where it may be used from; anywhere where there is none.
    source_networks text[]      NOT NULL,
    PRIMARY KEY (organisation_id, api_key_id),
    UNIQUE (organisation_id, secret_hash)
);

-- What a client sent is `document`; the other columns are made from it, to find users by: keys in
-- columns of their own where there is an index, the same document with every text as its key in
-- `search` for the rest.
CREATE TABLE users (
    organisation_id   uuid        NOT NULL REFERENCES organisation,
    user_id           uuid        NOT NULL,
    revision          bigint      NOT NULL,
    created_at        timestamptz NOT NULL,
    updated_at        timestamptz NOT NULL,
    origin            smallint    NOT NULL,
    active            boolean     NOT NULL,
    user_name_key     text        NOT NULL COLLATE "C",
    primary_email_key text        COLLATE "C",
    external_id       text        COLLATE "C",
    display_name_key  text        COLLATE "C",
    document          jsonb       NOT NULL,
    search            jsonb       NOT NULL,
    -- Under row-level security no index serves `->>`, which is not leakproof; a column's does.
    content_region    text        COLLATE "C"
        GENERATED ALWAYS AS (search->>'content_region') STORED,
    custom_field_1_key text       COLLATE "C" GENERATED ALWAYS AS (
        CASE WHEN octet_length(search->>'custom_field_1') <= 512 THEN search->>'custom_field_1' END
    ) STORED,
    custom_field_2_key text       COLLATE "C" GENERATED ALWAYS AS (
        CASE WHEN octet_length(search->>'custom_field_2') <= 512 THEN search->>'custom_field_2' END
    ) STORED,
    custom_field_3_key text       COLLATE "C" GENERATED ALWAYS AS (
        CASE WHEN octet_length(search->>'custom_field_3') <= 512 THEN search->>'custom_field_3' END
    ) STORED,
    PRIMARY KEY (organisation_id, user_id)
);
CREATE UNIQUE INDEX users_user_name ON users (organisation_id, user_name_key);
CREATE UNIQUE INDEX users_primary_email ON users (organisation_id, primary_email_key);
CREATE INDEX users_external_id ON users (organisation_id, external_id);
CREATE INDEX users_display_name ON users (organisation_id, display_name_key);
-- Who changed last, read backwards: thousands whom one import changed at once are in order too.
CREATE INDEX users_updated_at ON users (organisation_id, updated_at, user_id DESC);
-- Those who have left are the fewer.
CREATE INDEX users_inactive ON users (organisation_id, user_id) WHERE NOT active;
CREATE INDEX users_content_region ON users (organisation_id, content_region);
CREATE INDEX users_custom_field_1 ON users (organisation_id, custom_field_1_key)
    WHERE custom_field_1_key IS NOT NULL;
CREATE INDEX users_custom_field_2 ON users (organisation_id, custom_field_2_key)
    WHERE custom_field_2_key IS NOT NULL;
CREATE INDEX users_custom_field_3 ON users (organisation_id, custom_field_3_key)
    WHERE custom_field_3_key IS NOT NULL;

-- Every e-mail address of every user, to find users by one that is not their primary. No foreign key:
-- an import's would be checked row by row, by a plan made before there were so many
-- (docs/decisions/0023-plans.md).
CREATE TABLE user_email (
    organisation_id uuid NOT NULL,
    email_key       text NOT NULL COLLATE "C",
    user_id         uuid NOT NULL,
    PRIMARY KEY (organisation_id, email_key, user_id)
);
CREATE INDEX user_email_user ON user_email (organisation_id, user_id);

-- Every SCIM request, for as long as it is kept. An id is of version 7 and made when the request
-- begins: in the order of the ids is in the order of time.
CREATE TABLE provisioning_log (
    organisation_id      uuid        NOT NULL,
    entry_id             uuid        NOT NULL,
    requested_at         timestamptz NOT NULL,
    duration_us          bigint      NOT NULL,
    api_key_id           uuid,
    method               text        NOT NULL,
    path                 text        NOT NULL,
    action               smallint    NOT NULL,
    outcome              smallint    NOT NULL,
    status               smallint    NOT NULL,
    subject              smallint    NOT NULL,
    subject_id           uuid,
    subject_name         text,
    subject_name_key     text        COLLATE "C",
    scim_type            text        NOT NULL,
    detail               text        NOT NULL,
    unknown_member_ids   jsonb       NOT NULL,
    unknown_member_count integer     NOT NULL,
    trace_id             text        NOT NULL,
    user_agent           text        NOT NULL,
    PRIMARY KEY (organisation_id, entry_id)
);
CREATE INDEX provisioning_log_outcome ON provisioning_log (organisation_id, outcome, entry_id)
    WHERE outcome <> 1;
CREATE INDEX provisioning_log_change ON provisioning_log (organisation_id, entry_id)
    WHERE method <> 'GET';
CREATE INDEX provisioning_log_subject ON provisioning_log (organisation_id, subject_id, entry_id)
    WHERE subject_id IS NOT NULL;
CREATE INDEX provisioning_log_name ON provisioning_log (organisation_id, subject_name_key)
    WHERE subject_name_key IS NOT NULL;
CREATE INDEX provisioning_log_key ON provisioning_log (organisation_id, api_key_id, entry_id);

-- How often there was what in the log, also of what is no longer kept: some twenty rows each.
CREATE TABLE provisioning_count (
    organisation_id uuid        NOT NULL,
    action          smallint    NOT NULL,
    outcome         smallint    NOT NULL,
    count           bigint      NOT NULL,
    first_at        timestamptz NOT NULL,
    last_at         timestamptz NOT NULL,
    PRIMARY KEY (organisation_id, action, outcome)
);

-- What lists and searches of people and reports look at, in rows a tenth as wide as a user's: an
-- organisation of 100,000 is read through in 20 ms (docs/decisions/0010-searching-people.md). No
-- foreign key, as in user_email.
CREATE TABLE listed_user (
    organisation_id    uuid     NOT NULL,
    user_id            uuid     NOT NULL,
    active             boolean  NOT NULL,
    origin             smallint NOT NULL,
    content_region     smallint NOT NULL,
    -- The country code that came in, where ISO 3166-1 does not know it.
    unknown_country    text     COLLATE "C",
    -- As they are shown, and the keys they are compared by.
    custom_field_1     text     COLLATE "C",
    custom_field_2     text     COLLATE "C",
    custom_field_3     text     COLLATE "C",
    custom_field_1_key text     COLLATE "C",
    custom_field_2_key text     COLLATE "C",
    custom_field_3_key text     COLLATE "C",
    -- The words of name, user name and e-mail addresses, as keys, between blanks.
    words              text     NOT NULL COLLATE "C",
    PRIMARY KEY (organisation_id, user_id)
    -- No index names `active`, which changes most, and pages have room: such a change is a row in the
    -- same page, and nothing in an index.
) WITH (fillfactor = 85);
-- The few of a kind. Those who are inactive are named by `users_inactive`.
CREATE INDEX listed_user_origin ON listed_user (organisation_id, user_id) WHERE origin <> 1;
CREATE INDEX listed_user_unknown_country ON listed_user (organisation_id, unknown_country, user_id)
    WHERE unknown_country IS NOT NULL;

-- Every three characters in a row of every word, the blank before it counted, as numbers that carry
-- the organisation: a large organisation lengthens nobody else's lists in the index.
-- In PL/pgSQL, which keeps its plan.
CREATE FUNCTION search_keys(organisation uuid, words text) RETURNS bigint[]
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
    BEGIN
        RETURN (
            SELECT array_agg(DISTINCT hashtextextended(substr(' ' || word, place, 3) COLLATE "C",
                                                       uuid_hash_extended(organisation, 0)))
              FROM unnest(string_to_array(words, ' ')) AS word,
                   generate_series(1, char_length(word) - 1) AS place);
    END
    $$;
-- Writes go to a list first, which every search reads: one at a time costs 0.2 ms instead of 2. The
-- service has it worked off every second (src/words.rs); whoever writes does so where it is full.
CREATE INDEX listed_user_words ON listed_user USING gin (search_keys(organisation_id, words))
    WITH (fastupdate = on, gin_pending_list_limit = 4096);

-- Imports of people. The file is here between the check and the import, so that any replica can do
-- either; both are forgotten after an hour.
CREATE TABLE import (
    organisation_id uuid        NOT NULL REFERENCES organisation,
    import_id       uuid        NOT NULL,
    created_at      timestamptz NOT NULL,
    file            bytea       NOT NULL,
    state           smallint    NOT NULL,
    -- Who imports, and when that was last heard of: whose process ends does so no more.
    run_id          uuid,
    seen_at         timestamptz,
    row_count       bigint      NOT NULL DEFAULT 0,
    done_count      bigint      NOT NULL DEFAULT 0,
    created_count   bigint      NOT NULL DEFAULT 0,
    updated_count   bigint      NOT NULL DEFAULT 0,
    failure         text        NOT NULL DEFAULT '',
    PRIMARY KEY (organisation_id, import_id)
);
-- The changes that an import under way will append, which are too many to hold in memory. No other
-- transaction ever sees them.
CREATE TABLE import_change (
    organisation_id uuid     NOT NULL,
    import_id       uuid     NOT NULL,
    position        bigint   NOT NULL,
    change_id       uuid     NOT NULL,
    kind            smallint NOT NULL,
    user_id         uuid     NOT NULL,
    revision        bigint   NOT NULL,
    before          jsonb,
    after           jsonb    NOT NULL,
    active          bigint   NOT NULL,
    PRIMARY KEY (organisation_id, import_id, position),
    FOREIGN KEY (organisation_id, import_id) REFERENCES import ON DELETE CASCADE
);

-- The head-counts as they were after a change: counting 100,000 people anew takes 50 ms, and is done
-- where anything has changed since.
CREATE TABLE head_counts (
    organisation_id uuid   NOT NULL PRIMARY KEY REFERENCES organisation,
    sequence        bigint NOT NULL,
    change_id       uuid   NOT NULL,
    counts          bytea  NOT NULL
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
        PERFORM true FROM identity.feed_lock WHERE organisation_id = organisation FOR NO KEY UPDATE;
        IF NOT FOUND THEN
            INSERT INTO identity.feed_lock (organisation_id) VALUES (organisation) ON CONFLICT DO NOTHING;
            PERFORM true FROM identity.feed_lock WHERE organisation_id = organisation FOR NO KEY UPDATE;
        END IF;
        RETURN QUERY
        INSERT INTO identity.change (organisation_id, sequence, change_id, written_at, kind, subject_id,
                            revision, before, after, actor, traceparent, total, active)
        SELECT organisation, coalesce(last.sequence, 0) + n.position, n.change_id, at, n.kind,
               n.subject_id, n.revision, n.before, n.after, who, n.cause,
               coalesce(last.total, 0) + sum(n.total) OVER (ORDER BY n.position),
               coalesce(last.active, 0) + sum(n.active) OVER (ORDER BY n.position)
          FROM unnest(causes, ids, kinds, subjects, revisions, befores, afters, totals, actives)
               WITH ORDINALITY AS n (cause, change_id, kind, subject_id, revision, before,
                                     after, total, active, position)
          LEFT JOIN (SELECT c.sequence, c.total, c.active FROM identity.change AS c
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
    FOREACH name IN ARRAY ARRAY[
        'organisation', 'admin', 'admin_login', 'sign_in_attempt', 'invitation', 'session', 'audit', 'api_key',
        'users', 'user_email', 'listed_user', 'import', 'import_change', 'head_counts', 'provisioning_log',
        'provisioning_count', 'feed_lock', 'feed_key', 'change'
    ] LOOP
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
-- Known before an organisation is: which there are, by id and slug, and the key of resume tokens.
CREATE POLICY everybody ON organisation FOR SELECT USING (true);
CREATE POLICY everybody ON feed_lock FOR SELECT USING (true);
CREATE POLICY everybody ON feed_key FOR SELECT USING (true);

GRANT SELECT, INSERT, UPDATE ON organisation, api_key TO muster_identity;
-- DELETE, because the log is not kept for ever. What it says stays as it was written.
GRANT SELECT, INSERT, DELETE ON provisioning_log, import_change TO muster_identity;
GRANT SELECT, INSERT, UPDATE ON provisioning_count TO muster_identity;
GRANT SELECT, INSERT, UPDATE, DELETE
    ON admin, invitation, session, sign_in_attempt, users, user_email, listed_user, import
    TO muster_identity;
-- It is read by a function, and deleted with its admin.
GRANT INSERT ON admin_login TO muster_identity;
-- What has happened has happened.
GRANT SELECT, INSERT ON audit TO muster_identity;
GRANT SELECT, INSERT, UPDATE ON head_counts TO muster_identity;
-- DELETE, because changes are not kept for ever (libs/runtime/src/feed/retention.rs).
GRANT SELECT, INSERT, DELETE ON change TO muster_identity;
-- To mend totals, and to erase; nothing else changes what a change says.
GRANT UPDATE (total, active, before, after) ON change TO muster_identity;
-- To erase names (src/store/user/erase.rs).
GRANT UPDATE (path, subject_name, subject_name_key, detail) ON provisioning_log TO muster_identity;
-- UPDATE, because a row lock asks for it.
GRANT SELECT, INSERT, UPDATE ON feed_lock TO muster_identity;
GRANT SELECT ON feed_key TO muster_identity;

-- Which organisations have moved lately. A view shows the service that, and nothing else of other
-- organisations' changes; nobody logs in as its owner (docs/decisions/0006-reading-the-feed.md).
CREATE VIEW feed_position AS SELECT organisation_id, sequence, written_at FROM change;
CREATE POLICY feed_reader ON change FOR SELECT TO muster_feed_reader USING (true);
GRANT SELECT (organisation_id, sequence, written_at) ON change TO muster_feed_reader;
GRANT SELECT ON feed_position TO muster_identity;
-- Whoever takes a view over must be able to create it.
GRANT CREATE ON SCHEMA identity TO muster_feed_reader;
ALTER VIEW feed_position OWNER TO muster_feed_reader;
REVOKE CREATE ON SCHEMA identity FROM muster_feed_reader;

-- Which organisations an e-mail address signs in to: the one statement that reads `admin_login`.
-- Nobody logs in as its owner.
CREATE FUNCTION sign_in_account(wanted text) RETURNS TABLE (organisation_id uuid, admin_id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog
    AS $$
        SELECT l.organisation_id, l.admin_id
          FROM identity.admin_login AS l
         WHERE l.email_key = wanted
         ORDER BY l.organisation_id LIMIT 20
    $$;
CREATE POLICY sign_in ON admin_login FOR SELECT TO muster_sign_in USING (true);
GRANT USAGE ON SCHEMA identity TO muster_sign_in;
GRANT SELECT ON admin_login TO muster_sign_in;
REVOKE ALL ON FUNCTION sign_in_account FROM PUBLIC;
GRANT EXECUTE ON FUNCTION sign_in_account TO muster_identity;
GRANT CREATE ON SCHEMA identity TO muster_sign_in;
ALTER FUNCTION sign_in_account OWNER TO muster_sign_in;
REVOKE CREATE ON SCHEMA identity FROM muster_sign_in;

-- Whose words may hold a text. Under row-level security no index serves `@>`, which is not
-- leakproof; this function's owner has a policy that sees every row, and the function shows those
-- of the transaction's organisation. Nobody logs in as the owner.
CREATE FUNCTION users_with_words(parts text[]) RETURNS SETOF uuid
    LANGUAGE sql STABLE SECURITY DEFINER ROWS 20 SET search_path = identity, pg_temp AS $$
        SELECT user_id FROM identity.listed_user
         WHERE search_keys(organisation_id, words) @>
               (SELECT array_agg(hashtextextended(
                           part COLLATE "C",
                           uuid_hash_extended(current_setting('muster.organisation_id')::uuid, 0)))
                  FROM unnest(parts) AS part)
           -- IS TRUE keeps the index of ids out of it: the keys carry the organisation already.
           AND (organisation_id = current_setting('muster.organisation_id')::uuid) IS TRUE
    $$;
CREATE POLICY searcher ON listed_user FOR SELECT TO muster_searcher USING (true);
GRANT SELECT (organisation_id, user_id, words) ON listed_user TO muster_searcher;
GRANT USAGE ON SCHEMA identity TO muster_searcher;
REVOKE EXECUTE ON FUNCTION users_with_words FROM PUBLIC;
GRANT EXECUTE ON FUNCTION users_with_words TO muster_identity;
GRANT CREATE ON SCHEMA identity TO muster_searcher;
ALTER FUNCTION users_with_words OWNER TO muster_searcher;
REVOKE CREATE ON SCHEMA identity FROM muster_searcher;

-- Works off the list of what the index of words does not have yet, which only its owner may; how many
-- pages of it.
CREATE FUNCTION index_words() RETURNS bigint
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog
    AS $$ SELECT gin_clean_pending_list('identity.listed_user_words') $$;
REVOKE ALL ON FUNCTION index_words FROM PUBLIC;
GRANT EXECUTE ON FUNCTION index_words TO muster_identity;
