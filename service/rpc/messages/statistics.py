"""Conversions of order statistics from and to messages."""

from collections.abc import Sequence
from itertools import groupby
from uuid import UUID

from commerce.orders.v1.order_pb2 import OrderStatus as OrderStatusMessage
from commerce.orders.v1.order_service_pb2 import (
    GetOrderStatisticsRequest,
    GetOrderStatisticsResponse,
    OrderStatistics,
    TopUser,
)
from google.type.date_pb2 import Date

from service.application.ports.queries import MAX_SUMS, OrderFilter, Row, TopUsers
from service.rpc.messages.values import parse_interval, sum_of_money
from service.rpc.status import ResponseTooLarge

DEFAULT_TOP_USERS = 10


def parse_statistics_filter(request: GetOrderStatisticsRequest) -> tuple[OrderFilter, TopUsers]:
    """Return the filter for the orders that a request counts, and the top users to include; raises InvalidField."""
    start, end = parse_interval(request.create_time, "create_time")
    user_id = UUID(request.user_id) if request.user_id else None
    where = OrderFilter(
        user_id=user_id, statuses=None, created_from=start, created_before=end, tags_any=(), tags_all=()
    )
    return where, TopUsers(request.more_than_orders, request.max_top_users or DEFAULT_TOP_USERS)


def statistics_message(rows: Sequence[Row]) -> GetOrderStatisticsResponse:
    """Return the response for the rows of `service.application.ports.queries.OrderQueries.statistics`.

    Raises:
        ResponseTooLarge: there are more than MAX_SUMS rows; no message is built.
    """
    if len(rows) > MAX_SUMS:
        raise ResponseTooLarge
    by_user = groupby((row for row in rows if row.user_id is not None), key=lambda row: row.user_id)
    return GetOrderStatisticsResponse(
        statistics=[_statistics(row) for row in rows if row.day is not None],
        top_users=[_top_user(list(sums)) for _, sums in by_user],
    )


def _statistics(row: Row) -> OrderStatistics:
    return OrderStatistics(
        day=Date(year=row.day.year, month=row.day.month, day=row.day.day),
        status=OrderStatusMessage.Value(f"ORDER_STATUS_{row.status}"),
        order_count=row.order_count,
        total_amount=sum_of_money(row.currency, row.total_amount),
    )


def _top_user(sums: Sequence[Row]) -> TopUser:
    return TopUser(
        user_id=str(sums[0].user_id),
        order_count=sums[0].order_count,
        total_amounts=[sum_of_money(row.currency, row.total_amount) for row in sums],
    )
