-- owners_of_notes
-- $1: keys
SELECT order_notes.author_id
FROM order_notes
WHERE order_notes.id = ANY(CAST(
    (
        SELECT $1::VARCHAR AS anon_1
    ) AS UUID[]
));
