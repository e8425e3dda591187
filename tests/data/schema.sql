CREATE TYPE public.entry_direction AS ENUM (
    'debit',
    'credit'
);
CREATE TYPE public.transaction_kind AS ENUM (
    'deposit',
    'withdrawal',
    'transfer'
);
CREATE TYPE public.transaction_status AS ENUM (
    'pending',
    'completed',
    'failed'
);
CREATE TYPE public.wallet_event_type AS ENUM (
    'wallet.created',
    'wallet.balance_updated',
    'wallet.status_changed',
    'wallet.limits_changed'
);
CREATE TYPE public.wallet_status AS ENUM (
    'open',
    'frozen',
    'closed'
);
CREATE FUNCTION public.check_entries() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF EXISTS (
        SELECT FROM added
        GROUP BY partition, (sequence + 1) / 2
        HAVING count(*) <> 2 OR min(amount) <> max(amount) OR min(currency) <> max(currency)
            OR min(transaction_id::text) <> max(transaction_id::text) OR min(kind) <> max(kind)
            OR min(occurred_at) <> max(occurred_at)
            OR count(effective_at) = 1 OR min(effective_at) <> max(effective_at)
    ) THEN
        RAISE EXCEPTION 'a transaction in the ledger does not balance' USING ERRCODE = 'check_violation';
    END IF;
    IF EXISTS (
        SELECT FROM (
            SELECT partition, min(sequence) AS first, max(sequence) AS last, count(*) AS entries
            FROM added
            GROUP BY partition
        ) AS chains
        WHERE last - first + 1 <> entries
            OR first <> 1 + COALESCE(
                (
                    SELECT sequence FROM ledger_entries
                    WHERE ledger_entries.partition = chains.partition AND ledger_entries.sequence < chains.first
                    ORDER BY sequence DESC
                    LIMIT 1
                ),
                0
            )
    ) THEN
        RAISE EXCEPTION 'the ledger does not go on where it ended' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION public.refuse_change() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
END $$;
CREATE TABLE public.daily_active_wallets (
    day date NOT NULL,
    currency text NOT NULL,
    wallet_id uuid NOT NULL,
    partition integer NOT NULL,
    is_undated boolean DEFAULT true NOT NULL
);
CREATE TABLE public.daily_totals (
    day date NOT NULL,
    currency text NOT NULL,
    kind public.transaction_kind NOT NULL,
    partition integer NOT NULL,
    count bigint NOT NULL,
    volume numeric NOT NULL
)
WITH (fillfactor='50');
CREATE VIEW public.daily_metrics AS
 SELECT day,
    currency,
    (COALESCE(sum(count) FILTER (WHERE (kind = 'deposit'::public.transaction_kind)), (0)::numeric))::bigint AS deposits,
    COALESCE(sum(volume) FILTER (WHERE (kind = 'deposit'::public.transaction_kind)), (0)::numeric) AS deposits_volume,
    (COALESCE(sum(count) FILTER (WHERE (kind = 'withdrawal'::public.transaction_kind)), (0)::numeric))::bigint AS withdrawals,
    COALESCE(sum(volume) FILTER (WHERE (kind = 'withdrawal'::public.transaction_kind)), (0)::numeric) AS withdrawals_volume,
    (COALESCE(sum(count) FILTER (WHERE (kind = 'transfer'::public.transaction_kind)), (0)::numeric))::bigint AS transfers,
    COALESCE(sum(volume) FILTER (WHERE (kind = 'transfer'::public.transaction_kind)), (0)::numeric) AS transfers_volume,
    ( SELECT count(DISTINCT active.wallet_id) AS count
           FROM public.daily_active_wallets active
          WHERE ((active.day = totals.day) AND (active.currency = totals.currency))) AS active_wallets
   FROM public.daily_totals totals
  GROUP BY day, currency;
