/* What the load generators share: the clock, sockets, records, percentiles. */
#ifndef COMMON_H
#define COMMON_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST_EVENTS 512

static inline void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

/* Nanoseconds of a clock that all processes of the machine share. */
static inline int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline void raise_file_limit(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static inline int connect_to(int port) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    if (fd < 0) die("socket: %s", strerror(errno));
    if (connect(fd, (struct sockaddr *)&address, sizeof address)) die("connect: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static inline void set_nonblocking(int fd) {
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

static inline void send_all(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0 && errno == EAGAIN) {
            usleep(50);
            continue;
        }
        if (sent <= 0) die("send: %s", strerror(errno));
        data += sent;
        size -= (size_t)sent;
    }
}

/* A record: JSON of a known size that says its number and when it was sent, at places that are easy to find. */
#define RECORD_MARK "{\"n\":"
#define RECORD_MARK_SIZE 5
#define RECORD_HEAD 51 /* {"n":1000000000000000,"t":1000000000000000000,"x":" */

static inline void write_record(char *out, size_t size, int64_t number) {
    char head[64];
    snprintf(head, sizeof head, "{\"n\":1%015lld,\"t\":1%018lld,\"x\":\"", (long long)number, (long long)now_ns());
    memcpy(out, head, RECORD_HEAD);
    memset(out + RECORD_HEAD, 'x', size - RECORD_HEAD - 2);
    memcpy(out + size - 2, "\"}", 2);
}

static inline int64_t digits(const char *text, int count) {
    int64_t value = 0;
    for (int i = 0; i < count; i++) value = value * 10 + (text[i] - '0');
    return value;
}

static inline int64_t record_number(const char *record) { return digits(record + 6, 15); }
static inline int64_t record_time(const char *record) { return digits(record + 27, 18); }

/* Percentiles by a histogram: 64 steps an octave, so within about one percent. */
#define STEPS 64
typedef struct {
    int64_t counts[64 * STEPS];
    int64_t total;
    int64_t most;
} histogram;

static inline void add_value(histogram *h, int64_t ns) {
    if (ns < 1) ns = 1;
    int octave = 63 - __builtin_clzll((uint64_t)ns);
    int step = octave < 6 ? 0 : (int)((ns >> (octave - 6)) & (STEPS - 1));
    h->counts[octave * STEPS + step]++;
    h->total++;
    if (ns > h->most) h->most = ns;
}

/* Milliseconds under which that part of the values lies. */
static inline double percentile(const histogram *h, double part) {
    int64_t wanted = (int64_t)((double)h->total * part), seen = 0;
    for (int i = 0; i < 64 * STEPS; i++) {
        seen += h->counts[i];
        if (seen > wanted) {
            int octave = i / STEPS, step = i % STEPS;
            return (double)((1LL << octave) + (octave < 6 ? 0 : ((int64_t)step << (octave - 6)))) / 1e6;
        }
    }
    return (double)h->most / 1e6;
}

/* The answers of a server that come over one connection, one after the other: their heads, then as many bytes. */
typedef struct {
    char head[4096];
    size_t held;
    long long left; /* bytes of the body that are still to come; -1 within the head; -2 within a chunked body */
    int status;
    char last[5]; /* the last bytes of a chunked body */
} answers;

/* Take what came, and return how many answers ended in it. */
static inline int take_answers(answers *a, const char *data, size_t size) {
    int ended = 0;
    while (size) {
        if (a->left > 0) {
            size_t part = (size_t)a->left < size ? (size_t)a->left : size;
            a->left -= (long long)part;
            data += part;
            size -= part;
            if (!a->left) a->left = -1, a->held = 0, ended++;
            continue;
        }
        if (a->left == -2) {
            memmove(a->last, a->last + 1, 4);
            a->last[4] = *data++;
            size--;
            if (!memcmp(a->last, "0\r\n\r\n", 5)) a->left = -1, a->held = 0, ended++;
            continue;
        }
        if (a->held + 1 >= sizeof a->head) die("the head of an answer is too long");
        a->head[a->held++] = *data++;
        size--;
        if (a->held < 4 || memcmp(a->head + a->held - 4, "\r\n\r\n", 4)) continue;
        a->head[a->held] = 0;
        a->status = atoi(a->head + 9);
        if (a->status < 200 || a->status > 299) die("an append was answered with:\n%s", a->head);
        char *length = strcasestr(a->head, "\r\ncontent-length:");
        a->left = length ? atoll(length + 17) : strcasestr(a->head, "chunked") ? -2 : 0;
        memset(a->last, 0, sizeof a->last);
        if (!a->left) a->left = -1, a->held = 0, ended++;
    }
    return ended;
}

#endif
