"""Find the same words in every locale: from now on, the service writes the words by which users and notes are found.

The triggers write them for the previous release and for other programs. In a text in ASCII, they find the words that
the service finds. In other texts they differ a little, and add the word `~`, by which `commerce gc` finds and replaces
them.

The previous release finds users and notes by these words, with one exception: it takes an e-mail address, a URL or a
part number in a query for notes as a single word, which is no longer stored.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0021"
down_revision: str | None = "0020"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# No class of characters, such as [:alnum:], because these depend on the locale. This is everything in ASCII and the
# punctuation and symbols most used beside it.
SEPARATORS = (
    r"[\u0001-\u002f\u003a-\u0040\u005b-\u0060\u007b-\u00a9\u00ab-\u00b4\u00b6-\u00b9\u00bb-\u00bf\u00d7\u00f7"
    r"\u2000-\u2bff\u2e00-\u2e7f\u3000-\u3004\u3008-\u3020\u3030]+"
)
# A to Z first, because `lower` in a Turkish locale makes a dotless i of I. The accents and letters are those of
# `service.domain.search.without_accents`; a word without accents has the lowest weight, D.
WORDS_FUNCTION = rf"""
CREATE OR REPLACE FUNCTION search_words(words text, weight text) RETURNS tsvector
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (
    SELECT coalesce(string_agg(
        quote_literal(word) || ':' || n || weight
            || CASE WHEN plain NOT IN (word, '') THEN ' ' || quote_literal(plain) || ':' || n || 'D' ELSE '' END,
        ' '
    ), '')::tsvector
    FROM (
        SELECT left(part, 256) AS word, row_number() OVER (ORDER BY place) AS n
        FROM regexp_split_to_table(
            lower(lower(normalize(words, NFKC) COLLATE "C") COLLATE "default"), '{SEPARATORS}'
        ) WITH ORDINALITY AS parts (part, place)
        WHERE part <> ''
    ) AS found,
    LATERAL (
        SELECT translate(normalize(
            regexp_replace(normalize(word, NFD), '[\u0300-\u036f]', '', 'g'), NFC
        ), 'đħıłø', 'dhilo') AS plain
    ) AS without_accents
)
"""  # noqa: S608 - made from our own constant
SEARCH_FUNCTIONS = (
    """
    CREATE OR REPLACE FUNCTION user_search(username text, full_name text, bio text) RETURNS tsvector
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN search_words(username, 'A') || search_words(full_name, 'B') || search_words(coalesce(bio, ''), 'C')
        || CASE WHEN octet_length(username || full_name || coalesce(bio, '')) =
            length(username || full_name || coalesce(bio, '')) THEN ''::tsvector ELSE '~'::tsvector END
    """,
    """
    CREATE OR REPLACE FUNCTION note_search(body text) RETURNS tsvector LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN search_words(body, 'A')
        || CASE WHEN octet_length(body) = length(body) THEN ''::tsvector ELSE '~'::tsvector END
    """,
)
NOTES_FUNCTION = """
CREATE OR REPLACE FUNCTION set_note_search() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    NEW.search := note_search(NEW.body);
    RETURN NEW;
END
$$
"""
# The service sets this where it writes the words itself.
BY_OTHERS = "current_setting('commerce.writes_search', true) IS DISTINCT FROM '1'"
NOTES_TRIGGER = f"""
CREATE OR REPLACE TRIGGER order_notes_search BEFORE INSERT OR UPDATE OF body ON order_notes
FOR EACH ROW WHEN ({BY_OTHERS}) EXECUTE FUNCTION set_note_search()
"""
# Locked by one statement and read by the next, so that the words are those of the newest texts. It waits for each lock
# as long as that takes: no query waits behind the lock of a row, and after a timeout it would begin from the start.
BACKFILL = """
DO $$
DECLARE
    last uuid := '00000000-0000-0000-0000-000000000000';
    ids uuid[];
BEGIN
    LOOP
        SET LOCAL lock_timeout = 0;
        ids := ARRAY(SELECT id FROM {table} WHERE id > last ORDER BY id LIMIT 1000 FOR NO KEY UPDATE);
        EXIT WHEN cardinality(ids) = 0;
        UPDATE {table} AS written SET search = found.search
        FROM ({words}) AS found
        WHERE written.id = found.id AND written.search IS DISTINCT FROM found.search;
        last := ids[cardinality(ids)];
        COMMIT;
    END LOOP;