CREATE TABLE public.effective_active_wallets (
    day date CONSTRAINT daily_active_wallets_day_not_null NOT NULL,
    currency text CONSTRAINT daily_active_wallets_currency_not_null NOT NULL,
    wallet_id uuid CONSTRAINT daily_active_wallets_wallet_id_not_null NOT NULL,
    partition integer CONSTRAINT daily_active_wallets_partition_not_null NOT NULL
);
CREATE TABLE public.effective_totals (
    day date NOT NULL,
    recorded_on date NOT NULL,
    currency text NOT NULL,
    kind public.transaction_kind NOT NULL,
    partition integer NOT NULL,
    count bigint NOT NULL,
    volume numeric NOT NULL
)
WITH (fillfactor='50');
CREATE TABLE public.ledger_entries (
    partition integer NOT NULL,
    sequence bigint NOT NULL,
    transaction_id uuid NOT NULL,
    kind public.transaction_kind NOT NULL,
    direction public.entry_direction NOT NULL,
    wallet_id uuid,
    external text,
    amount bigint NOT NULL,
    currency text NOT NULL,
    balance_after bigint,
    wallet_version bigint,
    occurred_at timestamp with time zone NOT NULL,
    hash bytea NOT NULL,
    effective_at timestamp with time zone,
    CONSTRAINT ledger_entries_amount_check CHECK ((amount > 0)),
    CONSTRAINT ledger_entries_check CHECK (((wallet_id IS NULL) <> (external IS NULL))),
    CONSTRAINT ledger_entries_check1 CHECK (((wallet_id IS NULL) = (balance_after IS NULL))),
    CONSTRAINT ledger_entries_check2 CHECK (((wallet_id IS NULL) = (wallet_version IS NULL))),
    CONSTRAINT ledger_entries_check3 CHECK (((direction = 'debit'::public.entry_direction) = ((sequence % (2)::bigint) = 1))),
    CONSTRAINT ledger_entries_external_check CHECK ((external = ANY (ARRAY['external:deposits'::text, 'external:withdrawals'::text]))),
    CONSTRAINT ledger_entries_hash_check CHECK ((length(hash) = 32))
);
CREATE VIEW public.ledger AS
 SELECT partition,
    sequence,
    transaction_id,
    kind,
    COALESCE((wallet_id)::text, external) AS account,
    direction,
    amount,
    currency,
    balance_after,
    wallet_version,
    occurred_at,
    hash,
    effective_at
   FROM public.ledger_entries;
CREATE TABLE public.ledger_outbox (
    partition integer CONSTRAINT outbox_events_partition_not_null NOT NULL,
    sequence bigint CONSTRAINT outbox_events_sequence_not_null NOT NULL,
    records bytea CONSTRAINT outbox_events_records_not_null NOT NULL,
    created_at timestamp with time zone DEFAULT now() CONSTRAINT outbox_events_created_at_not_null NOT NULL
);
ALTER TABLE ONLY public.ledger_outbox ALTER COLUMN records SET STORAGE EXTERNAL;
CREATE TABLE public.outbox_events (
    partition integer NOT NULL,
    sequence bigint NOT NULL,
    records bytea NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);
