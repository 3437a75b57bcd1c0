/* The limit of moving bytes: a server that sends a buffer and throws away what it is sent, one connection at a time.

   bytes PORT SIZE */
#include "common.h"

#define PIECE (1 << 20)

int main(int argc, char **argv) {
    if (argc < 3) die("bytes PORT SIZE");
    long long size = atoll(argv[2]);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64)) die("%s", strerror(errno));
    char *piece = calloc(1, PIECE), in[65536];
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0) continue;
        size_t held = 0;
        char *end = NULL;
        while (!end && held < sizeof in - 1) {
            ssize_t got = recv(fd, in + held, sizeof in - 1 - held, 0);
            if (got <= 0) break;
            held += (size_t)got;
            in[held] = 0;
            end = strstr(in, "\r\n\r\n");
        }
        if (end && in[0] == 'P') {
            char *length = strcasestr(in, "content-length:");
            long long left = (length ? atoll(length + 15) : 0) - (long long)(in + held - end - 4);
            if (strcasestr(in, "expect: 100-continue")) send_all(fd, "HTTP/1.1 100 Continue\r\n\r\n", 25);
            while (left > 0) {
                ssize_t got = recv(fd, piece, PIECE, 0);
                if (got <= 0) break;
                left -= got;
            }
            send_all(fd, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 57);
        } else if (end) {
            char head[200];
            long long body = strstr(in, "/readyz") ? 0 : size;
            int bytes = snprintf(head, sizeof head,
                                 "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %lld\r\n\r\n", body);
            send_all(fd, head, (size_t)bytes);
            for (long long left = body; left > 0; left -= PIECE) {
                long long part = left < PIECE ? left : PIECE;
                ssize_t sent = 0;
                while (sent < part) {
                    ssize_t n = send(fd, piece + sent, (size_t)(part - sent), MSG_NOSIGNAL);
                    if (n <= 0) break;
                    sent += n;
                }
                if (sent < part) break;
            }
        }
        close(fd);
    }
}
