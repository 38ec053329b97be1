-- users_to_purge
-- $1: state_1
-- $2: purge_time_1
SELECT users.id
FROM users
WHERE users.state = $1::VARCHAR
    AND users.purge_time <= $2::TIMESTAMP WITH TIME ZONE;
