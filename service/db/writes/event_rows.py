"""Events as rows, for both ways of writing."""

from service.application.ports.unit_of_work import Actor
from service.domain.events import Event


def event_row(event: Event, actor: Actor) -> dict[str, object]:
    """Return the columns of an event."""
    return {
        "id": event.id,
        "aggregate_type": event.aggregate_type,
        "aggregate_id": event.aggregate_id,
        "type": event.type,
        "actor": actor.name,
        "create_time": event.create_time,
        "changes": [
            {"field": change.field, "old_value": change.old_value, "new_value": change.new_value}
            for change in event.changes
        ],
        "user_id": event.user_id,
        "status": event.status,
        "on_behalf_of": actor.on_behalf_of,
    }
