// Calls a server on 127.0.0.1 over gRPC (HTTP/2 without TLS) or HTTP/1.1, and checks every reply.
//
//     load --port P [--http1] --connections C --streams S --calls N [--rate R] FILE
//
// FILE holds records, little endian: u16 length and path, u32 length and body, u16 length and the bytes that the reply
// must contain. N calls are made in the order of the file, from its beginning again at its end. Without --rate S calls
// are always in flight on each connection. With it calls are due at Poisson times, R a second; at most S are in flight
// on a connection, and a call that has to wait for its turn has waited since it was due: a server that stalls shows in
// the latencies of all calls it held up, not in one.
//
// Prints one line of JSON. The status is 0 if every reply was good, 1 if one was not, 2 if nothing could be measured.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

// The server must never wait for us to take what it has to say.
#define STREAM_WINDOW (1 << 24)
#define CONNECTION_WINDOW (1 << 30)
// A server that says nothing for so long will not answer.
#define PATIENCE_SECONDS 10

struct buffer {
    uint8_t *bytes;
    size_t length, capacity;
};

struct record {
    char *path;
    uint8_t *body; // for gRPC with the five bytes that a message begins with
    uint8_t *expect;
    size_t body_length, expect_length;
};

// A place for one call in flight; it is used again for the next one.
struct call {
    struct connection *connection;
    const struct record *record;
    double due;
    size_t sent;
    char http_status[4], grpc_status[8], grpc_message[200];
    struct buffer reply;
    struct call *next_free;
};

struct connection {
    int socket;
    nghttp2_session *session; // none for HTTP/1.1
    struct buffer out;        // what the socket has not taken yet
    struct call *calls, *free;
};

static int port, connection_count, streams;
static long call_count;
static double rate;
static bool http1;

static char authority[32];
static struct record *records;
static long record_count;
static struct connection *connections;
static long begun, good, bad;
static double next_due, *latencies;
static char first_error[600];

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void *must(void *memory)
{
    if (!memory)
        err(2, "memory");
    return memory;
}

static void append(struct buffer *buffer, const void *bytes, size_t length)
{
    if (buffer->length + length > buffer->capacity) {
        buffer->capacity = 2 * (buffer->length + length);
        buffer->bytes = must(realloc(buffer->bytes, buffer->capacity));
    }
    if (length)
        memcpy(buffer->bytes + buffer->length, bytes, length);
    buffer->length += length;
}

// Ends a call; what is wrong with its reply is said in the manner of printf, or NULL.
__attribute__((format(printf, 2, 3))) static void end_call(struct call *call, const char *wrong, ...)
{
    latencies[good + bad] = now() - call->due;
    if (wrong)
        bad++;
    else
        good++;
    if (wrong && !first_error[0]) {
        va_list arguments;
        va_start(arguments, wrong);
        int length = snprintf(first_error, sizeof first_error, "%.100s: ", call->record->path);
        vsnprintf(first_error + length, sizeof first_error - (size_t)length, wrong, arguments);
        va_end(arguments);
    }
    call->record = NULL;
    call->next_free = call->connection->free;
    call->connection->free = call;
}

static bool contains_expected(const struct call *call, const uint8_t *bytes, size_t length)
{
    // memmem finds the empty string anywhere.
    return memmem(bytes, length, call->record->expect, call->record->expect_length) != NULL;
}

// gRPC

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

