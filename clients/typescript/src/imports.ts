import type { DescMethodClientStreaming, MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { type Channel, X_REQUEST_ID } from "./channel.js";
import type { CommerceError } from "./errors.js";
import { type CallSummary, cancelled, errorOf, failureOf } from "./failures.js";
import type { UserImportOnConflict, UserImportRowSchema } from "./gen/commerce/users/v1/user_import_pb.js";
import type {
  ImportUsersRequestSchema,
  ImportUsersResponse,
  ImportUsersResponseSchema,
} from "./gen/commerce/users/v1/user_service_pb.js";
import type { CallOptions } from "./options.js";
import { responsesOf } from "./response_stream.js";

/** Options of ImportUsers. */
export interface ImportOptions extends Pick<CallOptions, "headers" | "onBehalfOf" | "signal"> {
  /** What to do with a row whose email address belongs to an existing user. Default: SKIP. */
  readonly onConflict?: UserImportOnConflict | undefined;
  /** The number of the first row. Default: 1. */
  readonly firstRowNumber?: bigint | undefined;
}

export type ImportRow = MessageInitShape<typeof UserImportRowSchema>;
type ImportMethod = DescMethodClientStreaming<typeof ImportUsersRequestSchema, typeof ImportUsersResponseSchema>;

const LAST_COMMITTED_ROW = "last-committed-row";

/**
 * Import users from rows, which are read as fast as the service takes them. There is no deadline.
 *
 * An import is not repeated by itself, because its rows can be read only once. If it fails, `metadata` of the error has
 * `last_committed_row`, if the service could report it: go on after that row. With SKIP and UPDATE, rows can also be
 * sent again. Browsers cannot stream requests, so they cannot import.
 */
export async function importUsers(
  channel: Channel,
  method: ImportMethod,
  rows: Iterable<ImportRow> | AsyncIterable<ImportRow>,
  options: ImportOptions = {},
): Promise<ImportUsersResponse> {
  const headers = channel.headers(options, false);
  const call = { method: method.name, xRequestId: headers.get(X_REQUEST_ID) ?? "", attempts: 1 };
  await channel.credentials.addTo(headers, () => ({ outcome: "not_written", ...call }));
  const linked = channel.begin(options.signal);
  try {
    for await (const response of responsesOf(channel, method, requests(rows, options), headers, linked.signal)) {
      return response;
    }
    throw new ConnectError("the service sent no response", Code.Unknown);
  } catch (thrown) {
    if (linked.signal.aborted) throw cancelled(linked.signal.reason, { outcome: "unknown", ...call });
    throw importError(thrown, options.firstRowNumber ?? 1n, call);
  } finally {
    channel.end(linked);
  }
}

function importError(thrown: unknown, firstRow: bigint, call: Omit<CallSummary, "outcome">): CommerceError {
  const failure = failureOf(thrown);
  const row = failure.metadata["last_committed_row"] ?? failure.headers.get(LAST_COMMITTED_ROW);
  if (row === null) return errorOf(failure, { outcome: "unknown", ...call });
  const outcome = BigInt(row) >= firstRow ? "written" : failure.outcome;
  return errorOf({ ...failure, metadata: { ...failure.metadata, last_committed_row: row } }, { outcome, ...call });
}

async function* requests(
  rows: Iterable<ImportRow> | AsyncIterable<ImportRow>,
  { onConflict, firstRowNumber }: ImportOptions,
): AsyncGenerator<MessageInitShape<typeof ImportUsersRequestSchema>, void, undefined> {
  const config = { ...(onConflict === undefined ? {} : { onConflict }), firstRowNumber: firstRowNumber ?? 1n };
  yield { message: { case: "config", value: config } };
  for await (const row of rows) yield { message: { case: "row", value: row } };
}
