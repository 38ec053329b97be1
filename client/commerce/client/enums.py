"""The enums of messages, such as `OrderStatus`; generated from the protos."""

from commerce.client.generated.enums import *  # noqa: F403 - all that the generated module has