static void begin_grpc(struct call *call)
{
    // With a deadline, as every caller should have one.
    const nghttp2_nv headers[] = {
        header(":method", "POST"),
        header(":scheme", "http"),
        header(":path", call->record->path),
        header(":authority", authority),
        header("te", "trailers"),
        header("content-type", "application/grpc"),
        header("user-agent", "load"),
        header("grpc-timeout", "10S"),
    };
    nghttp2_data_provider body = {.source.ptr = call, .read_callback = read_body};
    size_t count = sizeof headers / sizeof *headers;
    int stream = nghttp2_submit_request(call->connection->session, NULL, headers, count, &body, call);
    if (stream < 0)
        errx(2, "cannot begin a call: %s", nghttp2_strerror(stream));
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_length,
                     const uint8_t *value, size_t value_length, uint8_t flags, void *user_data)
{
    (void)name_length, (void)flags, (void)user_data;
    struct call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (!call)
        return 0;
    char *target = NULL;
    size_t size = 0;
    // nghttp2 ends names and values with a zero that is not counted.
    if (!strcmp((const char *)name, ":status"))
        target = call->http_status, size = sizeof call->http_status;
    else if (!strcmp((const char *)name, "grpc-status"))
        target = call->grpc_status, size = sizeof call->grpc_status;
    else if (!strcmp((const char *)name, "grpc-message"))
        target = call->grpc_message, size = sizeof call->grpc_message;
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

static int on_close(nghttp2_session *session, int32_t stream, uint32_t error_code, void *user_data)
{
    (void)user_data;
    struct call *call = nghttp2_session_get_stream_user_data(session, stream);
    if (!call)
        return 0;
    const struct buffer *reply = &call->reply;
    uint32_t length = 0;
    if (reply->length >= 5)
        memcpy(&length, reply->bytes + 1, sizeof length);
    if (error_code)
        end_call(call, "%s", nghttp2_http2_strerror(error_code));
    else if (strcmp(call->http_status, "200"))
        end_call(call, "HTTP status %s", call->http_status);
    else if (strcmp(call->grpc_status, "0"))
        end_call(call, "grpc-status %s, %s", call->grpc_status, call->grpc_message);
    else if (reply->length < 5 || reply->bytes[0] || ntohl(length) != reply->length - 5)
        end_call(call, "%zu bytes that are not exactly one message", reply->length);
    else if (!contains_expected(call, reply->bytes + 5, reply->length - 5))
        end_call(call, "a reply without what is expected");
    else
        end_call(call, NULL);
    return 0;
}

// HTTP/1.1

static void begin_http1(struct call *call)
{
    const struct record *record = call->record;
    char head[1000], length[100] = "";
    if (record->body_length)
        snprintf(length, sizeof length, "Content-Type: application/json\r\nContent-Length: %zu\r\n",
                 record->body_length);
    int written = snprintf(head, sizeof head, "%s HTTP/1.1\r\nHost: %s\r\n%s\r\n", record->path, authority, length);
    if (written >= (int)sizeof head)
        errx(2, "too long a path: %s", record->path);
    append(&call->connection->out, head, (size_t)written);
    append(&call->connection->out, record->body, record->body_length);
}

static void receive_http1(struct call *call, const uint8_t *bytes, size_t length)
{
    struct buffer *reply = &call->reply;
    append(reply, bytes, length);
    const char *end = memmem(reply->bytes, reply->length, "\r\n\r\n", 4);
    if (!end)
        return;
    char *head = strndup((char *)reply->bytes, (size_t)(end + 2 - (char *)reply->bytes));
    size_t head_length = strlen(head) + 2;
    int status = 0;
    // Only this form says where a reply ends without parsing more of HTTP.
    const char *found = strcasestr(must(head), "\r\ncontent-length:");
    size_t body_length = 0;
    bool understood = sscanf(head, "HTTP/1.1 %d ", &status) == 1 && found && sscanf(found + 17, "%zu", &body_length);
    free(head);
    if (!understood)
        end_call(call, "HTTP status %d without a content-length", status);
    else if (reply->length - head_length < body_length)
        return;
    else if (reply->length - head_length > body_length)
        end_call(call, "more bytes than the content-length");
    else if (status != 200 && status != 201)
        end_call(call, "HTTP status %d, %.*s", status, (int)(body_length < 200 ? body_length : 200),
                 (char *)reply->bytes + head_length);
    else if (!contains_expected(call, reply->bytes + head_length, body_length))
        end_call(call, "a reply without what is expected");
    else
        end_call(call, NULL);
}

// Both

// Returns when to look again, unless a reply comes before.
static double begin_due_calls(void)
{
    static int turn;
    double time = now();
    for (int full = 0; begun < call_count && full < connection_count && (!rate || next_due <= time); turn++) {
        struct connection *connection = &connections[turn % connection_count];
        struct call *call = connection->free;
        if (!call) {
            full++;
            continue;
        }
        full = 0;
        connection->free = call->next_free;
        call->record = &records[begun++ % record_count];
        call->due = rate ? next_due : time;
        next_due -= rate ? log(1 - drand48()) / rate : 0;
        call->sent = call->reply.length = 0;
        call->http_status[0] = call->grpc_status[0] = call->grpc_message[0] = 0;
        if (http1)
            begin_http1(call);
        else
            begin_grpc(call);
    }
    return begun < call_count && next_due > time ? next_due : INFINITY;
}

// Everything there is to send goes out at once, as gRPC's own clients do it: fewer packets, fewer reads for the server.
static void flush(struct connection *connection)
{
    const uint8_t *bytes;
    ssize_t length;
    while (!http1 && (length = nghttp2_session_mem_send(connection->session, &bytes)) != 0) {
        if (length < 0)
            errx(2, "cannot send: %s", nghttp2_strerror((int)length));
        append(&connection->out, bytes, (size_t)length);
    }
    struct buffer *out = &connection->out;
    if (!out->length)
        return;
    ssize_t sent = send(connection->socket, out->bytes, out->length, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN)
        err(2, "cannot send");
    if (sent > 0) {
        out->length -= (size_t)sent;
        memmove(out->bytes, out->bytes + sent, out->length);
    }
}

static void receive(struct connection *connection)
{
    static uint8_t bytes[1 << 18];
    ssize_t length = recv(connection->socket, bytes, sizeof bytes, 0);
    if (length < 0 && errno == EAGAIN)
        return;
    if (length < 0)
        err(2, "cannot receive");
    if (length == 0)
        errx(2, "the server closed a connection%s%s", first_error[0] ? "; " : "", first_error);
    if (http1) {
        // There is one place on each connection; without a record nothing was asked.
        if (!connection->calls->record)
            errx(2, "the server answered what was not asked");
        receive_http1(connection->calls, bytes, (size_t)length);
        return;
    }
    ssize_t taken = nghttp2_session_mem_recv(connection->session, bytes, (size_t)length);
    if (taken < 0)
        errx(2, "the server broke HTTP/2: %s", nghttp2_strerror((int)taken));
}

static void open_connection(struct connection *connection, const nghttp2_session_callbacks *callbacks)
{
    int yes = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connection->socket = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection->socket < 0 || connect(connection->socket, (struct sockaddr *)&address, sizeof address))
        err(2, "cannot connect to port %d", port);
    setsockopt(connection->socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    fcntl(connection->socket, F_SETFL, O_NONBLOCK);
    connection->calls = must(calloc((size_t)streams, sizeof *connection->calls));
    for (int index = 0; index < streams; index++) {
        connection->calls[index] = (struct call){.connection = connection, .next_free = connection->free};
        connection->free = &connection->calls[index];
    }
    if (http1)
        return;
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW},
                                               {NGHTTP2_SETTINGS_ENABLE_PUSH, 0}};
    if (nghttp2_session_client_new(&connection->session, callbacks, connection) ||
        nghttp2_submit_settings(connection->session, NGHTTP2_FLAG_NONE, settings, 2) ||
        nghttp2_session_set_local_window_size(connection->session, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW))
        errx(2, "cannot begin HTTP/2");
}

