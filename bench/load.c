/* load.c - closed-loop HTTP/1.1 load generator for JSON and SSE answers, one thread, epoll.
 *
 *   load -u http://127.0.0.1:PORT/path [-c 32] [-t 5] [-w 1] [-n calls] [-m fake-c20-d10] [-s] [-r ramp_seconds]
 *        [-p calls_per_second] [-H "name: value"]...
 *
 * -s sends "stream":true. -c is the number of connections, each with one request in flight.
 * -w warm-up, then -t measured seconds, or -n calls if these are done first. -r spreads the first
 * requests over that many seconds. -p offers so many calls a second over all connections, instead of
 * the next as soon as one is done; a call whose connection is still busy when it is due counts from then on.
 * Prints BEGIN and END around the measured window (the caller samples /proc there), then one
 * JSON line. All times in it are microseconds:
 *   lat    request sent -> last byte of the answer
 *   ttfb   request sent -> first body byte
 *   chunk  text delta written by provider.c -> read here (from the stamp inside the delta)
 *   wait   longest silence of an open request, one per connection, over the whole run: neither a slow
 *          accept during the ramp nor an answer that never ends may hide outside the window
 * hash is over status and body with the stamps blanked: equal hashes mean byte-identical answers.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD, BY_LENGTH, CHUNK_SIZE, CHUNK_DATA, CHUNK_CRLF, TRAILER, TO_CLOSE };

typedef struct {
    int fd, state, busy, keep, got_body, used;
    char head[16384]; int head_len;
    int64_t sent_at, start_at, left;         /* start_at: when the (next) request is due */
    int64_t heard_at, wait;                  /* last byte of the open request; longest silence so far */
    int line;                    /* bytes seen on the current chunk-size or trailer line */
    uint64_t hash;
    int stamp_digits; int64_t stamp; int deltas;
    size_t out_off;
} conn_t;

typedef struct { uint32_t *v; size_t n, cap; } samples_t;   /* units of 100 ns */

static conn_t *conns;
static char *req; static size_t req_len;
static struct sockaddr_in addr;
static int ep, draining, n_conn = 1;
static int64_t win_from, win_to;
static samples_t lat, ttfb, chunk, waits;
static int64_t period;                       /* between the calls of one connection; 0: no pause */
static long ended, calls_max, done, bad_status, broken, mismatched, reconnects, deltas, body_bytes, inflight;
static uint64_t first_hash; static int first_deltas, last_status;

static int64_t now_ns(void) {
    struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}
static void sample(samples_t *s, int64_t ns) {
    if (s->n == s->cap) s->v = realloc(s->v, 4 * (s->cap = s->cap ? s->cap * 2 : 1 << 16));
    s->v[s->n++] = ns < 0 ? 0 : ns / 100;
}
static int cmp(const void *a, const void *b) { uint32_t x = *(uint32_t *)a, y = *(uint32_t *)b; return x < y ? -1 : x > y; }
static void print_samples(const char *name, samples_t *s) {
    qsort(s->v, s->n, 4, cmp);
#define Q(q) (s->n ? s->v[(size_t)((s->n - 1) * (q))] / 10.0 : 0)
    printf(",\"%s\":{\"n\":%zu,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f}", name, s->n, Q(.5), Q(.9), Q(.99), Q(.999), Q(1));
}
static int in_window(int64_t t) { return t >= win_from && t < win_to; }

