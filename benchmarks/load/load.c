// Calls a server on 127.0.0.1 over gRPC or HTTP/1.1, and checks every reply.
//
//     load --port P [--http1 | --tls] [--authorization V] --connections C --streams S --calls N [--rate R] [--refusals]
//          [--timeout T] FILE
//
// With --tls, it uses TLS and does not verify the server's certificate. With --authorization, each gRPC call has this
// value as its metadata `authorization`.
//
// FILE holds little-endian records: u16 length and path, u32 length and body, u16 length and the bytes that the reply
// must contain. The program makes N calls in the order of the file, and starts over at its end. Without --rate, S calls
// are always in flight on each connection. With --rate, calls are due at Poisson times, R per second, with at most S in
// flight on a connection. The latency of a call is measured from the time at which it was due, so a server that stalls
// is charged for every call that it delayed, not only for one.
//
// With --refusals, the server may refuse calls for load (RESOURCE_EXHAUSTED or UNAVAILABLE) if it says when to retry
// (grpc-retry-pushback-ms). They are counted, and not retried; the latencies are those of the good replies.
//
// With --timeout, each gRPC call has T seconds from the time at which it was due. Then it is cancelled, as gRPC's clients
// do, and counted as expired.
//
// Prints one line of JSON. The exit status is 0 if every reply was good, 1 if any was bad, 2 if nothing was measured.
#define _GNU_SOURCE
#include "load.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>

// Give up if the server sends nothing for this long.
#define REPLY_TIMEOUT_SECONDS 10

static const struct protocol *protocol = &grpc;
static int port, connection_count, streams;
static double rate;
static struct record *records;
static struct connection *connections;
static long record_count, call_count, begun, good, refused, expired, bad;
static double timeout, next_due, *latencies;
static char first_error[600];
char authority[32];
const char *authorization;
static SSL_CTX *tls_context;
bool may_refuse, expires;
char grpc_timeout[20] = "10S";

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

void give_up(const char *why, ...)
{
    va_list arguments;
    va_start(arguments, why);
    fputs("load: ", stderr);
    vfprintf(stderr, why, arguments);
    fprintf(stderr, "%s%s\n", first_error[0] ? "; before that: " : "", first_error);
    exit(2);
}

void *must(void *memory)
{
    if (!memory)
        give_up("out of memory");
    return memory;
}

void append(struct buffer *buffer, const void *bytes, size_t length)
{
    if (buffer->length + length > buffer->capacity) {
        buffer->capacity = 2 * (buffer->length + length);
        buffer->bytes = must(realloc(buffer->bytes, buffer->capacity));
    }
    if (length)
        memcpy(buffer->bytes + buffer->length, bytes, length);
    buffer->length += length;
}

bool contains_expected(const struct call *call, const uint8_t *bytes, size_t length)
{
    return memmem(bytes, length, call->record->expect, call->record->expect_length);
}

static void free_slot(struct call *call)
{
    call->record = NULL;
    call->next_free = call->connection->free;
    call->connection->free = call;
}

void end_refused_call(struct call *call)
{
    refused++;
    free_slot(call);
}

void end_expired_call(struct call *call)
{
    expired++;
    free_slot(call);
}

void end_call(struct call *call, const char *wrong, ...)
{
    if (wrong)
        bad++;
    else
        latencies[good++] = now() - call->due;
    if (wrong && !first_error[0]) {
        va_list arguments;
        va_start(arguments, wrong);
        int length = snprintf(first_error, sizeof first_error, "%.100s: ", call->record->path);
        vsnprintf(first_error + length, sizeof first_error - (size_t)length, wrong, arguments);
        va_end(arguments);
    }
    free_slot(call);
}

// Starts the calls that are due. Returns the time of the next one, or INFINITY if it must wait for a reply first.
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
        call->sent = call->reply.length = 0;
        call->cancelled = false;
        protocol->begin(call);
        if (rate)
            next_due -= log(1 - drand48()) / rate;
    }
    return begun < call_count && next_due > time ? next_due : INFINITY;
}

// Returns the result of SSL_read or SSL_write as recv and send would.
static ssize_t of_tls(struct connection *connection, int result)
{
    if (result > 0)
        return result;
    int error = SSL_get_error(connection->tls, result);
    if (error == SSL_ERROR_ZERO_RETURN)
        return 0;
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
        errno = EAGAIN;
    else if (error != SSL_ERROR_SYSCALL)
        errno = EPROTO;
    return -1;
}