static uint8_t *take(FILE *file, int size_of_length, size_t *length, size_t room)
{
    uint8_t bytes[4] = {0};
    if (fread(bytes, 1, (size_t)size_of_length, file) != (size_t)size_of_length)
        errx(2, "the file ends inside a record");
    *length = bytes[0] | (size_t)bytes[1] << 8 | (size_t)bytes[2] << 16 | (size_t)bytes[3] << 24;
    uint8_t *target = must(calloc(1, room + *length + 1));
    if (fread(target + room, 1, *length, file) != *length)
        errx(2, "the file ends inside a record");
    return target;
}

static void read_records(const char *name)
{
    FILE *file = fopen(name, "rb");
    if (!file)
        err(2, "%s", name);
    for (int first; (first = getc(file)) != EOF; record_count++) {
        ungetc(first, file);
        records = must(realloc(records, (size_t)(record_count + 1) * sizeof *records));
        struct record *record = &records[record_count];
        size_t length, prefix = http1 ? 0 : 5;
        record->path = (char *)take(file, 2, &length, 0);
        record->body = take(file, 4, &length, prefix);
        record->body_length = prefix + length;
        uint32_t big_endian = htonl((uint32_t)length);
        if (prefix)
            memcpy(record->body + 1, &big_endian, sizeof big_endian);
        record->expect = take(file, 2, &record->expect_length, 0);
    }
    fclose(file);
    if (!record_count)
        errx(2, "%s holds no records", name);
}