static void begin_request(conn_t *c, int64_t at);
static void open_conn(conn_t *c, int64_t at) {
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0); c->used = 0;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (void *)&addr, sizeof addr) && errno != EINPROGRESS) { perror("connect"); exit(1); }
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e);
    begin_request(c, at);
}
static void start(conn_t *c, int64_t at) { if (c->fd < 0) open_conn(c, at); else begin_request(c, at); }
static void push(conn_t *c) {
    ssize_t w = send(c->fd, req + c->out_off, req_len - c->out_off, MSG_NOSIGNAL);
    if (w > 0) c->out_off += w;
    if (c->out_off == req_len) {
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
        if (!c->used) epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
        c->used = 1;
    }
}
static void begin_request(conn_t *c, int64_t at) {
    c->state = HEAD; c->head_len = 0; c->got_body = 0; c->hash = 1469598103934665603ULL;
    c->stamp_digits = -1; c->deltas = 0; c->line = 0; c->out_off = 0; c->keep = 1;
    c->busy = 1; inflight++;
    c->sent_at = c->heard_at = at;
    push(c);
}
static void heard(conn_t *c, int64_t t) {
    if (t - c->heard_at > c->wait) c->wait = t - c->heard_at;
    c->heard_at = t;
}
static void end_request(conn_t *c, int64_t t) {
    c->busy = 0; inflight--;
    if (!first_hash) { first_hash = c->hash; first_deltas = c->deltas; }
    else if (c->hash != first_hash || c->deltas != first_deltas) mismatched++;
    if (++ended == calls_max) win_to = t;
    if (in_window(t)) { done++; sample(&lat, t - c->sent_at); }
    if (!c->keep) { close(c->fd); c->fd = -1; reconnects++; }
    if (draining) return;
    if (!period) start(c, now_ns());
    else if ((c->start_at += period) <= t) start(c, c->start_at);   /* else the main loop starts it */
}
static void fail(conn_t *c) {
    close(c->fd); c->fd = -1;
    if (!c->busy) return;                          /* an idle connection, closed while we drain */
    c->busy = 0; inflight--; heard(c, now_ns());
    if (c->used && !c->head_len) reconnects++; else broken++;   /* a kept-alive socket may be closed on us */
    if (!draining && broken < 1000) { usleep(1000); open_conn(c, now_ns()); }
}
static const char *header(conn_t *c, const char *name) {
    size_t n = strlen(name);
    for (char *p = c->head; (p = strchr(p, '\n')); ) {
        p++;
        if (!strncasecmp(p, name, n) && p[n] == ':') { p += n + 1; while (*p == ' ') p++; return p; }
    }
    return NULL;
}
/* Feed body bytes: hash them with stamps blanked, and time the stamps. */
static void body(conn_t *c, const char *p, size_t n, int64_t t) {
    if (!c->got_body) { c->got_body = 1; if (in_window(t)) sample(&ttfb, t - c->sent_at); }
    if (in_window(t)) body_bytes += n;
    uint64_t h = c->hash;
    for (size_t i = 0; i < n; i++) {
        unsigned char b = p[i];
        if (c->stamp_digits >= 0 && b >= '0' && b <= '9' && c->stamp_digits < 18) { c->stamp = c->stamp * 10 + b - '0'; c->stamp_digits++; continue; }
        if (b == '@') {
            if (c->stamp_digits == 18) { c->deltas++; if (in_window(t)) { deltas++; sample(&chunk, t - c->stamp); } c->stamp_digits = -1; }
            else { c->stamp_digits = 0; c->stamp = 0; }
        } else c->stamp_digits = -1;
        h = (h ^ b) * 1099511628211ULL;
    }
    c->hash = h;
}
/* Returns 1 when the answer is complete. */
static int feed(conn_t *c, const char *p, size_t n, int64_t t) {
    while (n) {
        if (c->state == HEAD) {
            size_t room = sizeof c->head - 1 - c->head_len, k = n < room ? n : room;
            if (!room) { fprintf(stderr, "answer head too long\n"); exit(1); }
            memcpy(c->head + c->head_len, p, k); c->head[c->head_len + k] = 0;
            char *end = strstr(c->head + (c->head_len > 3 ? c->head_len - 3 : 0), "\r\n\r\n");
            if (!end) { c->head_len += k; return 0; }
            size_t took = end + 4 - c->head - c->head_len;
            c->head_len += took; p += took; n -= took; end[2] = 0;
            int status = atoi(c->head + 9);
            if (status >= 100 && status < 200) { c->head_len = 0; continue; }
            last_status = status;
            if (status != 200) bad_status++;
            c->hash = (c->hash ^ status) * 1099511628211ULL;
            const char *te = header(c, "transfer-encoding"), *cl = header(c, "content-length"), *cn = header(c, "connection");
            c->keep = !(cn && !strncasecmp(cn, "close", 5));
            if (te && !strncasecmp(te, "chunked", 7)) { c->state = CHUNK_SIZE; c->left = 0; c->line = 0; }
            else if (cl) { c->state = BY_LENGTH; c->left = atoll(cl); if (!c->left) return 1; }
            else { c->state = TO_CLOSE; c->keep = 0; }
        } else if (c->state == BY_LENGTH || c->state == CHUNK_DATA) {
            size_t k = (int64_t)n < c->left ? n : (size_t)c->left;
            body(c, p, k, t); p += k; n -= k; c->left -= k;
            if (!c->left) { if (c->state == BY_LENGTH) return 1; c->state = CHUNK_CRLF; c->line = 0; }
        } else if (c->state == TO_CLOSE) { body(c, p, n, t); return 0; }
        else {
            char b = *p++; n--;
            if (c->state == CHUNK_CRLF) { if (b == '\n') { c->state = CHUNK_SIZE; c->left = 0; c->line = 0; } }
            else if (c->state == CHUNK_SIZE) {
                if (b == '\n') { c->state = c->left ? CHUNK_DATA : TRAILER; c->line = 0; }
                else if (b == ';') c->line = 1;
                else if (b != '\r' && !c->line) c->left = c->left * 16 + (b <= '9' ? b - '0' : (b | 32) - 'a' + 10);
            } else if (c->state == TRAILER) {
                if (b == '\n') { if (!c->line) return 1; c->line = 0; } else if (b != '\r') c->line = 1;
            }
        }
    }
    return 0;
}

