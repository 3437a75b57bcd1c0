/* Requests with small bodies over keep-alive connections, each once the last was answered.

   appends PORT PATH_WITH_%d CONNECTIONS SECONDS [BYTES] [CONTENT_TYPE] [PUT]

   POSTs go to a path for each connection: appends, each to a stream of its own. PUTs go to a path for each request, and
   SECONDS are how many there are: files. */
#include "common.h"

typedef struct {
    int fd;
    int64_t sent;
    int head;
    char request[80000];
    answers state;
} appender;

static const char *pattern, *type, *method = "POST";
static int size;

static void send_request(appender *a, int path, int64_t number) {
    char target[1024];
    snprintf(target, sizeof target, pattern, path);
    a->head = snprintf(a->request, sizeof a->request,
                       "%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", method,
                       target, type, size);
    write_record(a->request + a->head, (size_t)size, number);
    a->sent = now_ns();
    send_all(a->fd, a->request, (size_t)(a->head + size));
}

int main(int argc, char **argv) {
    if (argc < 5) die("appends PORT PATH_WITH_%%d CONNECTIONS SECONDS [BYTES] [CONTENT_TYPE] [PUT]");
    int port = atoi(argv[1]), count = atoi(argv[3]), files = argc > 7;
    double seconds = atof(argv[4]);
    pattern = argv[2];
    size = argc > 5 ? atoi(argv[5]) : 256;
    type = argc > 6 ? argv[6] : "application/json";
    if (files) method = argv[7];
    if (size > 70000) die("at most 70000 bytes");
    raise_file_limit();
    appender *all = calloc((size_t)count, sizeof *all);
    int poll = epoll_create1(0);
    static histogram latencies;
    int64_t accepted = 0, sent = 0, began = now_ns(), stop = began + (int64_t)(seconds * 1e9);
    for (int i = 0; i < count; i++) {
        appender *a = &all[i];
        a->fd = connect_to(port);
        a->state.left = -1;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = a};
        epoll_ctl(poll, EPOLL_CTL_ADD, a->fd, &event);
        send_request(a, i, sent++);
    }
    int waiting = count;
    struct epoll_event events[MOST_EVENTS];
    char in[65536];
    while (waiting) {
        int ready = epoll_wait(poll, events, MOST_EVENTS, 10000);
        if (!ready) die("no answer for ten seconds");
        for (int i = 0; i < ready; i++) {
            appender *a = events[i].data.ptr;
            ssize_t got = recv(a->fd, in, sizeof in, 0);
            if (got <= 0) die("a connection ended");
            if (!take_answers(&a->state, in, (size_t)got)) continue;
            int64_t now = now_ns();
            add_value(&latencies, now - a->sent);
            accepted++;
            if (files ? sent >= (int64_t)seconds : now >= stop) {
                waiting--;
                continue;
            }
            send_request(a, files ? (int)sent : (int)(a - all), sent);
            sent++;
        }
    }
    double took = (double)(now_ns() - began) / 1e9;
    printf("{\"connections\": %d, \"appends\": %lld, \"seconds\": %.4f, \"appends_per_second\": %.0f, \"p50_ms\": %.3f, "
           "\"p99_ms\": %.3f}\n",
           count, (long long)accepted, took, (double)accepted / took, percentile(&latencies, 0.5),
           percentile(&latencies, 0.99));
    return 0;
}