static void run(void)
{
    struct pollfd *polled = must(calloc((size_t)connection_count, sizeof *polled));
    double heard = next_due = now();
    while (good + bad < call_count) {
        double next_look = begin_due_calls();
        for (int index = 0; index < connection_count; index++) {
            flush(&connections[index]);
            short events = connections[index].out.length ? POLLIN | POLLOUT : POLLIN;
            polled[index] = (struct pollfd){.fd = connections[index].socket, .events = events};
        }
        double wait = fmin(1, fmax(0, next_look - now()));
        struct timespec timeout = {(time_t)wait, (long)((wait - floor(wait)) * 1e9)};
        int ready = ppoll(polled, (nfds_t)connection_count, &timeout, NULL);
        if (ready < 0 && errno != EINTR)
            err(2, "ppoll");
        if (ready > 0 || begun == good + bad)
            heard = now();
        if (now() - heard > PATIENCE_SECONDS)
            errx(2, "no reply for %d seconds; %ld of %ld calls ended", PATIENCE_SECONDS, good + bad, call_count);
        for (int index = 0; index < connection_count && ready > 0; index++)
            if (polled[index].revents & (POLLIN | POLLHUP | POLLERR))
                receive(&connections[index]);
    }
}

static int ascending(const void *first, const void *second)
{
    double a = *(const double *)first, b = *(const double *)second;
    return (a > b) - (a < b);
}

static double percentile_ms(double part)
{
    return latencies[(long)ceil(part * (double)call_count) - 1] * 1e3;
}

static void report(double seconds)
{
    qsort(latencies, (size_t)call_count, sizeof *latencies, ascending);
    printf("{\"ok\": %ld, \"bad\": %ld, \"seconds\": %.6f, \"p50_ms\": %.4f, \"p99_ms\": %.4f, \"error\": \"", good,
           bad, seconds, percentile_ms(0.5), percentile_ms(0.99));
    for (const char *c = first_error; *c; c++)
        printf(*c < ' ' || *c > '~' ? "?" : *c == '"' || *c == '\\' ? "\\%c" : "%c", *c);
    puts("\"}");
}

int main(int argc, char **argv)
{
    enum { PORT = 1, HTTP1, CONNECTIONS, STREAMS, CALLS, RATE };
    static const struct option options[] = {
        {"port", required_argument, NULL, PORT},       {"http1", no_argument, NULL, HTTP1},
        {"connections", required_argument, NULL, CONNECTIONS}, {"streams", required_argument, NULL, STREAMS},
        {"calls", required_argument, NULL, CALLS},     {"rate", required_argument, NULL, RATE},
        {NULL, 0, NULL, 0}};
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;)
        switch (option) {
        case PORT: port = atoi(optarg); break;
        case HTTP1: http1 = true; break;
        case CONNECTIONS: connection_count = atoi(optarg); break;
        case STREAMS: streams = atoi(optarg); break;
        case CALLS: call_count = atol(optarg); break;
        case RATE: rate = atof(optarg); break;
        default: return 2;
        }
    if (port < 1 || connection_count < 1 || streams < 1 || call_count < 1 || rate < 0 || optind != argc - 1)
        errx(2, "usage: load --port P [--http1] --connections C --streams S --calls N [--rate R] FILE");
    if (http1 && streams != 1)
        errx(2, "HTTP/1.1 has one call in flight on a connection: --streams 1");
    // By default the kernel may wake a sleeper 50 microseconds late, which would be added to every latency.
    prctl(PR_SET_TIMERSLACK, 1);
    snprintf(authority, sizeof authority, "127.0.0.1:%d", port);
    read_records(argv[optind]);
    latencies = must(calloc((size_t)call_count, sizeof *latencies));
    connections = must(calloc((size_t)connection_count, sizeof *connections));
    nghttp2_session_callbacks *callbacks;
    if (nghttp2_session_callbacks_new(&callbacks))
        errx(2, "memory");
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    for (int index = 0; index < connection_count; index++)
        open_connection(&connections[index], callbacks);
    double started = now();
    run();
    report(now() - started);
    return bad ? 1 : 0;
}
