"""FastAPI: JSON over HTTP/1.1 with FastAPI, Pydantic and SQLAlchemy's ORM, as their tutorials show it.

A dependency provides one session per call, response models are made from ORM objects, and uvicorn runs with uvloop and
httptools in one process, without an access log. For successful calls of GetUser, ListOrders and CreateOrder it does
what the service does: the same rows, the same fields, amounts as decimals, and a repeated `request_id` has one effect
and one response. Missing: validation of requests beyond their types, error details, filters other than `user_id`,
credit, `validate_only`, retries, timeouts, the log, and encoded messages in rows.
"""

import os
from collections.abc import AsyncIterator
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from typing import Annotated
from uuid import UUID

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Response, status
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select, tuple_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload, selectinload

from benchmarks.peers import serving
from benchmarks.peers.models import Answer, Event, Order, OrderItem, User, create_sessions

CREATE_ORDER = "/commerce.orders.v1.OrderService/CreateOrder"

app = FastAPI()
sessions = create_sessions()


async def get_session() -> AsyncIterator[AsyncSession]:
    """Provide the session of a call."""
    async with sessions() as session:
        yield session


Session = Annotated[AsyncSession, Depends(get_session)]


class FromObject(BaseModel):
    """A response model that is made from an ORM object."""

    model_config = ConfigDict(from_attributes=True)


class ProfileOut(FromObject):
    """The profile of a user."""

    bio: str
    avatar_url: str


class UserOut(FromObject):
    """A user."""

    id: UUID
    email: str
    username: str
    full_name: str
    profile: ProfileOut | None
    state: str
    superuser: bool
    etag: str
    create_time: datetime
    update_time: datetime
    delete_time: datetime | None
    purge_time: datetime | None


class ItemOut(FromObject):
    """An item of an order."""

    id: UUID
    product_id: str
    name: str
    quantity: int
    unit_price: Decimal
    subtotal: Decimal


class OrderOut(FromObject):
    """An order."""

    id: UUID
    order_number: str
    user_id: UUID
    status: str
    items: list[ItemOut]
    currency: str
    total_amount: Decimal
    external_ref: str | None
    metadata: dict[str, str] = Field(validation_alias="metadata_")
    tags: list[str] = Field(validation_alias="tag_names")
    tracking_number: str | None
    cancel_reason: str | None
    etag: str
    create_time: datetime
    update_time: datetime


class Page(BaseModel):
    """A page of orders."""

    orders: list[OrderOut]
    next_page_token: str


class ItemIn(BaseModel):
    """An item to order."""

    product_id: str
    name: str
    quantity: int
    unit_price: Decimal


class OrderIn(BaseModel):
    """An order to place."""

    user_id: UUID
    currency: str
    items: list[ItemIn]
    external_ref: str | None = None
    metadata: dict[str, str] = {}
    request_id: UUID | None = None


@app.get("/users/{user_id}", response_model=UserOut)
async def get_user(user_id: UUID, session: Session) -> User:
    """Return a user."""
    user = await session.get(User, user_id, options=[joinedload(User.profile)])
    if user is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "no such user")
    return user


@app.get("/orders", response_model=Page)
async def list_orders(user_id: UUID, session: Session, page_size: int = 50, page_token: str = "") -> dict[str, object]:
    """Return a page of a user's orders, newest first."""
    statement = (
        select(Order)
        .where(Order.user_id == user_id)
        .options(selectinload(Order.items), selectinload(Order.tags))
        .order_by(Order.create_time.desc(), Order.id.desc())
        .limit(page_size + 1)
    )
    if page_token:
        statement = statement.where(tuple_(Order.create_time, Order.id) < serving.position(page_token))
    orders = (await session.scalars(statement)).all()
    last = orders[page_size - 1] if len(orders) > page_size else None
    return {
        "orders": orders[:page_size],
        "next_page_token": serving.page_token(last.create_time, last.id) if last else "",
    }


@app.post("/orders", response_model=OrderOut, status_code=status.HTTP_201_CREATED)
async def create_order(request: OrderIn, session: Session) -> Order | Response:
    """Place an order."""
    answer = None
    if request.request_id:
        key = ("anonymous", CREATE_ORDER, request.request_id)
        digest = sha256(request.model_dump_json().encode()).digest()
        answer = Answer(caller=key[0], method=key[1], request_id=key[2], body_digest=digest)
        session.add(answer)
        try:
            await session.flush()
        except IntegrityError:
            await session.rollback()
            earlier = await session.get(Answer, key)
            if earlier is None or earlier.body_digest != digest:
                raise HTTPException(status.HTTP_409_CONFLICT, "the request_id was used") from None
            return _created(earlier.response)
    user = await session.get(User, request.user_id, with_for_update={"read": True})
    if user is None or user.state != "ACTIVE":
        raise HTTPException(status.HTTP_409_CONFLICT, "no such active user")
    items = [OrderItem(**item.model_dump()) for item in request.items]
    order = Order.place(request.user_id, request.currency, items, request.external_ref, request.metadata)
    session.add(order)
    await session.flush()
    session.add(Event.of_order(order, "CREATED"))
    await session.refresh(order, ["order_number"])
    if answer:
        answer.response = OrderOut.model_validate(order).model_dump_json().encode()
    await session.commit()
    return _created(answer.response) if answer else order


def _created(body: bytes | None) -> Response:
    return Response(body, status.HTTP_201_CREATED, media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(
        app, port=int(os.environ["PORT"]), loop="uvloop", http="httptools", access_log=False, log_level="warning"
    )
