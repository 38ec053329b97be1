-- relay_lock
-- $1: lock
-- $2: hashtextextended_1
SELECT pg_try_advisory_lock(hashtextextended($1, $2::INTEGER)) AS pg_try_advisory_lock_1;
