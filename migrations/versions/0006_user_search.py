"""Add the words by which users are found. Triggers update them, also when a previous release writes a user."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


# Punctuation only separates words. PostgreSQL's parser would take `ada.lovelace` for the name of a host, which a search
# for one of its parts does not find.
WORDS_FUNCTION = r"""
CREATE FUNCTION search_words(words text) RETURNS tsvector LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN to_tsvector(
    'pg_catalog.simple', translate(words, '!"#$&''()*+,-./:;<=>?@[\]^_`{|}~', repeat(' ', 31))
)
"""
SEARCH_FUNCTION = """
CREATE FUNCTION user_search(username text, full_name text, bio text) RETURNS tsvector
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN setweight(search_words(username), 'A') || setweight(search_words(full_name), 'B')
    || setweight(search_words(coalesce(bio, '')), 'C')
"""
USERS_FUNCTION = """
CREATE FUNCTION set_user_search() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    bio text;
BEGIN
    -- A new user has no profile yet.
    IF TG_OP = 'UPDATE' THEN
        SELECT p.bio INTO bio FROM user_profiles p WHERE p.user_id = NEW.id;
    END IF;
    NEW.search := user_search(NEW.username, NEW.full_name, bio);
    RETURN NEW;
END
$$
"""
USERS_TRIGGER = """
CREATE TRIGGER users_search BEFORE INSERT OR UPDATE OF username, full_name ON users
FOR EACH ROW EXECUTE FUNCTION set_user_search()
"""
PROFILES_FUNCTION = """
CREATE FUNCTION set_user_search_of_profile() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE users
    SET search = user_search(username, full_name, CASE WHEN TG_OP <> 'DELETE' THEN NEW.bio END)
    WHERE id = CASE WHEN TG_OP = 'DELETE' THEN OLD.user_id ELSE NEW.user_id END;
    RETURN NULL;
END
$$
"""
# Most profiles are created empty, and then change no words.
PROFILES_TRIGGERS = (
    """
    CREATE TRIGGER user_profiles_search_insert AFTER INSERT ON user_profiles
    FOR EACH ROW WHEN (NEW.bio <> '') EXECUTE FUNCTION set_user_search_of_profile()
    """,
    """
    CREATE TRIGGER user_profiles_search_update AFTER UPDATE OF bio ON user_profiles
    FOR EACH ROW WHEN (OLD.bio <> NEW.bio) EXECUTE FUNCTION set_user_search_of_profile()
    """,
    """
    CREATE TRIGGER user_profiles_search_delete AFTER DELETE ON user_profiles
    FOR EACH ROW WHEN (OLD.bio <> '') EXECUTE FUNCTION set_user_search_of_profile()
    """,
)


def upgrade() -> None:
    """Upgrade the schema from the previous revision to this one."""
    op.add_column("users", sa.Column("search", postgresql.TSVECTOR(), nullable=True))
    functions = (WORDS_FUNCTION, SEARCH_FUNCTION, USERS_FUNCTION, PROFILES_FUNCTION)
    for statement in (*functions, USERS_TRIGGER, *PROFILES_TRIGGERS):
        op.execute(statement)


def downgrade() -> None:
    """Undo the upgrade."""
    for name in ("insert", "update", "delete"):
        op.execute(f"DROP TRIGGER user_profiles_search_{name} ON user_profiles")
    op.execute("DROP TRIGGER users_search ON users")
    op.execute("DROP FUNCTION set_user_search_of_profile(), set_user_search()")
    op.execute("DROP FUNCTION user_search(text, text, text)")
    op.execute("DROP FUNCTION search_words(text)")
    op.drop_column("users", "search")