END
$$
"""
WORDS_OF_USERS = """
SELECT u.id, user_search(u.username, u.full_name, p.bio) AS search
FROM users u LEFT JOIN user_profiles p ON p.user_id = u.id WHERE u.id = ANY (ids)
"""
WORDS_OF_NOTES = "SELECT n.id, note_search(n.body) AS search FROM order_notes n WHERE n.id = ANY (ids)"
COMMENT = (
    "Written by the service, which finds the same words in every locale. For other writers, triggers write almost the "
    "same; then a text that is not ASCII has the word ~, by which `commerce gc` finds the row."
)
# As the revisions 0005 and 0006 have them.
EARLIER_FUNCTIONS = (
    r"""
    CREATE OR REPLACE FUNCTION search_words(words text) RETURNS tsvector LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN to_tsvector(
        'pg_catalog.simple', translate(words, '!"#$&''()*+,-./:;<=>?@[\]^_`{|}~', repeat(' ', 31))
    )
    """,
    """
    CREATE OR REPLACE FUNCTION user_search(username text, full_name text, bio text) RETURNS tsvector
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN setweight(search_words(username), 'A') || setweight(search_words(full_name), 'B')
        || setweight(search_words(coalesce(bio, '')), 'C')
    """,
)
EARLIER_COMMENTS = {
    "users": "Words of username, full_name and user_profiles.bio, for SearchUsers. Only triggers write it.",
    "order_notes": (
        "Words of the body as they are written, for SearchOrderNotes. Not stemmed: notes are in any language."
    ),
}


def upgrade() -> None:
    """Upgrade the schema from the previous revision to this one."""
    # A transaction for each statement, so that the lock on a table is held for an instant. Each can be repeated.
    with op.get_context().autocommit_block():
        for statement in (WORDS_FUNCTION, *SEARCH_FUNCTIONS, NOTES_FUNCTION):
            op.execute(statement)
        # Only the functions above called it.
        op.execute("-- squawk-ignore ban-drop-function\nDROP FUNCTION IF EXISTS search_words(text)")
        _create_triggers_of_users(BY_OTHERS)
        # No writer names the column, and from the moment that it is no longer generated, the trigger fills it.
        op.execute(NOTES_TRIGGER)
        op.execute(
            "-- squawk-ignore ban-drop-generated-expression\n"
            "ALTER TABLE order_notes ALTER COLUMN search DROP EXPRESSION IF EXISTS"
        )
        op.execute(BACKFILL.format(table="users", words=WORDS_OF_USERS))
        op.execute(BACKFILL.format(table="order_notes", words=WORDS_OF_NOTES))
        _comment("users", f"Words of username, full_name and user_profiles.bio, for SearchUsers. {COMMENT}")
        _comment(
            "order_notes",
            f"Words of the body, for SearchOrderNotes. Not stemmed: notes are in any language. {COMMENT}",
        )


def downgrade() -> None:
    """Undo the upgrade; rewrites the table of notes under a lock."""
    op.execute("DROP TRIGGER order_notes_search ON order_notes")
    op.execute("DROP FUNCTION set_note_search()")
    op.execute("DROP FUNCTION note_search(text)")
    for statement in EARLIER_FUNCTIONS:
        op.execute(statement)
    op.execute("DROP FUNCTION search_words(text, text)")
    _create_triggers_of_users()
    op.execute("ALTER TABLE order_notes DROP COLUMN search")
    op.execute(
        "ALTER TABLE order_notes ADD COLUMN search tsvector"
        " GENERATED ALWAYS AS (to_tsvector('simple'::regconfig, body)) STORED"
    )
    op.execute("CREATE INDEX ix_order_notes_search ON order_notes USING gin (search) WITH (fastupdate = off)")
    for table, comment in EARLIER_COMMENTS.items():
        _comment(table, comment)


def _create_triggers_of_users(condition: str | None = None) -> None:
    for name, event, table, changes, function in (
        ("users_search", "BEFORE INSERT OR UPDATE OF username, full_name", "users", None, "set_user_search"),
        ("user_profiles_search_insert", "AFTER INSERT", "user_profiles", "NEW.bio <> ''", "set_user_search_of_profile"),
        (
            "user_profiles_search_update",
            "AFTER UPDATE OF bio",
            "user_profiles",
            "OLD.bio <> NEW.bio",
            "set_user_search_of_profile",
        ),
        ("user_profiles_search_delete", "AFTER DELETE", "user_profiles", "OLD.bio <> ''", "set_user_search_of_profile"),
    ):
        conditions = " AND ".join(filter(None, (changes, condition)))
        when = f"WHEN ({conditions})" if conditions else ""
        op.execute(
            f"CREATE OR REPLACE TRIGGER {name} {event} ON {table} FOR EACH ROW {when} EXECUTE FUNCTION {function}()"
        )


def _comment(table: str, comment: str) -> None:
    op.execute(f"COMMENT ON COLUMN {table}.search IS '{comment}'")
