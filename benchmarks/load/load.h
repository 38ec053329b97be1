// What the two protocols share with the rest of the load program, which load.c explains.
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

// A place for one call in flight; it is used again for the next one.
struct call {
    struct connection *connection;
    const struct record *record; // NULL while the place is free
    double due;
    size_t sent; // bytes of the body
    char http_status[4], grpc_status[8], grpc_message[200];
    struct buffer reply;
    struct call *next_free;
};

struct connection {
    int socket;
    struct nghttp2_session *session; // NULL for HTTP/1.1
    struct buffer out;               // what the socket has not taken yet
    struct call *calls, *free;
};

struct protocol {
    size_t prefix_length; // of the bytes that come before a body and are made from its length
    void (*write_prefix)(uint8_t *prefix, size_t body_length);
    void (*open)(struct connection *);
    void (*begin)(struct call *);
    // Puts what is to be sent into `out`; NULL where all of it is there already.
    void (*gather)(struct connection *);
    void (*receive)(struct connection *, const uint8_t *bytes, size_t length);
};

extern const struct protocol grpc, http1;
extern char authority[32];

void *must(void *memory);
void append(struct buffer *buffer, const void *bytes, size_t length);
bool contains_expected(const struct call *call, const uint8_t *bytes, size_t length);
// Ends a call; what is wrong with its reply is said in the manner of printf, or NULL.
__attribute__((format(printf, 2, 3))) void end_call(struct call *call, const char *wrong, ...);
// Ends the program, because nothing can be measured.
__attribute__((format(printf, 1, 2), noreturn)) void give_up(const char *why, ...);
