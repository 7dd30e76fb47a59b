-- Distributes Muster's tables by organisation over the workers of a Citus cluster (docs/scaling.md).
-- Run it once, after `muster migrate`, on the coordinator and as the role that migrated:
--
--     psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f deploy/citus/distribute.sql
--
-- What is there already moves to the workers with it; nobody may write meanwhile.
BEGIN;

-- Row-level security asks for the organisation that a transaction has set, on the workers too.
DO $$
BEGIN
    EXECUTE format('ALTER DATABASE %I SET citus.propagate_set_commands = ''local''', current_database());
END $$;

-- Citus connects to workers as the owner of a function: how these two authenticate between the nodes
-- is pg_hba.conf's to say (docs/scaling.md). Nobody else logs in as them.
ALTER ROLE muster_searcher LOGIN;
ALTER ROLE muster_sign_in LOGIN;

-- Nobody works off what the index of words of a worker has not taken yet but whoever writes: often,
-- and little at a time.
ALTER INDEX identity.listed_user_words SET (gin_pending_list_limit = 256);

-- A slug is an organisation's alone, so the organisations are on every node.
SELECT create_reference_table('identity.organisation');

-- Those that others refer to come first.
SELECT create_distributed_table('identity.admin', 'organisation_id');
SELECT create_distributed_table('identity.users', 'organisation_id');
SELECT create_distributed_table('identity.import', 'organisation_id');
SELECT create_distributed_table('groups.groups', 'organisation_id');

SELECT create_distributed_table('identity.admin_login', 'organisation_id');
SELECT create_distributed_table('identity.sign_in_attempt', 'organisation_id');
SELECT create_distributed_table('identity.invitation', 'organisation_id');
SELECT create_distributed_table('identity.session', 'organisation_id');
SELECT create_distributed_table('identity.audit', 'organisation_id');
SELECT create_distributed_table('identity.api_key', 'organisation_id');
SELECT create_distributed_table('identity.user_email', 'organisation_id');
SELECT create_distributed_table('identity.listed_user', 'organisation_id');
SELECT create_distributed_table('identity.import_change', 'organisation_id');
SELECT create_distributed_table('identity.head_counts', 'organisation_id');
SELECT create_distributed_table('identity.provisioning_log', 'organisation_id');
SELECT create_distributed_table('identity.provisioning_count', 'organisation_id');
SELECT create_distributed_table('identity.feed_lock', 'organisation_id');
SELECT create_distributed_table('identity.change', 'organisation_id');

SELECT create_distributed_table('groups.person', 'organisation_id');
SELECT create_distributed_table('groups.membership', 'organisation_id');
SELECT create_distributed_table('groups.cursor', 'organisation_id');
SELECT create_distributed_table('groups.feed_lock', 'organisation_id');
SELECT create_distributed_table('groups.change', 'organisation_id');

SELECT create_distributed_table('approver.person', 'organisation_id');
SELECT create_distributed_table('approver.declaration', 'organisation_id');
SELECT create_distributed_table('approver.cursor', 'organisation_id');
SELECT create_distributed_table('approver.feed_lock', 'organisation_id');
SELECT create_distributed_table('approver.change', 'organisation_id');

-- The keys of tokens (feed_key) and the list of migrations stay on the coordinator: no statement
-- reads them together with another table.
COMMIT;
