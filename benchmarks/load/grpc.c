// gRPC over HTTP/2. A good reply has HTTP status 200, gRPC status 0 and exactly one complete message.
#include "load.h"
#include <arpa/inet.h>
#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <string.h>

// Large flow control windows, so that the server never waits for a window update.
#define STREAM_WINDOW (1 << 24)
#define CONNECTION_WINDOW (1 << 30)
// The prefix of a message: a compressed flag, and the length in four bytes.
#define PREFIX_LENGTH 5

static void write_prefix(uint8_t *prefix, size_t body_length)
{
    uint32_t big_endian = htonl((uint32_t)body_length);
    prefix[0] = 0;
    memcpy(prefix + 1, &big_endian, sizeof big_endian);
}

static bool is_one_message(const struct buffer *reply)
{
    uint32_t big_endian;
    if (reply->length < PREFIX_LENGTH || reply->bytes[0] != 0)
        return false;
    memcpy(&big_endian, reply->bytes + 1, sizeof big_endian);
    return ntohl(big_endian) == reply->length - PREFIX_LENGTH;
}

static ssize_t read_body(nghttp2_session *session, int32_t stream, uint8_t *target, size_t room, uint32_t *flags,
                         nghttp2_data_source *source, void *user_data)
{
    (void)session, (void)stream, (void)user_data;
    struct call *call = source->ptr;
    size_t left = call->record->body_length - call->sent, length = left < room ? left : room;
    memcpy(target, call->record->body + call->sent, length);
    call->sent += length;
    if (length == left)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)length;
}

static nghttp2_nv header(const char *name, const char *value)
{
    return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value), NGHTTP2_NV_FLAG_NONE};
}

static void begin_call(struct call *call)
{
    call->http_status[0] = call->grpc_status[0] = call->grpc_message[0] = call->pushback[0] = 0;
    const nghttp2_nv headers[] = {
        header(":method", "POST"),
        header(":scheme", call->connection->tls ? "https" : "http"),
        header(":path", call->record->path),
        header(":authority", authority),
        header("te", "trailers"),
        header("content-type", "application/grpc"),
        header("user-agent", "load"),
        // With a deadline, as every caller should set one.
        header("grpc-timeout", grpc_timeout),
        // The last one, so that it can be left out.
        header("authorization", authorization ? authorization : ""),
    };
    nghttp2_data_provider body = {.source.ptr = call, .read_callback = read_body};
    size_t count = sizeof headers / sizeof *headers - (authorization ? 0 : 1);
    call->stream = nghttp2_submit_request(call->connection->session, NULL, headers, count, &body, call);
    if (call->stream < 0)
        give_up("cannot start a call: %s", nghttp2_strerror(call->stream));
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_length,
                     const uint8_t *value, size_t value_length, uint8_t flags, void *user_data)
{
    (void)name_length, (void)flags, (void)user_data;
    struct call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    char *target = NULL;
    size_t size = 0;
    // nghttp2 terminates a name with a zero byte, which name_length does not count.
    if (call && !strcmp((const char *)name, ":status"))
        target = call->http_status, size = sizeof call->http_status;
    else if (call && !strcmp((const char *)name, "grpc-status"))
        target = call->grpc_status, size = sizeof call->grpc_status;
    else if (call && !strcmp((const char *)name, "grpc-message"))
        target = call->grpc_message, size = sizeof call->grpc_message;
    else if (call && !strcmp((const char *)name, "grpc-retry-pushback-ms"))
        target = call->pushback, size = sizeof call->pushback;
    if (target)
        snprintf(target, size, "%.*s", (int)value_length, (const char *)value);
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *bytes, size_t length,
                   void *user_data)
{
    (void)flags, (void)user_data;
    struct call *call = nghttp2_session_get_stream_user_data(session, stream);
    if (call)
        append(&call->reply, bytes, length);
    return 0;
}

// Whether the server refused a call for load, and said when to retry: RESOURCE_EXHAUSTED is 8, UNAVAILABLE 14.
static bool is_refusal(const struct call *call)
{
    return (!strcmp(call->grpc_status, "8") || !strcmp(call->grpc_status, "14")) && call->pushback[0];
}

static int on_close(nghttp2_session *session, int32_t stream, uint32_t error_code, void *user_data)
{
    (void)user_data;
    struct call *call = nghttp2_session_get_stream_user_data(session, stream);
    if (!call)
        return 0;
    const struct buffer *reply = &call->reply;
    // DEADLINE_EXCEEDED is 4. Also where the server noticed it first.
    if (call->cancelled || (expires && !strcmp(call->grpc_status, "4")))
        end_expired_call(call);
    else if (error_code)
        end_call(call, "%s", nghttp2_http2_strerror(error_code));
    else if (strcmp(call->http_status, "200"))
        end_call(call, "HTTP status %s", call->http_status);
    else if (may_refuse && is_refusal(call))
        end_refused_call(call);
    else if (strcmp(call->grpc_status, "0"))
        end_call(call, "grpc-status %s, %s", call->grpc_status, call->grpc_message);
    else if (!is_one_message(reply))
        end_call(call, "%zu bytes that are not exactly one message", reply->length);
    else if (!contains_expected(call, reply->bytes + PREFIX_LENGTH, reply->length - PREFIX_LENGTH))
        end_call(call, "the reply lacks what is expected");
    else
        end_call(call, NULL);
    return 0;
}

static void open_session(struct connection *connection)
{
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW},
                                               {NGHTTP2_SETTINGS_ENABLE_PUSH, 0}};
    nghttp2_session_callbacks *callbacks;
    if (nghttp2_session_callbacks_new(&callbacks))
        give_up("out of memory");
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    if (nghttp2_session_client_new(&connection->session, callbacks, connection) ||
        nghttp2_submit_settings(connection->session, NGHTTP2_FLAG_NONE, settings, 2) ||
        nghttp2_session_set_local_window_size(connection->session, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW))
        give_up("cannot start the HTTP/2 session");
    nghttp2_session_callbacks_del(callbacks);
}

static void gather(struct connection *connection)
{
    const uint8_t *bytes;
    ssize_t length;
    while ((length = nghttp2_session_mem_send(connection->session, &bytes)) > 0)
        append(&connection->out, bytes, (size_t)length);
    if (length < 0)
        give_up("cannot send: %s", nghttp2_strerror((int)length));
}

static void receive(struct connection *connection, const uint8_t *bytes, size_t length)
{
    ssize_t taken = nghttp2_session_mem_recv(connection->session, bytes, length);
    if (taken < 0)
        give_up("the server violated HTTP/2: %s", nghttp2_strerror((int)taken));
}

static void cancel(struct call *call)
{
    if (nghttp2_submit_rst_stream(call->connection->session, NGHTTP2_FLAG_NONE, call->stream, NGHTTP2_CANCEL))
        give_up("cannot cancel a call");
}

const struct protocol grpc = {PREFIX_LENGTH, write_prefix, open_session, begin_call, gather, receive, cancel};
