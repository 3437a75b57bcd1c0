/* The limit of a fan-out: a server that does no more than to send every record to every reader. It keeps nothing.

   limit PORT [batched]

   A GET becomes a reader; a POST is answered and its body sent to all readers, as one event in one chunk: one send a
   reader and record, as a queue a reader would do it at best. With "batched", what has come while the readers were
   gone through is sent together: the publisher is looked after between every 64 of them. */
#include "common.h"

#define SLICE 64

typedef struct {
    int fd, reading;
    size_t held;
    size_t from; /* batched: where this reader stands in the log */
    char in[16384];
} client;

static client *readers[20000];
static int count, batched, poll_fd;
static char *tail; /* batched: all that was ever sent, framed */
static size_t tail_size;

static void frame(const char *body, size_t size, char *out, size_t *framed) {
    *framed = (size_t)sprintf(out, "%zx\r\ndata: ", size + 8);
    memcpy(out + *framed, body, size);
    *framed += size;
    memcpy(out + *framed, "\n\n\r\n", 4);
    *framed += 4;
}

static void leave(client *c) {
    for (int i = 0; i < count; i++)
        if (readers[i] == c) readers[i] = readers[--count];
}

static void push(client *c, const char *data, size_t size) {
    while (size) {
        ssize_t sent = send(c->fd, data, size, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN && errno != EINTR) return; /* it has left */
        if (sent < 0) {
            usleep(50);
            continue;
        }
        data += sent;
        size -= (size_t)sent;
    }
}

/* Take a request's bytes; a client that becomes a reader says no more. */
static void requests(client *c) {
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    static const char accepted[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    for (;;) {
        char *end = memmem(c->in, c->held, "\r\n\r\n", 4);
        if (!end) return;
        if (!memcmp(c->in, "GET /readyz", 11)) {
            send_all(c->fd, accepted, sizeof accepted - 1);
            c->held = 0;
            return;
        }
        if (c->in[0] == 'G') {
            c->reading = 1;
            c->held = 0;
            c->from = tail_size;
            readers[count++] = c;
            send_all(c->fd, head, sizeof head - 1);
            return;
        }
        *end = 0;
        char *length = strcasestr(c->in, "content-length:");
        size_t size = length ? (size_t)atoll(length + 15) : 0, all = (size_t)(end + 4 - c->in) + size;
        *end = '\r';
        if (c->held < all) return;
        char framed[8192];
        size_t bytes;
        frame(end + 4, size, framed, &bytes);
        if (batched) {
            if (tail_size + bytes > (size_t)1 << 32) die("the log is full");
            memcpy(tail + tail_size, framed, bytes);
            tail_size += bytes;
        }
        send_all(c->fd, accepted, sizeof accepted - 1);
        if (!batched)
            for (int i = 0; i < count; i++) push(readers[i], framed, bytes);
        c->held -= all;
        memmove(c->in, c->in + all, c->held);
    }
}

int main(int argc, char **argv) {
    if (argc < 2) die("limit PORT [batched]");
    batched = argc > 2;
    raise_file_limit();
    if (batched) tail = malloc((size_t)1 << 32);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1, at = 0;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) die("%s", strerror(errno));
    poll_fd = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[MOST_EVENTS];
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, listener, &event);
    int behind = 0; /* readers that have not got all, in a row from `at` on */
    for (;;) {
        int ready = epoll_wait(poll_fd, events, MOST_EVENTS, behind ? 0 : -1);
        size_t before = tail_size;
        for (int i = 0; i < ready; i++) {
            client *c = events[i].data.ptr;
            if (!c) {
                int fd = accept(listener, NULL, NULL);
                if (fd < 0) continue;
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                set_nonblocking(fd);
                c = calloc(1, sizeof *c);
                c->fd = fd;
                event.data.ptr = c;
                epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event);
                continue;
            }
            ssize_t got = recv(c->fd, c->in + c->held, sizeof c->in - c->held, 0);
            if (got < 0 && errno == EAGAIN) continue;
            if (got <= 0) {
                if (c->reading) leave(c);
                epoll_ctl(poll_fd, EPOLL_CTL_DEL, c->fd, NULL);
                close(c->fd);
                free(c);
                continue;
            }
            c->held += (size_t)got;
            if (!c->reading) requests(c);
        }
        if (tail_size != before) behind = count; /* all of them once more */
        for (int i = 0; behind && count && i < SLICE; i++, behind--) {
            client *c = readers[at % count];
            if (c->from < tail_size) push(c, tail + c->from, tail_size - c->from);
            c->from = tail_size;
            at++;
        }
    }
}