ALTER TABLE ONLY public.outbox_events ALTER COLUMN records SET STORAGE EXTERNAL;
CREATE TABLE public.positions (
    stage text NOT NULL,
    partition integer NOT NULL,
    read_offset bigint NOT NULL,
    command_offset bigint NOT NULL,
    sequence bigint DEFAULT 0 NOT NULL,
    told bigint DEFAULT 0 NOT NULL,
    sent bigint DEFAULT 0 NOT NULL
)
WITH (fillfactor='20');
CREATE TABLE public.refresh_families (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    revoked_at timestamp with time zone
);
CREATE TABLE public.refresh_tokens (
    hash bytea NOT NULL,
    family_id uuid NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    spent_at timestamp with time zone,
    kept_until timestamp with time zone NOT NULL,
    CONSTRAINT refresh_tokens_hash_check CHECK ((length(hash) = 32))
);
CREATE TABLE public.transactions (
    created_at timestamp with time zone NOT NULL,
    partition integer NOT NULL,
    command_offset bigint NOT NULL,
    id uuid NOT NULL,
    kind public.transaction_kind NOT NULL,
    status public.transaction_status NOT NULL,
    from_wallet_id uuid,
    to_wallet_id uuid,
    from_owner_id uuid,
    to_owner_id uuid,
    actor_id uuid,
    is_refused boolean NOT NULL,
    amount bigint NOT NULL,
    currency text,
    reference text,
    metadata jsonb NOT NULL,
    failure_code text,
    failure_detail text,
    completed_at timestamp with time zone,
    effective_at timestamp with time zone,
    CONSTRAINT transactions_check CHECK (((amount > 0) OR is_refused)),
    CONSTRAINT transactions_check1 CHECK (((from_wallet_id IS NOT NULL) OR (to_wallet_id IS NOT NULL))),
    CONSTRAINT transactions_check2 CHECK (((status = 'failed'::public.transaction_status) = (failure_code IS NOT NULL))),
    CONSTRAINT transactions_check3 CHECK (((status = 'completed'::public.transaction_status) = (completed_at IS NOT NULL)))
);
CREATE TABLE public.user_totals (
    user_id uuid NOT NULL,
    currency text NOT NULL,
    kind public.transaction_kind NOT NULL,
    direction public.entry_direction NOT NULL,
    partition integer NOT NULL,
    count bigint NOT NULL,
    volume numeric NOT NULL,
    last_activity_at timestamp with time zone NOT NULL
)
WITH (fillfactor='80');
CREATE VIEW public.user_snapshots AS
 SELECT user_id,
    currency,
    (COALESCE(sum(count) FILTER (WHERE (kind = 'deposit'::public.transaction_kind)), (0)::numeric))::bigint AS deposits,
    COALESCE(sum(volume) FILTER (WHERE (kind = 'deposit'::public.transaction_kind)), (0)::numeric) AS deposits_volume,
    (COALESCE(sum(count) FILTER (WHERE (kind = 'withdrawal'::public.transaction_kind)), (0)::numeric))::bigint AS withdrawals,
    COALESCE(sum(volume) FILTER (WHERE (kind = 'withdrawal'::public.transaction_kind)), (0)::numeric) AS withdrawals_volume,
    (COALESCE(sum(count) FILTER (WHERE ((kind = 'transfer'::public.transaction_kind) AND (direction = 'credit'::public.entry_direction))), (0)::numeric))::bigint AS transfers_in,
    COALESCE(sum(volume) FILTER (WHERE ((kind = 'transfer'::public.transaction_kind) AND (direction = 'credit'::public.entry_direction))), (0)::numeric) AS transfers_in_volume,
    (COALESCE(sum(count) FILTER (WHERE ((kind = 'transfer'::public.transaction_kind) AND (direction = 'debit'::public.entry_direction))), (0)::numeric))::bigint AS transfers_out,
    COALESCE(sum(volume) FILTER (WHERE ((kind = 'transfer'::public.transaction_kind) AND (direction = 'debit'::public.entry_direction))), (0)::numeric) AS transfers_out_volume,
    COALESCE(sum(volume) FILTER (WHERE (direction = 'credit'::public.entry_direction)), (0)::numeric) AS volume_in,
    COALESCE(sum(volume) FILTER (WHERE (direction = 'debit'::public.entry_direction)), (0)::numeric) AS volume_out,
    sum(
        CASE direction
            WHEN 'credit'::public.entry_direction THEN volume
            ELSE (- volume)
        END) AS balance,
    max(last_activity_at) AS last_activity_at
   FROM public.user_totals
  GROUP BY user_id, currency;
CREATE TABLE public.users (
    id uuid NOT NULL,
    email text NOT NULL,
    email_key text NOT NULL,
    password_hash text NOT NULL,
    password_changed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    role text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT users_email_check CHECK (((length(email) >= 3) AND (length(email) <= 254))),
    CONSTRAINT users_role_check CHECK ((role = ANY (ARRAY['user'::text, 'operator'::text])))
);
CREATE TABLE public.wallet_events (
    wallet_id uuid NOT NULL,
    command_offset bigint NOT NULL,
    partition integer NOT NULL,
    type public.wallet_event_type NOT NULL,
    version bigint NOT NULL,
    occurred_at timestamp with time zone NOT NULL,
    owner_id uuid NOT NULL,
    command_id uuid NOT NULL,
    change bigint NOT NULL,
    balance bigint NOT NULL,
    status public.wallet_status NOT NULL,
    reason text,
    kind public.transaction_kind,
    transaction_status public.transaction_status,
    counterparty_id uuid,
    initiated_at timestamp with time zone,
    initiated_partition integer,
    initiated_offset bigint,
    is_listed boolean NOT NULL,
    CONSTRAINT wallet_events_check CHECK (((kind IS NULL) = (change = 0))),
    CONSTRAINT wallet_events_check1 CHECK (((kind IS NULL) = (initiated_at IS NULL)))
);
CREATE TABLE public.wallet_limits (
    wallet_id uuid NOT NULL,
    command_offset bigint NOT NULL,
    overdraft_limit bigint NOT NULL,
    CONSTRAINT wallet_limits_overdraft_limit_check CHECK ((overdraft_limit >= 0))
);
CREATE TABLE public.wallets (
    id uuid NOT NULL,
    owner_id uuid NOT NULL,
    currency text NOT NULL,
    balance bigint NOT NULL,
    overdraft_limit bigint NOT NULL,
    status public.wallet_status NOT NULL,
    version bigint NOT NULL,
    metadata jsonb NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    opened_by uuid NOT NULL,
    opening_limit bigint,
    CONSTRAINT wallets_opening_limit_check CHECK ((opening_limit >= 0)),
    CONSTRAINT wallets_overdraft_limit_check CHECK ((overdraft_limit >= 0)),
    CONSTRAINT wallets_version_check CHECK ((version > 0))
)
WITH (fillfactor='70');
ALTER TABLE ONLY public.daily_active_wallets
    ADD CONSTRAINT daily_active_wallets_pkey PRIMARY KEY (day, currency, wallet_id, partition);
