-- Who stands for a declared address is settled in the order of identity's feed: a hand-over may
-- come before the feed and before other hand-overs, and decides only until the feed has come.

-- What of a user the feed has told so far.
ALTER TABLE person
    ADD COLUMN settled_revision bigint  NOT NULL DEFAULT 0,
    ADD COLUMN settled_active   boolean NOT NULL DEFAULT false,
    ADD COLUMN settled_key      text    COLLATE "C";
CREATE INDEX person_settled ON person (organisation_id, settled_key);

-- Whether the feed has told of the declaration, and whom it stands for then.
ALTER TABLE declaration
    ADD COLUMN settled             boolean NOT NULL DEFAULT false,
    ADD COLUMN settled_approver_id uuid;
CREATE INDEX declaration_settled ON declaration (organisation_id, settled_approver_id);

-- What is there counts as told. The owner is bound by the policies otherwise.
ALTER TABLE person NO FORCE ROW LEVEL SECURITY;
ALTER TABLE declaration NO FORCE ROW LEVEL SECURITY;
UPDATE person
   SET settled_revision = revision, settled_active = active, settled_key = email_key;
UPDATE declaration SET settled = true, settled_approver_id = approver_id;
ALTER TABLE person FORCE ROW LEVEL SECURITY;
ALTER TABLE declaration FORCE ROW LEVEL SECURITY;
