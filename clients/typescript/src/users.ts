export * from "./gen/commerce/users/v1/credit_pb.js";
export * from "./gen/commerce/users/v1/user_import_pb.js";
export * from "./gen/commerce/users/v1/user_pb.js";
export * from "./gen/commerce/users/v1/user_service_pb.js";