// Sends all pending bytes of a connection together, as gRPC's own clients do: fewer packets, fewer reads by the server.
static void flush(struct connection *connection)
{
    struct buffer *out = &connection->out;
    if (protocol->gather)
        protocol->gather(connection);
    if (!out->length)
        return;
    ssize_t sent = connection->tls ? of_tls(connection, SSL_write(connection->tls, out->bytes, (int)out->length))
                                   : send(connection->socket, out->bytes, out->length, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN)
        give_up("cannot send: %s", strerror(errno));
    if (sent > 0) {
        out->length -= (size_t)sent;
        memmove(out->bytes, out->bytes + sent, out->length);
    }
}

static void receive(struct connection *connection)
{
    static uint8_t bytes[1 << 18];
    ssize_t length;
    // What TLS has read from the socket, poll does not report again.
    do {
        length = connection->tls ? of_tls(connection, SSL_read(connection->tls, bytes, sizeof bytes))
                                 : recv(connection->socket, bytes, sizeof bytes, 0);
        if (length == 0)
            give_up("the server closed a connection");
        if (length < 0 && errno != EAGAIN)
            give_up("cannot receive: %s", strerror(errno));
        if (length > 0)
            protocol->receive(connection, bytes, (size_t)length);
    } while (connection->tls && length > 0);
}

static long ended(void)
{
    return good + refused + expired + bad;
}

static void cancel_late_calls(void)
{
    double late = now() - timeout;
    for (struct connection *connection = connections; connection < connections + connection_count; connection++)
        for (struct call *call = connection->calls; call < connection->calls + streams; call++)
            if (call->record && !call->cancelled && call->due < late) {
                call->cancelled = true;
                protocol->cancel(call);
            }
}

static void make_all_calls(void)
{
    struct pollfd *polled = must(calloc((size_t)connection_count, sizeof *polled));
    double heard = next_due = now();
    while (ended() < call_count) {
        double next = begin_due_calls();
        if (expires)
            cancel_late_calls();
        for (int index = 0; index < connection_count; index++) {
            struct connection *connection = &connections[index];
            flush(connection);
            polled[index].fd = connection->socket;
            polled[index].events = connection->out.length ? POLLIN | POLLOUT : POLLIN;
        }
        // With deadlines, it looks every millisecond whether one has passed.
        double wait = fmin(expires ? 0.001 : 1, fmax(0, next - now()));
        struct timespec timeout = {(time_t)wait, (long)(fmod(wait, 1) * 1e9)};
        int ready = ppoll(polled, (nfds_t)connection_count, &timeout, NULL);
        if (ready < 0 && errno != EINTR)
            give_up("cannot wait: %s", strerror(errno));
        if (ready > 0 || begun == ended())
            heard = now();
        if (now() - heard > REPLY_TIMEOUT_SECONDS)
            give_up("no reply for %d seconds, after %ld of %ld", REPLY_TIMEOUT_SECONDS, ended(), call_count);
        for (int index = 0; index < connection_count && ready > 0; index++)
            if (polled[index].revents & (POLLIN | POLLHUP | POLLERR))
                receive(&connections[index]);
    }
}

static void use_tls(void)
{
    static const unsigned char http2[] = {2, 'h', '2'};
    tls_context = must(SSL_CTX_new(TLS_client_method()));
    // What could not be sent may have moved in memory when it is tried again.
    SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_alpn_protos(tls_context, http2, sizeof http2);
}

