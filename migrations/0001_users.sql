-- Accounts of people, and the refresh tokens that keep them logged in.

CREATE TABLE users (
    id uuid PRIMARY KEY,
    -- Normalised, as it is shown.
    email text NOT NULL CHECK (length(email) BETWEEN 3 AND 254),
    -- What tells accounts apart: the address without its case.
    email_key text NOT NULL CONSTRAINT users_email_taken UNIQUE,
    password_hash text NOT NULL,
    -- Another hash of the same password is no change.
    password_changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    role text NOT NULL CHECK (role IN ('user', 'operator')),
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX users_by_age ON users (created_at, id);

-- A family begins with a login. It ends with a logout, with its age, or when a spent token is used again.
CREATE TABLE refresh_families (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz
);

CREATE INDEX refresh_families_by_user ON refresh_families (user_id);
CREATE INDEX refresh_families_by_end ON refresh_families (expires_at);

CREATE TABLE refresh_tokens (
    -- SHA-256 of the token; the token itself is nowhere.
    hash bytea PRIMARY KEY CHECK (length(hash) = 32),
    family_id uuid NOT NULL REFERENCES refresh_families (id) ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    spent_at timestamptz,
    -- The end of its family: until then, a spent token is known.
    kept_until timestamptz NOT NULL
);

CREATE INDEX refresh_tokens_by_family ON refresh_tokens (family_id);
CREATE INDEX refresh_tokens_by_end ON refresh_tokens (kept_until);