ALTER TABLE ONLY public.daily_totals
    ADD CONSTRAINT daily_totals_pkey PRIMARY KEY (day, currency, kind, partition);
ALTER TABLE ONLY public.effective_active_wallets
    ADD CONSTRAINT effective_active_wallets_pkey PRIMARY KEY (day, currency, wallet_id, partition);
ALTER TABLE ONLY public.effective_totals
    ADD CONSTRAINT effective_totals_pkey PRIMARY KEY (day, recorded_on, currency, kind, partition);
ALTER TABLE ONLY public.ledger_entries
    ADD CONSTRAINT ledger_entries_pkey PRIMARY KEY (partition, sequence);
ALTER TABLE ONLY public.ledger_outbox
    ADD CONSTRAINT ledger_outbox_pkey PRIMARY KEY (partition, sequence);
ALTER TABLE ONLY public.outbox_events
    ADD CONSTRAINT outbox_events_pkey PRIMARY KEY (partition, sequence);
ALTER TABLE ONLY public.positions
    ADD CONSTRAINT positions_pkey PRIMARY KEY (stage, partition);
ALTER TABLE ONLY public.refresh_families
    ADD CONSTRAINT refresh_families_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.refresh_tokens
    ADD CONSTRAINT refresh_tokens_pkey PRIMARY KEY (hash);
ALTER TABLE ONLY public.transactions
    ADD CONSTRAINT transactions_pkey PRIMARY KEY (created_at, partition, command_offset);
ALTER TABLE ONLY public.user_totals
    ADD CONSTRAINT user_totals_pkey PRIMARY KEY (user_id, currency, kind, direction, partition);
ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_email_taken UNIQUE (email_key);
ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.wallet_events
    ADD CONSTRAINT wallet_events_pkey PRIMARY KEY (wallet_id, command_offset);
ALTER TABLE ONLY public.wallet_limits
    ADD CONSTRAINT wallet_limits_pkey PRIMARY KEY (wallet_id, command_offset);
ALTER TABLE ONLY public.wallets
    ADD CONSTRAINT wallets_pkey PRIMARY KEY (id);
CREATE INDEX effective_totals_by_record ON public.effective_totals USING btree (recorded_on);
CREATE INDEX ledger_entries_by_time ON public.ledger_entries USING btree (occurred_at, partition, sequence);
CREATE INDEX ledger_entries_by_wallet ON public.ledger_entries USING btree (wallet_id, occurred_at, partition, sequence) WHERE (wallet_id IS NOT NULL);
CREATE INDEX refresh_families_by_end ON public.refresh_families USING btree (expires_at);
CREATE INDEX refresh_families_by_user ON public.refresh_families USING btree (user_id);
CREATE INDEX refresh_tokens_by_end ON public.refresh_tokens USING btree (kept_until);
CREATE INDEX refresh_tokens_by_family ON public.refresh_tokens USING btree (family_id);
CREATE INDEX transactions_by_actor ON public.transactions USING btree (actor_id, created_at, partition, command_offset) WHERE is_refused;
CREATE INDEX transactions_by_id ON public.transactions USING btree (id);
CREATE INDEX transactions_by_refusing_wallet ON public.transactions USING btree (COALESCE(from_wallet_id, to_wallet_id), command_offset) WHERE is_refused;
CREATE INDEX transactions_by_status ON public.transactions USING btree (status, created_at, partition, command_offset) WHERE (status <> 'completed'::public.transaction_status);
CREATE INDEX users_by_age ON public.users USING btree (created_at, id);
CREATE INDEX wallet_events_by_owner ON public.wallet_events USING btree (owner_id, initiated_at, initiated_partition, initiated_offset) WHERE is_listed;
CREATE INDEX wallet_events_refunds ON public.wallet_events USING btree (owner_id, initiated_at, initiated_partition, initiated_offset) WHERE (transaction_status = 'failed'::public.transaction_status);
CREATE INDEX wallets_by_command ON public.wallets USING btree (opened_by);
CREATE INDEX wallets_by_owner ON public.wallets USING btree (owner_id, created_at, id);
CREATE TRIGGER ledger_entries_are_final BEFORE DELETE OR UPDATE OR TRUNCATE ON public.ledger_entries FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();
ALTER TABLE public.ledger_entries ENABLE ALWAYS TRIGGER ledger_entries_are_final;
CREATE TRIGGER ledger_entries_balance AFTER INSERT ON public.ledger_entries REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION public.check_entries();
ALTER TABLE public.ledger_entries ENABLE ALWAYS TRIGGER ledger_entries_balance;
ALTER TABLE ONLY public.refresh_families
    ADD CONSTRAINT refresh_families_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.refresh_tokens
    ADD CONSTRAINT refresh_tokens_family_id_fkey FOREIGN KEY (family_id) REFERENCES public.refresh_families(id) ON DELETE CASCADE;
