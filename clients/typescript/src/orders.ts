export * from "./gen/commerce/orders/v1/note_pb.js";
export * from "./gen/commerce/orders/v1/order_pb.js";
export * from "./gen/commerce/orders/v1/order_service_pb.js";
export * from "./gen/commerce/orders/v1/tag_pb.js";
