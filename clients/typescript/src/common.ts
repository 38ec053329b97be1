export * from "./gen/commerce/common/v1/checkpoint_pb.js";
export * from "./gen/commerce/common/v1/error_reason_pb.js";
