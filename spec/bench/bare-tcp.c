/* SPDX-License-Identifier: MIT
 *
 * Both ends of what `make bench` sends over TCP. The server takes what comes after an 's' and answers
 * its end with a byte, and sends back what comes after an 'e', byte by byte, one connection after
 * another. The client measures one way, by connections one after another, each with one question, and by
 * questions in one.
 *
 *     bench-bare-tcp serve PORT
 *     bench-bare-tcp ask ADDRESS PORT
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <unistd.h>

#include "bare.h"

enum { BLOCK = 1 << 17, BYTES = 1 << 29, CONNECTIONS = 1000, QUESTIONS = 10000 };

static char block[BLOCK];

static struct sockaddr_in address_of(const char *text, const char *port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };

    if (inet_pton(AF_INET, text, &a.sin_addr) != 1)
        die(text);
    return a;
}

static int connect_to(struct sockaddr_in to)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0)
        die("connect");
    return fd;
}

static void serve(const char *port)
{
    struct sockaddr_in here = address_of("127.0.0.1", port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        bind(fd, (struct sockaddr *)&here, sizeof(here)) < 0 || listen(fd, 128) < 0)
        die("listen");
    signal(SIGPIPE, SIG_IGN);
    puts("ready");
    fflush(stdout);
    for (;;) {
        int c = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        char what;

        if (c < 0)
            die("accept");
        (void)setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        if (read(c, &what, 1) == 1 && what == 's') {
            while (read(c, block, BLOCK) > 0) { }
            (void)!write(c, "", 1);
        } else {
            while (read(c, &what, 1) == 1 && write(c, &what, 1) == 1) { }
        }
        close(c);
    }
}

static void question(int fd, const char *text, size_t len)
{
    char answer;

    if (write(fd, text, len) != (ssize_t)len || read(fd, &answer, 1) != 1)
        die("question");
}

static double one_way(struct sockaddr_in to)
{
    int fd = connect_to(to);
    int64_t start = now();
    char answer;

    if (write(fd, "s", 1) != 1)
        die("write");
    for (size_t left = BYTES; left > 0;) {
        ssize_t n = write(fd, block, BLOCK);

        if (n < 0)
            die("write");
        left -= (size_t)n < left ? (size_t)n : left;
    }
    if (shutdown(fd, SHUT_WR) < 0 || read(fd, &answer, 1) != 1)
        die("answer");
    start = now() - start;
    close(fd);
    return BYTES / 1e6 / ((double)start / 1e9);
}

static double connections(struct sockaddr_in to)
{
    int64_t start = now();

    for (int i = 0; i < CONNECTIONS; i++) {
        int fd = connect_to(to);

        question(fd, "e?", 2);
        close(fd);
    }
    return CONNECTIONS / ((double)(now() - start) / 1e9);
}

static double questions(struct sockaddr_in to)
{
    int fd = connect_to(to);
    int64_t start;

    question(fd, "e?", 2);
    start = now();
    for (int i = 0; i < QUESTIONS; i++)
        question(fd, "?", 1);
    start = now() - start;
    close(fd);
    return (double)start / QUESTIONS / 1e3;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "serve") == 0) {
        serve(argv[2]);
    } else if (argc == 4 && strcmp(argv[1], "ask") == 0) {
        struct sockaddr_in to = address_of(argv[2], argv[3]);

        printf("{\"one_way\":%.3f,", one_way(to));
        printf("\"connections\":%.3f,", connections(to));
        printf("\"question\":%.3f}\n", questions(to));
        return 0;
    }
    return 2;
}