int main(int argc, char **argv) {
    const char *url = NULL, *model = "fake";
    double secs = 5, warm = 1, ramp = 0, pace = 0; int stream = 0, o, extra_len = 0;
    static char extra[8192];
    while ((o = getopt(argc, argv, "u:c:t:w:n:m:r:p:H:s")) != -1) switch (o) {
        case 'u': url = optarg; break;       case 'c': n_conn = atoi(optarg); break;
        case 't': secs = atof(optarg); break; case 'w': warm = atof(optarg); break;
        case 'm': model = optarg; break;     case 'n': calls_max = atol(optarg); break;
        case 'r': ramp = atof(optarg); break; case 's': stream = 1; break;
        case 'p': pace = atof(optarg); break;
        case 'H':
            if (extra_len + strlen(optarg) + 3 > sizeof extra) { fprintf(stderr, "headers too long\n"); return 2; }
            extra_len += sprintf(extra + extra_len, "%s\r\n", optarg); break;
        default: return 2;
    }
    int port, off = 0;
    if (!url || sscanf(url, "http://127.0.0.1:%d%n", &port, &off) != 1) { fprintf(stderr, "need -u http://127.0.0.1:PORT/path\n"); return 2; }
    addr = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    static char payload[1 << 20]; int n;
    n = sprintf(payload, "{\"model\":\"%s\",%s\"messages\":[{\"role\":\"system\",\"content\":\"You are a careful assistant who "
        "answers in plain words, cites the document given, and says so when the document does not hold the answer.\"},{\"role\":"
        "\"user\",\"content\":\"Summarise in three sentences why a gateway between an application and its language model provider "
        "should keep its own log of every call, what it must never do to the bytes that pass through it, and how an operator would "
        "notice that it had begun to add delay to streamed answers.\"}],\"temperature\":0.2,\"max_tokens\":512}", model,
        stream ? "\"stream\":true,\"stream_options\":{\"include_usage\":true}," : "");
    req = malloc(n + 16384);
    /* the header set that the official Python SDK sends */
    req_len = sprintf(req, "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept-Encoding: identity\r\nConnection: keep-alive\r\n"
        "Accept: application/json\r\nContent-Type: application/json\r\nUser-Agent: OpenAI/Python 1.99.0\r\n"
        "X-Stainless-Lang: python\r\nX-Stainless-Package-Version: 1.99.0\r\nX-Stainless-OS: Linux\r\nX-Stainless-Arch: x64\r\n"
        "X-Stainless-Runtime: CPython\r\nX-Stainless-Runtime-Version: 3.12.1\r\nX-Stainless-Async: false\r\n"
        "x-stainless-retry-count: 0\r\nx-stainless-read-timeout: 600\r\nAuthorization: Bearer sk-bench-0123456789abcdef\r\n"
        "%sContent-Length: %d\r\n\r\n", url + off, port, extra, n);
    memcpy(req + req_len, payload, n); req_len += n;
    signal(SIGPIPE, SIG_IGN);
    ep = epoll_create1(0);
    conns = calloc(n_conn, sizeof *conns);
    int64_t t0 = now_ns();
    win_from = t0 + (int64_t)((warm + ramp) * 1e9); win_to = win_from + (int64_t)(secs * 1e9);
    if (pace) period = n_conn / pace * 1e9;
    double spread = pace ? period : ramp * 1e9;
    for (int i = 0; i < n_conn; i++) { conns[i].fd = -1; conns[i].start_at = t0 + (int64_t)(spread * i / n_conn); }
    int opened = 0, begun = 0; static char buf[1 << 18]; struct epoll_event evs[512];
    for (;;) {
        int64_t now = now_ns();
        while (opened < n_conn && conns[opened].start_at <= now) open_conn(&conns[opened++], now);
        if (!begun && now >= win_from) { begun = 1; puts("BEGIN"); fflush(stdout); }
        if (begun && !draining && now >= win_to) { draining = 1; puts("END"); fflush(stdout); }
        if (draining && (inflight <= 0 || now > win_to + 15000000000LL)) break;
        int64_t pause = opened < n_conn ? 1000000 : 5000000;
        for (int i = 0; period && !draining && i < opened; i++) {
            if (conns[i].busy) continue;
            int64_t left = conns[i].start_at - now;
            if (left <= 0) start(&conns[i], now); else if (left < pause) pause = left;
        }
        struct timespec wait = {0, pause};
        int k = epoll_pwait2(ep, evs, 512, &wait, NULL);
        for (int i = 0; i < k; i++) {
            conn_t *c = evs[i].data.ptr;
            if (c->fd < 0) continue;
            if (evs[i].events & EPOLLOUT) push(c);
            if (!(evs[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP))) continue;
            ssize_t r = recv(c->fd, buf, sizeof buf, 0);
            if (r < 0 && errno == EAGAIN) continue;
            int64_t t = now_ns();
            if (c->busy && r > 0) heard(c, t);
            if (r > 0 && c->busy) { if (feed(c, buf, r, t)) end_request(c, t); }
            else if (r == 0 && c->busy && c->state == TO_CLOSE) end_request(c, t);
            else fail(c);
        }
    }
    for (int i = 0; i < opened; i++) { if (conns[i].busy) heard(&conns[i], now_ns()); sample(&waits, conns[i].wait); }
    secs = (win_to - win_from) / 1e9;               /* shorter than asked for when -n was done first */
    printf("{\"conns\":%d,\"ended\":%ld,\"secs\":%g,\"done\":%ld,\"rps\":%.1f,\"bad_status\":%ld,\"last_status\":%d,\"broken\":%ld,"
           "\"unfinished\":%ld,\"mismatched\":%ld,\"reconnects\":%ld,\"deltas\":%ld,\"deltas_per_s\":%.1f,\"deltas_per_answer\":%d,"
           "\"mb_per_s\":%.2f,\"hash\":\"%016llx\"", n_conn, ended, secs, done, done / secs, bad_status, last_status, broken, inflight,
           mismatched, reconnects, deltas, deltas / secs, first_deltas, body_bytes / secs / 1e6, (unsigned long long)first_hash);
    print_samples("lat", &lat); print_samples("ttfb", &ttfb); print_samples("chunk", &chunk);
    print_samples("wait", &waits);
    puts("}");
    return 0;
}
