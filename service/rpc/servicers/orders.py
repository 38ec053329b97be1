"""The servicer of OrderService."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import datetime
from uuid import UUID

import commerce.orders.v1.order_service_pb2 as pb
from commerce.orders.v1.order_pb2 import Order as OrderMessage

from service.application.orders import (
    add_order_tags,
    cancel_order,
    change_order,
    confirm_order,
    create_order,
    transfer_orders,
    transition_order,
    update_order,
)
from service.application.ports.queries import NoteQueries, OrderOrder, OrderQueries, Row
from service.application.ports.unit_of_work import UnitOfWork
from service.domain.errors import OrderNotFound
from service.domain.orders import OrderHeader
from service.domain.tags import normalised, normalised_tag
from service.rpc.messages.orders import (
    EVENT_POSITION,
    POSITION,
    TAG_POSITION,
    OrderMessageCache,
    add_orders,
    order_event_message,
    order_message,
    parse_order_by,
    parse_order_fields,
    parse_order_filter,
    parse_order_watch,
    tag_message,
)
from service.rpc.messages.statistics import parse_statistics_filter, statistics_message
from service.rpc.messages.update_masks import fields_to_update, settable_fields
from service.rpc.messages.values import MAX_ESTIMATE, batch_in_order, require_id, rows_in_a_turn
from service.rpc.methods import Context
from service.rpc.servicers.order_notes import OrderNoteMethods
from service.rpc.signing.page_tokens import PageTokens
from service.rpc.streams.exports import Exports
from service.rpc.streams.watch import Watch
from service.runtime.loop_turns import in_turns

# How many orders of a batch are built in one turn of the event loop.
_BUILT_TOGETHER = 50
# Requests of transitions that change only the status; all have an id and an etag.
_TransitionRequest = pb.ProcessOrderRequest | pb.ShipOrderRequest | pb.DeliverOrderRequest


class OrderServicer(OrderNoteMethods):
    """Implements `commerce.orders.v1.OrderService`; the proto documents the methods and their errors.

    Args:
        unit_of_work: returns the unit of work of the current call.
        queries: the read side of orders.
        note_queries: the read side of their notes.
        page_tokens: writes and reads page tokens.
        watch: answers watches.
        clock: returns the time, in UTC.
        messages: the cache of the messages of changed orders; the database encodes messages from the same cache.
        exports: runs ExportOrders.
        max_response_bytes: the maximum size of a response with a batch.
    """

    def __init__(  # noqa: PLR0913 - one parameter for each dependency
        self,
        unit_of_work: Callable[[], UnitOfWork],
        queries: OrderQueries,
        note_queries: NoteQueries,
        page_tokens: PageTokens,
        watch: Watch[pb.WatchOrdersResponse],
        clock: Callable[[], datetime],
        *,
        messages: OrderMessageCache,
        exports: Exports,
        max_response_bytes: int,
    ) -> None:
        self._uow = unit_of_work
        self._queries = queries
        self._note_queries = note_queries
        self._messages = messages
        self._exports = exports
        self._max_response_bytes = max_response_bytes
        self._page_tokens = page_tokens
        self._watch = watch
        self._now = clock

    async def CreateOrder(self, request: pb.CreateOrderRequest, context: Context) -> pb.CreateOrderResponse:
        user_id = require_id(request.order.user_id, "order.user_id")
        fields = parse_order_fields(request.order, settable_fields(request.order))
        order = await create_order(self._uow(), user_id, fields, self._now(), pay_with_credit=request.pay_with_credit)
        return pb.CreateOrderResponse(order=self._messages.message(order))

    async def GetOrder(self, request: pb.GetOrderRequest, context: Context) -> pb.GetOrderResponse:
        order: Row | None
        if request.HasField("id"):
            order = await self._queries.by_id(request.id)
        else:
            order = await self._queries.by_number(request.order_number)
        if order is None:
            raise OrderNotFound(request.id or request.order_number)
        return pb.GetOrderResponse(order=order_message(order))

    async def BatchGetOrders(self, request: pb.BatchGetOrdersRequest, context: Context) -> pb.BatchGetOrdersResponse:
        ids = list(request.ids)
        limit = self._max_response_bytes
        found = await self._queries.by_ids(list(dict.fromkeys(ids)), MAX_ESTIMATE * limit)
        response = pb.BatchGetOrdersResponse()
        async for rows in in_turns(batch_in_order(ids, found, OrderNotFound, limit), _BUILT_TOGETHER):
            add_orders(response.orders, rows)
        return response

    async def ListOrders(self, request: pb.ListOrdersRequest, context: Context) -> pb.ListOrdersResponse:
        page = self._page_tokens.page(request)
        found = await self._queries.page(parse_order_filter(request), parse_order_by(request), page)
        response = pb.ListOrdersResponse(
            next_page_token=self._page_tokens.next(request, found, POSITION), total_size=found.total_size
        )
        async for rows in in_turns(found.rows, rows_in_a_turn(found.rows)):
            add_orders(response.orders, rows)
        return response

    async def UpdateOrder(self, request: pb.UpdateOrderRequest, context: Context) -> pb.UpdateOrderResponse:
        order_id = require_id(request.order.id, "order.id")
        mask = request.update_mask if request.HasField("update_mask") else None
        fields = parse_order_fields(request.order, fields_to_update(request.order, mask))
        order = await update_order(self._uow(), order_id, request.order.etag, fields, self._now())
        return pb.UpdateOrderResponse(order=self._messages.message(order))

    async def ConfirmOrder(self, request: pb.ConfirmOrderRequest, context: Context) -> pb.ConfirmOrderResponse:
        order = await confirm_order(self._uow(), UUID(request.id), request.etag, self._now())
        return pb.ConfirmOrderResponse(order=self._messages.message(order))

    async def ProcessOrder(self, request: pb.ProcessOrderRequest, context: Context) -> pb.ProcessOrderResponse:
        return pb.ProcessOrderResponse(order=await self._transition(request, OrderHeader.process))

    async def ShipOrder(self, request: pb.ShipOrderRequest, context: Context) -> pb.ShipOrderResponse:
        number = request.tracking_number
        return pb.ShipOrderResponse(order=await self._transition(request, lambda order, now: order.ship(number, now)))

    async def DeliverOrder(self, request: pb.DeliverOrderRequest, context: Context) -> pb.DeliverOrderResponse:
        return pb.DeliverOrderResponse(order=await self._transition(request, OrderHeader.deliver))

    async def CancelOrder(self, request: pb.CancelOrderRequest, context: Context) -> pb.CancelOrderResponse:
        order = await cancel_order(self._uow(), UUID(request.id), request.etag, request.reason, self._now())
        return pb.CancelOrderResponse(order=self._messages.message(order))

    async def ListOrderEvents(self, request: pb.ListOrderEventsRequest, context: Context) -> pb.ListOrderEventsResponse:
        found = await self._queries.events(UUID(request.order_id), self._page_tokens.page(request))
        if found is None:
            raise OrderNotFound(request.order_id)
        return pb.ListOrderEventsResponse(
            events=map(order_event_message, found.rows),
            next_page_token=self._page_tokens.next(request, found, EVENT_POSITION),
            total_size=found.total_size,
        )

    async def TransferOrders(self, request: pb.TransferOrdersRequest, context: Context) -> pb.TransferOrdersResponse:
        count = await transfer_orders(self._uow(), UUID(request.from_user_id), UUID(request.to_user_id), self._now())
        return pb.TransferOrdersResponse(transferred_count=count)

    async def GetOrderStatistics(
        self, request: pb.GetOrderStatisticsRequest, context: Context
    ) -> pb.GetOrderStatisticsResponse:
        return statistics_message(await self._queries.statistics(*parse_statistics_filter(request)))

    async def AddOrderTags(self, request: pb.AddOrderTagsRequest, context: Context) -> pb.AddOrderTagsResponse:
        names = normalised(request.tags, "tags")
        order = await add_order_tags(self._uow(), UUID(request.id), request.etag, names, self._now())
        return pb.AddOrderTagsResponse(order=self._messages.message(order))

    async def RemoveOrderTags(self, request: pb.RemoveOrderTagsRequest, context: Context) -> pb.RemoveOrderTagsResponse:
        names = normalised(request.tags, "tags")
        now = self._now()
        order = await change_order(
            self._uow(), UUID(request.id), request.etag, lambda order: order.remove_tags(names, now)
        )
        return pb.RemoveOrderTagsResponse(order=self._messages.message(order))

    async def ListTags(self, request: pb.ListTagsRequest, context: Context) -> pb.ListTagsResponse:
        prefix = normalised_tag(request.prefix, "prefix") if request.prefix else ""
        found = await self._queries.tags(prefix, self._page_tokens.page(request))
        return pb.ListTagsResponse(
            tags=map(tag_message, found.rows),
            next_page_token=self._page_tokens.next(request, found, TAG_POSITION),
            total_size=found.total_size,
        )

    async def ExportOrders(  # type: ignore[override] # writes to the context, to detect a client that does not read
        self, request: pb.ExportOrdersRequest, context: Context
    ) -> None:
        where = parse_order_filter(request)
        await self._exports.run(
            context,
            lambda snapshot, page: snapshot.orders.page(where, OrderOrder.OLDEST, page),
            keys=POSITION,
            message=order_message,
            response=lambda orders: pb.ExportOrdersResponse(orders=orders),
            # An order can have 500 items.
            page_rows=200,
        )

    async def WatchOrders(
        self, request: pb.WatchOrdersRequest, context: Context
    ) -> AsyncIterator[pb.WatchOrdersResponse]:
        async with aclosing(self._watch(request, parse_order_watch(request))) as responses:
            async for response in responses:
                yield response

    async def _transition(
        self, request: _TransitionRequest, transition: Callable[[OrderHeader, datetime], None]
    ) -> OrderMessage:
        now = self._now()
        order = await transition_order(
            self._uow(), UUID(request.id), request.etag, lambda order: transition(order, now)
        )
        return self._messages.message(order)
