/** The full names of the methods that the views call. */

const ORDERS = "commerce.orders.v1.OrderService/";
const USERS = "commerce.users.v1.UserService/";

/** Return the full name of a method of OrderService. */
export function orders(name) {
  return ORDERS + name;
}

/** Return the full name of a method of UserService. */
export function users(name) {
  return USERS + name;
}

/** Returns one user, by its id, e-mail address or username. */
export const methodOfUser = users("GetUser");
