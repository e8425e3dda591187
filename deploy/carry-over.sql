-- The commands that bring the wallets of this database into a new installation (docs/operations.md,
-- "Move to more partitions"): a line each, and those of a wallet in their order. Their ids are made of the wallet's, so
-- that each counts once.
SELECT jsonb_build_object('id', md5(type || ' carried over ' || id)::uuid, 'wallet_id', id, 'type', type) || fields
FROM wallets, LATERAL (VALUES
    (1, 'open_wallet', true, jsonb_build_object(
        'owner_id', owner_id, 'currency', currency, 'overdraft_limit', GREATEST(overdraft_limit, -balance),
        'metadata', metadata)),
    (2, 'deposit', balance > 0, jsonb_build_object('amount', balance, 'reference', 'Carried over')),
    (2, 'withdraw', balance < 0, jsonb_build_object('amount', -balance, 'reference', 'Carried over')),
    -- Where the limit was lowered, the balance may be below it.
    (3, 'set_limits', balance < -overdraft_limit, jsonb_build_object('overdraft_limit', overdraft_limit, 'reason', 'Carried over')),
    (4, 'freeze_wallet', status = 'frozen', jsonb_build_object('reason', 'Carried over'))
) AS steps (number, type, is_wanted, fields)
WHERE status <> 'closed' AND is_wanted
ORDER BY id, number;
