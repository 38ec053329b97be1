// HTTP/1.1, with one call at a time on a persistent connection. A good reply has status 200 or 201. Every reply must
// have a content-length: other ways to delimit a body, such as chunked encoding, are not supported.
#define _GNU_SOURCE
#include "load.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LENGTH_HEADER "\r\ncontent-length:"
#define SHOWN_BYTES 200

static void begin_call(struct call *call)
{
    const struct record *record = call->record;
    struct buffer *out = &call->connection->out;
    char content[100] = "", head[1000];
    if (record->body_length)
        snprintf(content, sizeof content, "Content-Type: application/json\r\nContent-Length: %zu\r\n",
                 record->body_length);
    int length = snprintf(head, sizeof head, "%s HTTP/1.1\r\nHost: %s\r\n%s\r\n", record->path, authority, content);
    if (length >= (int)sizeof head)
        give_up("the path is too long: %s", record->path);
    append(out, head, (size_t)length);
    append(out, record->body, record->body_length);
}

static void receive(struct connection *connection, const uint8_t *bytes, size_t length)
{
    struct call *call = connection->calls;
    struct buffer *reply = &call->reply;
    if (!call->record)
        give_up("the server sent data without a request");
    append(reply, bytes, length);
    uint8_t *end = memmem(reply->bytes, reply->length, "\r\n\r\n", 4);
    if (!end)
        return;
    size_t head_length = (size_t)(end - reply->bytes), body_length;
    char *head = must(strndup((char *)reply->bytes, head_length));
    const uint8_t *body = end + 4;
    size_t received = reply->length - head_length - 4;
    int status = 0;
    const char *found = strcasestr(head, LENGTH_HEADER);
    bool supported = sscanf(head, "HTTP/1.1 %d", &status) == 1 && found;
    if (!supported || sscanf(found + strlen(LENGTH_HEADER), "%zu", &body_length) != 1)
        give_up("expected an HTTP/1.1 reply with a content-length, not: %.*s", SHOWN_BYTES, head);
    free(head);
    if (received > body_length)
        give_up("the server sent more than the content-length");
    if (received < body_length)
        return;
    if (status != 200 && status != 201)
        end_call(call, "HTTP status %d, %.*s", status, (int)(received < SHOWN_BYTES ? received : SHOWN_BYTES), body);
    else if (!contains_expected(call, body, body_length))
        end_call(call, "the reply lacks what is expected");
    else
        end_call(call, NULL);
}

const struct protocol http1 = {.begin = begin_call, .receive = receive};
