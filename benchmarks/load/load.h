// Declarations shared by the load program (load.c, which explains it) and its two protocols.
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buffer {
    uint8_t *bytes;
    size_t length, capacity;
};

struct record {
    char *path;
    uint8_t *body;
    uint8_t *expect;
    size_t body_length, expect_length;
};

// A slot for one call in flight, reused for later calls.
struct call {
    struct connection *connection;
    const struct record *record; // NULL while the slot is free
    double due;
    size_t sent; // bytes of the body that were sent
    int stream;  // of HTTP/2
    bool cancelled; // because its time was over
    char http_status[4], grpc_status[8], grpc_message[200], pushback[12];
    struct buffer reply;
    struct call *next_free;
};

struct connection {
    int socket;
    struct ssl_st *tls;              // NULL without TLS
    struct nghttp2_session *session; // NULL for HTTP/1.1
    struct buffer out;               // bytes that the socket has not accepted yet
    struct call *calls, *free;
};

struct protocol {
    size_t prefix_length; // length of the prefix of a body, which is made from the body's length
    void (*write_prefix)(uint8_t *prefix, size_t body_length);
    void (*open)(struct connection *);
    void (*begin)(struct call *);
    // Appends pending bytes to `out`; NULL if the protocol writes to `out` directly.
    void (*gather)(struct connection *);
    void (*receive)(struct connection *, const uint8_t *bytes, size_t length);
    void (*cancel)(struct call *); // NULL if calls have no deadline
};

extern const struct protocol grpc, http1;
extern char authority[32];
// The value of the header `authorization` of each gRPC call, or NULL.
extern const char *authorization;
// Whether calls may be refused for load.
extern bool may_refuse;
// Whether calls have a deadline that may pass.
extern bool expires;
// The value of the header `grpc-timeout`.
extern char grpc_timeout[20];

void *must(void *memory);
void append(struct buffer *buffer, const void *bytes, size_t length);
bool contains_expected(const struct call *call, const uint8_t *bytes, size_t length);
// Ends a call. `wrong` is a printf format that describes what is wrong with the reply, or NULL if it is good.
__attribute__((format(printf, 2, 3))) void end_call(struct call *call, const char *wrong, ...);
// Ends a call that the server has refused for load.
void end_refused_call(struct call *call);
// Ends a call whose deadline has passed.
void end_expired_call(struct call *call);
// Prints a message and exits with status 2, because nothing can be measured.
__attribute__((format(printf, 1, 2), noreturn)) void give_up(const char *why, ...);