static void open_connection(struct connection *connection)
{
    int yes = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connection->socket = socket(AF_INET, SOCK_STREAM, 0);
    if (connection->socket < 0 || connect(connection->socket, (struct sockaddr *)&address, sizeof address))
        give_up("cannot connect to port %d: %s", port, strerror(errno));
    setsockopt(connection->socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (tls_context) {
        connection->tls = must(SSL_new(tls_context));
        if (!SSL_set_fd(connection->tls, connection->socket) || SSL_connect(connection->tls) != 1)
            give_up("cannot begin TLS on port %d", port);
    }
    fcntl(connection->socket, F_SETFL, O_NONBLOCK);
    connection->calls = must(calloc((size_t)streams, sizeof *connection->calls));
    for (struct call *call = connection->calls; call < connection->calls + streams; call++) {
        call->connection = connection;
        call->next_free = connection->free;
        connection->free = call;
    }
    if (protocol->open)
        protocol->open(connection);
}

// Reads a length of length_size bytes and a field of that length. The returned buffer has `room` free bytes before it.
static uint8_t *read_field(FILE *file, size_t length_size, size_t room, size_t *length)
{
    uint8_t bytes[4] = {0};
    size_t got = fread(bytes, 1, length_size, file);
    *length = bytes[0] | (size_t)bytes[1] << 8 | (size_t)bytes[2] << 16 | (size_t)bytes[3] << 24;
    uint8_t *field = must(calloc(1, room + *length + 1));
    if (got != length_size || fread(field + room, 1, *length, file) != *length)
        give_up("the file ends inside a record");
    return field;
}

static void read_records(const char *name)
{
    FILE *file = fopen(name, "rb");
    if (!file)
        give_up("%s: %s", name, strerror(errno));
    for (int first; (first = getc(file)) != EOF; record_count++) {
        ungetc(first, file);
        records = must(realloc(records, (size_t)(record_count + 1) * sizeof *records));
        struct record *record = &records[record_count];
        size_t length, prefix_length = protocol->prefix_length;
        record->path = (char *)read_field(file, 2, 0, &length);
        record->body = read_field(file, 4, prefix_length, &length);
        record->body_length = prefix_length + length;
        if (prefix_length)
            protocol->write_prefix(record->body, length);
        record->expect = read_field(file, 2, 0, &record->expect_length);
    }
    fclose(file);
    if (!record_count)
        give_up("%s holds no records", name);
}

static int ascending(const void *first, const void *second)
{
    double a = *(const double *)first, b = *(const double *)second;
    return (a > b) - (a < b);
}

static double percentile_ms(double part)
{
    return good ? latencies[(long)ceil(part * (double)good) - 1] * 1e3 : 0;
}

static void report(double seconds)
{
    qsort(latencies, (size_t)good, sizeof *latencies, ascending);
    printf("{\"ok\": %ld, \"refused\": %ld, \"expired\": %ld, \"bad\": %ld, ", good, refused, expired, bad);
    printf("\"seconds\": %.6f, ", seconds);
    printf("\"p50_ms\": %.4f, \"p99_ms\": %.4f, \"error\": \"", percentile_ms(0.5), percentile_ms(0.99));
    for (const char *c = first_error; *c; c++) {
        if (*c == '"' || *c == '\\')
            putchar('\\');
        putchar(*c < ' ' || *c > '~' ? '?' : *c);
    }
    puts("\"}");
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"port", required_argument, NULL, 'p'},    {"connections", required_argument, NULL, 'c'},
        {"streams", required_argument, NULL, 's'}, {"calls", required_argument, NULL, 'n'},
        {"rate", required_argument, NULL, 'r'},  {"http1", no_argument, NULL, '1'},
        {"refusals", no_argument, NULL, 'R'},      {"timeout", required_argument, NULL, 'T'},
        {"tls", no_argument, NULL, 't'},         {"authorization", required_argument, NULL, 'a'},
        {NULL, 0, NULL, 0}};
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;)
        switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'c': connection_count = atoi(optarg); break;
        case 's': streams = atoi(optarg); break;
        case 'n': call_count = atol(optarg); break;
        case 'r': rate = atof(optarg); break;
        case '1': protocol = &http1; break;
        case 't': use_tls(); break;
        case 'a': authorization = optarg; break;
        case 'R': may_refuse = true; break;
        case 'T': timeout = atof(optarg), expires = true; break;
        default: return 2;
        }
    if (port < 1 || connection_count < 1 || streams < 1 || call_count < 1 || rate < 0 || optind != argc - 1)
        give_up("usage: load --port P [--http1 | --tls] [--authorization V] --connections C --streams S --calls N "
                "[--rate R] [--refusals] [--timeout T] FILE");
    if (protocol == &http1 && (tls_context || authorization || expires))
        give_up("--tls, --authorization and --timeout are for gRPC only");
    if (expires)
        snprintf(grpc_timeout, sizeof grpc_timeout, "%ldu", (long)(timeout * 1e6));
    if (protocol == &http1 && streams != 1)
        give_up("HTTP/1.1 has one call in flight per connection: use --streams 1");
    // By default, the kernel may wake a sleeping process 50 microseconds late, which would add to every latency.
    prctl(PR_SET_TIMERSLACK, 1);
    snprintf(authority, sizeof authority, "127.0.0.1:%d", port);
    read_records(argv[optind]);
    latencies = must(calloc((size_t)call_count, sizeof *latencies));
    connections = must(calloc((size_t)connection_count, sizeof *connections));
    for (int index = 0; index < connection_count; index++)
        open_connection(&connections[index]);
    double started = now();
    make_all_calls();
    report(now() - started);
    return bad ? 1 : 0;
}
