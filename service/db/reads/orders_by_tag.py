"""Pages of orders by tag. A page reads about as many rows as it returns, however many orders have the tags.

`order_tags` has an index by tag, creation time of the order, and order id. Within a tag, the index has the sort order
of a list. The statement chooses one or more tags, reads the beginning of the page for each of them from the index (a
LATERAL join), and checks the other conditions on each row. The list then sorts these few orders and takes its page from
them.
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import FromClause, Select, Text, bindparam, func, select, true
from sqlalchemy.dialects.postgresql import array

from service.db.reads.order_conditions import (
    ANY_TAG,
    IDS_OF_ANY_TAG,
    ORDER_CONDITIONS,
    Condition,
    is_about_tags,
    is_required_tag,
    on_order_tags,
)
from service.db.reads.reader import page_select
from service.db.tables import order_tags, orders, tags

# To find the tag with the fewest orders, the orders of each tag are counted up to this number.
_COUNT_LIMIT = 1000


def ids_by_tag(names: Sequence[str], *, descending: bool, first: bool) -> Select[tuple[object]]:
    """Return the statement for the ids of the orders on a page, and of a few other orders.

    Args:
        names: the conditions (`service.db.reads.order_conditions`); at least one is about tags.
        descending: whether the newest order comes first.
        first: whether it is the first page; a later page has parameters for the position after which it begins.
    """
    required = [name for name in names if is_required_tag(name)]
    # An order must have every required tag, so it is enough to read one of them: the rarest. Without required tags, an
    # order can have any tag of `tags_any`, so each of these is read.
    chosen = (_rarest_of(required) if required else IDS_OF_ANY_TAG).subquery("chosen")
    others = [name for name in names if required or name != ANY_TAG]
    part = _part_of_page(chosen, others, descending=descending, first=first)
    return select(part.c.order_id).select_from(chosen.join(part, true()))


def _rarest_of(required: Sequence[str]) -> Select[tuple[object]]:
    """Return the statement for the id of the tag with the fewest orders; the count stops at `_COUNT_LIMIT`.

    A tag that does not exist has a row too, with a null id and no orders. It is then the rarest tag, so the page is
    empty.
    """
    parameters = [bindparam(name, type_=Text) for name in required]
    wanted = func.unnest(array(parameters)).table_valued("name", name="wanted")
    some = select(order_tags.c.tag_id).where(order_tags.c.tag_id == tags.c.id).limit(_COUNT_LIMIT).correlate(tags)
    order_count = select(func.count()).select_from(some.subquery()).scalar_subquery()
    existing = wanted.outerjoin(tags, tags.c.name == wanted.c.name)
    return select(tags.c.id).select_from(existing).order_by(order_count).limit(1)


def _part_of_page(chosen: FromClause, names: Sequence[str], *, descending: bool, first: bool) -> FromClause:
    """Return a lateral subquery, which reads the part of the page that has one of the chosen tags."""
    tagged = order_tags.alias("tagged")
    found = select(tagged.c.order_id).join(orders, orders.c.id == tagged.c.order_id)
    found = found.where(tagged.c.tag_id == chosen.c.id, *(_on_tagged(tagged, name) for name in names))
    keys = (tagged.c.create_time, tagged.c.order_id)
    page = page_select(found, keys, first=first, include_total_size=False, descending=descending)
    return page.correlate(chosen).lateral("part")


def _on_tagged(tagged: FromClause, name: str) -> Condition:
    """Return a condition on the rows that are read from the index, each joined with its order."""
    if is_about_tags(name):
        # Not EXISTS: PostgreSQL would turn it into a join, and begin with all orders of this other tag.
        has = select(true()).where(order_tags.c.order_id == tagged.c.order_id, on_order_tags(name)).limit(1)
        return has.scalar_subquery()
    # The index has the creation times too, so PostgreSQL does not need to read the orders for these conditions.
    times: Mapping[str, Condition] = {
        "created_from": tagged.c.create_time >= bindparam("created_from"),
        "created_before": tagged.c.create_time < bindparam("created_before"),
    }
    return times.get(name, ORDER_CONDITIONS[name])
