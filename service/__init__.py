"""The user and order backend: `commerce.users.v1.UserService` and `commerce.orders.v1.OrderService`."""
