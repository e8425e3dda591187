-- Accounts and refresh tokens. A transaction that locks both a family and its tokens locks the family first.

-- name: insert_user
INSERT INTO users (id, email, email_key, password_hash, role)
VALUES (%(id)s, %(email)s, %(email_key)s, %(password_hash)s, %(role)s)
ON CONFLICT (email_key) DO NOTHING
RETURNING id, email, role, created_at, password_changed_at;

-- name: users_by_keys
SELECT id, email, email_key, role, created_at, password_hash, password_changed_at
FROM users
WHERE email_key = ANY (%(keys)s);

-- name: set_key
-- Nothing happens where another login has done it.
UPDATE users
SET email_key = %(new)s
WHERE id = %(id)s AND email_key = %(old)s;

-- name: user_by_id
SELECT id, email, role, created_at
FROM users
WHERE id = %(id)s;

-- name: users
SELECT id, email, role, created_at
FROM users
ORDER BY created_at, id
LIMIT %(limit)s;

-- name: count_users
SELECT count(*) AS number FROM users;

-- name: set_role
UPDATE users
SET role = %(role)s
WHERE id = %(id)s
RETURNING id, email, role, created_at;

-- name: set_password
UPDATE users
SET password_hash = %(password_hash)s, password_changed_at = clock_timestamp()
WHERE id = %(id)s
RETURNING id, email, role, created_at;

-- name: rehash
UPDATE users
SET password_hash = %(new)s
WHERE id = %(id)s AND password_hash = %(old)s;

-- name: begin_family
-- Nothing happens where the password was changed since it was compared: the lock makes a change wait, and then see this
-- family.
WITH person AS (
    SELECT id
    FROM users
    WHERE id = %(user_id)s AND password_changed_at = %(password_changed_at)s
    FOR SHARE
), family AS (
    INSERT INTO refresh_families (id, user_id, expires_at)
    SELECT %(family_id)s, id, now() + %(family_days)s * interval '1 day' FROM person
    RETURNING id, expires_at
)
INSERT INTO refresh_tokens (hash, family_id, expires_at, kept_until)
SELECT %(hash)s, id, least(now() + %(idle_days)s * interval '1 day', expires_at), expires_at FROM family;

-- name: lock_family
SELECT f.id, f.expires_at, f.revoked_at IS NOT NULL AS is_revoked, f.expires_at <= now() AS is_expired, f.user_id
FROM refresh_families f
WHERE f.id = (SELECT family_id FROM refresh_tokens WHERE hash = %(hash)s)
FOR UPDATE;

-- name: refresh_token
SELECT spent_at IS NOT NULL AS is_spent, expires_at <= now() AS is_expired
FROM refresh_tokens
WHERE hash = %(hash)s;

-- name: renew_token
WITH spent AS (
    UPDATE refresh_tokens SET spent_at = now() WHERE hash = %(old)s RETURNING family_id, kept_until
)
INSERT INTO refresh_tokens (hash, family_id, expires_at, kept_until)
SELECT %(new)s, family_id, least(now() + %(idle_days)s * interval '1 day', kept_until), kept_until FROM spent;

-- name: revoke_family
UPDATE refresh_families
SET revoked_at = now()
WHERE id = %(id)s AND revoked_at IS NULL;

-- name: revoke_family_of_token
UPDATE refresh_families
SET revoked_at = now()
WHERE id = (SELECT family_id FROM refresh_tokens WHERE hash = %(hash)s) AND revoked_at IS NULL;

-- name: revoke_families_of_user
UPDATE refresh_families
SET revoked_at = now()
WHERE user_id = %(user_id)s AND revoked_at IS NULL;

-- name: sweep_tokens
DELETE FROM refresh_tokens
WHERE hash IN (
    SELECT hash FROM refresh_tokens WHERE kept_until <= now() LIMIT %(limit)s FOR UPDATE SKIP LOCKED
);

-- name: sweep_families
DELETE FROM refresh_families
WHERE id IN (
    SELECT f.id
    FROM refresh_families f
    WHERE f.expires_at <= now() AND NOT EXISTS (SELECT FROM refresh_tokens t WHERE t.family_id = f.id)
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
);
