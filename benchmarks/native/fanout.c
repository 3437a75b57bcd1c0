/* Many readers of one stream, and one who appends to it over one connection, each record once the last was accepted.

   fanout PORT GET_PATH POST_PATH READERS SECONDS [RECORD_BYTES] [RATE] [hold]

   RATE is records a second; 0 is as fast as they are accepted. SECONDS of 0 append a single record. With "hold" it says
   {"connected": N} and waits for a line on its standard input before it appends anything.

   The readers' streams are looked through for records, whatever frames them. Each must see every record, in order. */
#include "common.h"
#include <pthread.h>

#define BUFFER (256 * 1024)
#define PATIENCE_NS 20000000000LL

typedef struct {
    int fd;
    int headed;      /* whether the head of the answer has come */
    size_t held;     /* bytes of a record that is not whole yet */
    int64_t next;    /* the number of the record that must come next; -1 before the first */
    char rest[1024];
} reader;

static int port, count, record_size = 250;
static double seconds, rate;
static const char *post_path;
static volatile int64_t appended = -1; /* how many there are once the appender has ended */
static histogram latencies, accepting;
static int64_t deliveries, wrong, first_ns, last_ns, began_ns, ended_ns;

static void *append(void *unused) {
    (void)unused;
    int fd = connect_to(port);
    answers state = {.left = -1};
    char request[8192], body[4096], in[65536];
    int head = snprintf(request, sizeof request,
                        "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                        "Content-Length: %d\r\n\r\n",
                        post_path, record_size);
    int64_t number = 0;
    began_ns = now_ns();
    int64_t stop = began_ns + (int64_t)(seconds * 1e9);
    do {
        if (rate > 0) {
            int64_t due = began_ns + (int64_t)((double)number / rate * 1e9), now = now_ns();
            if (due > now) usleep((useconds_t)((due - now) / 1000));
        }
        int64_t sent = now_ns();
        write_record(body, (size_t)record_size, number);
        memcpy(request + head, body, (size_t)record_size);
        send_all(fd, request, (size_t)(head + record_size));
        int answered = 0;
        while (!answered) {
            ssize_t size = recv(fd, in, sizeof in, 0);
            if (size <= 0) die("the appender's connection ended");
            answered = take_answers(&state, in, (size_t)size);
        }
        add_value(&accepting, now_ns() - sent);
        number++;
    } while (now_ns() < stop);
    ended_ns = now_ns();
    close(fd);
    appended = number;
    return NULL;
}

static void take(reader *r, char *data, size_t size) {
    char *at = data, *end = data + size;
    int64_t now = now_ns();
    while (at < end) {
        char *record = memmem(at, (size_t)(end - at), RECORD_MARK, RECORD_MARK_SIZE);
        if (!record) {
            at = end - at > 8 ? end - 8 : at; /* a mark may be cut */
            break;
        }
        if (end - record < RECORD_HEAD) {
            at = record;
            break;
        }
        int64_t number = record_number(record);
        if (r->next >= 0 && number != r->next) wrong++;
        r->next = number + 1;
        add_value(&latencies, now - record_time(record));
        deliveries++;
        at = record + RECORD_HEAD;
    }
    r->held = (size_t)(end - at);
    memcpy(r->rest, at, r->held);
    if (!first_ns) first_ns = now;
    last_ns = now;
}

int main(int argc, char **argv) {
    if (argc < 6) die("fanout PORT GET_PATH POST_PATH READERS SECONDS [RECORD_BYTES] [RATE] [hold]");
    port = atoi(argv[1]);
    post_path = argv[3];
    count = atoi(argv[4]);
    seconds = atof(argv[5]);
    if (argc > 6) record_size = atoi(argv[6]);
    if (argc > 7) rate = atof(argv[7]);
    int hold = argc > 8;
    raise_file_limit();
    reader *readers = calloc((size_t)count, sizeof *readers);
    int poll = epoll_create1(0);
    char request[4096];
    int size = snprintf(request, sizeof request,
                        "GET %s HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n", argv[2]);
    char *buffer = malloc(BUFFER + 2048);
    struct epoll_event events[MOST_EVENTS];
    pthread_t appender;
    int headed = 0, appending = 0, opened = 0;
    int64_t patience = now_ns() + PATIENCE_NS, opening = now_ns();
    for (;;) {
        /* Not all at once: the queue of a listening socket is short. */
        while (opened < count && opened - headed < 100) {
            reader *r = &readers[opened++];
            r->fd = connect_to(port);
            r->next = -1;
            send_all(r->fd, request, (size_t)size);
            set_nonblocking(r->fd);
            struct epoll_event event = {.events = EPOLLIN, .data.ptr = r};
            epoll_ctl(poll, EPOLL_CTL_ADD, r->fd, &event);
        }
        int ready = epoll_wait(poll, events, MOST_EVENTS, 100);
        for (int i = 0; i < ready; i++) {
            reader *r = events[i].data.ptr;
            memcpy(buffer, r->rest, r->held);
            ssize_t got = recv(r->fd, buffer + r->held, BUFFER, 0);
            if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
            if (got <= 0) die("a reader's connection ended");
            size_t have = r->held + (size_t)got;
            if (!r->headed) {
                r->held = have;
                if (have >= sizeof r->rest) die("the head of an answer is too long");
                memcpy(r->rest, buffer, have);
                if (!memmem(buffer, have, "\r\n\r\n", 4)) continue;
                if (memcmp(buffer + 9, "200", 3)) die("a reader was answered with:\n%.*s", (int)have, buffer);
                r->headed = 1;
                r->held = 0;
                headed++;
                patience = now_ns() + PATIENCE_NS;
                continue;
            }
            take(r, buffer, have);
        }
        if (!appending && headed == count) {
            double took = (double)(now_ns() - opening) / 1e9;
            if (hold) {
                printf("{\"connected\": %d, \"seconds\": %.3f}\n", count, took);
                fflush(stdout);
                int c;
                while ((c = getchar()) != '\n' && c != EOF) continue;
            } else {
                usleep(300000);
            }
            pthread_create(&appender, NULL, append, NULL);
            appending = 1;
        }
        if (appending && appended >= 0 && deliveries >= appended * count) break;
        if (now_ns() > (appended < 0 && appending ? patience + (int64_t)(seconds * 1e9) : patience + PATIENCE_NS)) break;
    }
    int behind = 0;
    for (int i = 0; i < count; i++) behind += readers[i].next != appended;
    double took = (double)(last_ns - began_ns) / 1e9;
    printf("{\"readers\": %d, \"records\": %lld, \"deliveries\": %lld, \"seconds\": %.4f, \"deliveries_per_second\": %.0f, "
           "\"appends_per_second\": %.0f, \"accepted_p50_ms\": %.3f, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f, "
           "\"out_of_order\": %lld, \"behind\": %d}\n",
           count, (long long)appended, (long long)deliveries, took, (double)deliveries / took,
           (double)appended / ((double)(ended_ns - began_ns) / 1e9), percentile(&accepting, 0.5),
           percentile(&latencies, 0.5), percentile(&latencies, 0.99), (double)latencies.most / 1e6, (long long)wrong,
           behind);
    return wrong || behind ? 2 : 0;
}