ALTER TABLE public.users ENABLE ROW LEVEL SECURITY;
CREATE POLICY users_are_changed ON public.users FOR UPDATE TO mercuria_app USING (true);
CREATE POLICY users_are_deleted ON public.users FOR DELETE TO mercuria_app USING (true);
CREATE POLICY users_are_no_operators ON public.users FOR INSERT TO mercuria_app WITH CHECK ((role = 'user'::text));
CREATE POLICY users_are_seen ON public.users FOR SELECT TO mercuria_app USING (true);
GRANT SELECT,INSERT ON TABLE public.daily_active_wallets TO mercuria_app;
GRANT UPDATE(is_undated) ON TABLE public.daily_active_wallets TO mercuria_app;
GRANT SELECT,INSERT,UPDATE ON TABLE public.daily_totals TO mercuria_app;
GRANT SELECT ON TABLE public.daily_metrics TO mercuria_app;
GRANT SELECT,INSERT ON TABLE public.effective_active_wallets TO mercuria_app;
GRANT SELECT,INSERT,UPDATE ON TABLE public.effective_totals TO mercuria_app;
GRANT SELECT,INSERT ON TABLE public.ledger_entries TO mercuria_app;
GRANT SELECT ON TABLE public.ledger TO mercuria_app;
GRANT SELECT,INSERT,DELETE ON TABLE public.ledger_outbox TO mercuria_app;
GRANT SELECT,INSERT,DELETE ON TABLE public.outbox_events TO mercuria_app;
GRANT SELECT,INSERT,UPDATE ON TABLE public.positions TO mercuria_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.refresh_families TO mercuria_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.refresh_tokens TO mercuria_app;
GRANT SELECT,INSERT,UPDATE ON TABLE public.transactions TO mercuria_app;
GRANT SELECT,INSERT,UPDATE ON TABLE public.user_totals TO mercuria_app;
GRANT SELECT ON TABLE public.user_snapshots TO mercuria_app;
GRANT SELECT,INSERT,DELETE ON TABLE public.users TO mercuria_app;
GRANT UPDATE(email_key) ON TABLE public.users TO mercuria_app;
GRANT UPDATE(password_hash) ON TABLE public.users TO mercuria_app;
GRANT UPDATE(password_changed_at) ON TABLE public.users TO mercuria_app;
GRANT SELECT,INSERT ON TABLE public.wallet_events TO mercuria_app;
GRANT SELECT,INSERT ON TABLE public.wallet_limits TO mercuria_app;
GRANT SELECT,INSERT ON TABLE public.wallets TO mercuria_app;
GRANT UPDATE(balance) ON TABLE public.wallets TO mercuria_app;
GRANT UPDATE(overdraft_limit) ON TABLE public.wallets TO mercuria_app;
GRANT UPDATE(status) ON TABLE public.wallets TO mercuria_app;
GRANT UPDATE(version) ON TABLE public.wallets TO mercuria_app;
GRANT UPDATE(updated_at) ON TABLE public.wallets TO mercuria_app;
GRANT UPDATE(opening_limit) ON TABLE public.wallets TO mercuria_app;
