/* Appends over keep-alive connections, each to a stream of its own, each once the last was accepted.

   appends PORT PATH_WITH_%d CONNECTIONS SECONDS [RECORD_BYTES] [CONTENT_TYPE] */
#include "common.h"

typedef struct {
    int fd;
    int64_t sent;
    int head;
    char request[4096];
    answers state;
} appender;

int main(int argc, char **argv) {
    if (argc < 5) die("appends PORT PATH_WITH_%%d CONNECTIONS SECONDS [RECORD_BYTES] [CONTENT_TYPE]");
    int port = atoi(argv[1]), count = atoi(argv[3]), size = argc > 5 ? atoi(argv[5]) : 256;
    double seconds = atof(argv[4]);
    const char *type = argc > 6 ? argv[6] : "application/json";
    raise_file_limit();
    appender *all = calloc((size_t)count, sizeof *all);
    int poll = epoll_create1(0);
    static histogram latencies;
    int64_t accepted = 0, began = now_ns(), stop = began + (int64_t)(seconds * 1e9);
    for (int i = 0; i < count; i++) {
        appender *a = &all[i];
        char path[1024];
        snprintf(path, sizeof path, argv[2], i);
        a->fd = connect_to(port);
        a->state.left = -1;
        a->head = snprintf(a->request, sizeof a->request,
                           "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", path,
                           type, size);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = a};
        epoll_ctl(poll, EPOLL_CTL_ADD, a->fd, &event);
        write_record(a->request + a->head, (size_t)size, 0);
        a->sent = now_ns();
        send_all(a->fd, a->request, (size_t)(a->head + size));
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
            if (now >= stop) {
                waiting--;
                continue;
            }
            write_record(a->request + a->head, (size_t)size, accepted);
            a->sent = now;
            send_all(a->fd, a->request, (size_t)(a->head + size));
        }
    }
    double took = (double)(now_ns() - began) / 1e9;
    printf("{\"connections\": %d, \"appends\": %lld, \"seconds\": %.4f, \"appends_per_second\": %.0f, \"p50_ms\": %.3f, "
           "\"p99_ms\": %.3f}\n",
           count, (long long)accepted, took, (double)accepted / took, percentile(&latencies, 0.5),
           percentile(&latencies, 0.99));
    return 0;
}
