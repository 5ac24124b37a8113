/* provider.c - a fake LLM provider that is fast enough never to be the bottleneck.
 *
 *   provider PORT            single thread, epoll, HTTP/1.1 keep-alive, loopback only
 *
 * Every POST is a chat completion in OpenAI's form: JSON, or SSE when the body says "stream":true.
 * The model's name chooses the answer: "fake-c200-d10" = 200 chunks, 10 ms between them.
 *
 * Every text delta begins with @<18 digits>@, the CLOCK_MONOTONIC nanosecond at which it was
 * written. The load generator subtracts it from its own clock, so the delay of each chunk is
 * measured one way, and blanks it when it compares bytes.
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

#define MAXFD 20000
enum { IDLE, WAITING, STREAMING, FLUSHING };

typedef struct {
    int fd, state, stream, close_after;
    unsigned gen;                       /* guards against stale timers after a close */
    char *in; size_t in_len, in_cap;    /* request bytes not yet consumed */
    char *out; size_t out_len, out_off; /* response bytes the socket did not take */
    int chunks, sent;
    int64_t delay, due;
} conn_t;

typedef struct { int64_t due; int fd; unsigned gen; } timer_entry;

static conn_t conns[MAXFD];
static timer_entry *heap; static int heap_n, heap_cap;
static int ready[MAXFD], ready_n;       /* streams with no delay, stepped once per loop */
static int ep;
static char *json_resp; static size_t json_len;
enum { CHUNKS = 20 };                   /* of a stream whose model names no number */

static int64_t now_ns(void) {
    struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* ---- timers: a binary heap ---- */
static void timer_add(int64_t due, int fd) {
    if (heap_n == heap_cap) heap = realloc(heap, sizeof *heap * (heap_cap = heap_cap ? heap_cap * 2 : 1024));
    int i = heap_n++;
    while (i && heap[(i - 1) / 2].due > due) { heap[i] = heap[(i - 1) / 2]; i = (i - 1) / 2; }
    heap[i] = (timer_entry){due, fd, conns[fd].gen};
}
static timer_entry timer_pop(void) {
    timer_entry top = heap[0], last = heap[--heap_n];
    int i = 0, k;
    while ((k = 2 * i + 1) < heap_n) {
        if (k + 1 < heap_n && heap[k + 1].due < heap[k].due) k++;
        if (heap[k].due >= last.due) break;
        heap[i] = heap[k]; i = k;
    }
    heap[i] = last;
    return top;
}

/* ---- canned bytes ---- */
static const char *WORDS =
    " the gateway copies every byte of this answer and keeps none of them waiting while a log line"
    " is written";
static const char *COMMON =
    "date: Mon, 01 Jan 2024 00:00:00 GMT\r\nserver: fake\r\nopenai-organization: bench\r\n"
    "openai-processing-ms: 12\r\nopenai-version: 2020-10-01\r\nx-request-id: req_0123456789abcdef\r\n"
    "x-ratelimit-limit-requests: 10000\r\nx-ratelimit-remaining-requests: 9999\r\n"
    "x-ratelimit-limit-tokens: 2000000\r\nx-ratelimit-remaining-tokens: 1999000\r\n"
    "strict-transport-security: max-age=31536000\r\nx-content-type-options: nosniff\r\n";

static void make_json(void) {
    static char body[8192], text[1024]; int n = 0;
    for (int i = 0; i < 6; i++) n += sprintf(text + n, "%s", WORDS);
    snprintf(body, sizeof body,
        "{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion\",\"created\":1704067200,"
        "\"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
        "\"content\":\"%s\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
        "\"usage\":{\"prompt_tokens\":120,\"completion_tokens\":128,\"total_tokens\":248,"
        "\"prompt_tokens_details\":{\"cached_tokens\":0,\"audio_tokens\":0}},"
        "\"service_tier\":\"default\",\"system_fingerprint\":\"fp_bench\"}", text);
    json_resp = malloc(strlen(body) + 2048);
    json_len = sprintf(json_resp, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                                  "content-length: %zu\r\n%s\r\n%s", strlen(body), COMMON, body);
}

/* One HTTP chunk around the text in p; returns the new length. */
static int http_chunk(char *dst, const char *p, int n) {
    int h = sprintf(dst, "%x\r\n", n);
    memcpy(dst + h, p, n); memcpy(dst + h + n, "\r\n", 2);
    return h + n + 2;
}
static int sse_delta(char *p) {
    int64_t t = now_ns();
    return sprintf(p, "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1704067200,"
                      "\"model\":\"gpt-4o-mini-2024-07-18\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_bench\","
                      "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"@%018lld@%s\"},\"logprobs\":null,"
                      "\"finish_reason\":null}],\"usage\":null}\n\n", (long long)t, WORDS);
}
static int sse_head(char *p) {
    return sprintf(p, "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1704067200,"
                      "\"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\","
                          "\"content\":\"\"},\"finish_reason\":null}],\"usage\":null}\n\n");
}
static int sse_tail(conn_t *c, char *p) {
    return sprintf(p, "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1704067200,"
                          "\"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[{\"index\":0,\"delta\":{},"
                          "\"finish_reason\":\"stop\"}],\"usage\":null}\n\n"
                          "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1704067200,"
                          "\"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[],\"usage\":{\"prompt_tokens\":120,"
                          "\"completion_tokens\":%d,\"total_tokens\":%d}}\n\ndata: [DONE]\n\n",
                       c->chunks * 20, c->chunks * 20 + 120);
}

/* ---- connections ---- */
static void watch(conn_t *c, uint32_t ev) {
    struct epoll_event e = {.events = ev, .data.fd = c->fd};
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
}
static void drop(conn_t *c) {
    close(c->fd);
    free(c->in); free(c->out);
    unsigned gen = c->gen + 1;
    memset(c, 0, sizeof *c); c->fd = -1; c->gen = gen;
}
/* Send now; keep what the socket refuses. Returns -1 if the connection died. */
static int send_or_keep(conn_t *c, const char *p, size_t n) {
    ssize_t w = send(c->fd, p, n, MSG_NOSIGNAL);
    if (w < 0) { if (errno != EAGAIN) { drop(c); return -1; } w = 0; }
    if ((size_t)w < n) {
        c->out = malloc(n - w); memcpy(c->out, p + w, n - w);
        c->out_len = n - w; c->out_off = 0;
        watch(c, EPOLLIN | EPOLLOUT);
    }
    return 0;
}
static void next_request(conn_t *c);
static void finish(conn_t *c) {
    c->state = IDLE;
    if (c->close_after) { drop(c); return; }
    next_request(c);
}
static void schedule(conn_t *c) {
    if (c->delay) { timer_add(c->due, c->fd); }
    else ready[ready_n++] = c->fd;
}
/* Begin the answer (head), or send the next piece of a stream. */
static void step(conn_t *c) {
    char raw[4096], buf[8192]; int n, h = 0;
    if (c->state == WAITING) {
        if (!c->stream) {
            c->state = FLUSHING;
            if (send_or_keep(c, json_resp, json_len)) return;
            if (!c->out) finish(c);
            return;
        }
        c->state = STREAMING; c->sent = 0; c->due = now_ns();
        h = sprintf(buf, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                         "cache-control: no-cache\r\ntransfer-encoding: chunked\r\n%s\r\n", COMMON);
        n = sse_head(raw);
    } else if (c->sent < c->chunks) { n = sse_delta(raw); c->sent++; }
    else { n = sse_tail(c, raw); c->sent++; }
    n = h + http_chunk(buf + h, raw, n);
    int last = c->sent > c->chunks;
    if (last) { memcpy(buf + n, "0\r\n\r\n", 5); n += 5; c->state = FLUSHING; }
    if (send_or_keep(c, buf, n)) return;
    if (c->out) return;                 /* resumed by EPOLLOUT */
    if (last) { finish(c); return; }
    if (h) { step(c); return; }         /* first text right behind the head */
    int64_t now = now_ns();
    c->due += c->delay; if (c->due < now) c->due = now;
    schedule(c);
}
static void flush_out(conn_t *c) {
    ssize_t w = send(c->fd, c->out + c->out_off, c->out_len - c->out_off, MSG_NOSIGNAL);
    if (w < 0) { if (errno != EAGAIN) drop(c); return; }
    c->out_off += w;
    if (c->out_off < c->out_len) return;
    free(c->out); c->out = NULL; watch(c, EPOLLIN);
    if (c->state == FLUSHING) finish(c); else schedule(c);
}

/* ---- requests ---- */
static const char *find_header(const char *head, const char *end, const char *name) {
    size_t n = strlen(name);
    for (const char *p = head; (p = memchr(p, '\n', end - p)); ) {
        p++;
        if ((size_t)(end - p) > n && !strncasecmp(p, name, n) && p[n] == ':') { p += n + 1; while (*p == ' ') p++; return p; }
    }
    return NULL;
}
/* Decode a chunked body in place. Returns the bytes of input used, 0 if incomplete. */
static size_t dechunk(char *b, size_t len, size_t *out_len) {
    size_t i = 0, o = 0;
    for (;;) {
        char *nl = memmem(b + i, len - i, "\r\n", 2);
        if (!nl) return 0;
        size_t n = strtoul(b + i, NULL, 16), at = nl - b + 2;
        if (at + n + 2 > len) return 0;
        if (!n) { *out_len = o; return at + 2; }
        memmove(b + o, b + at, n); o += n; i = at + n + 2;
    }
}
static void knobs(conn_t *c, const char *p, const char *end) {
    for (; p + 2 < end && *p != '"'; p++) {
        if (p[0] != '-' || p[2] < '0' || p[2] > '9') continue;
        if (p[1] == 'c') c->chunks = atoi(p + 2);
        else if (p[1] == 'd') c->delay = atoi(p + 2) * 1000000LL;
    }
}
static int has_true(const char *b, size_t n, const char *key) {
    const char *p = memmem(b, n, key, strlen(key)), *e = b + n;
    if (!p) return 0;
    for (p += strlen(key); p < e && (*p == ' ' || *p == ':'); p++);
    return e - p >= 4 && !memcmp(p, "true", 4);
}
static void next_request(conn_t *c) {
    if (!c->in_len) return;
    char *hend = memmem(c->in, c->in_len, "\r\n\r\n", 4);
    if (!hend) return;
    char *body = hend + 4; size_t avail = c->in + c->in_len - body, body_len = 0, used;
    const char *te = find_header(c->in, hend, "transfer-encoding"), *cl = find_header(c->in, hend, "content-length");
    if (te && !strncasecmp(te, "chunked", 7)) {
        /* decode only when the terminator has come, as dechunk works in place */
        if (avail < 5 || memcmp(body + avail - 5, "0\r\n\r\n", 5)) return;
        if (!(used = dechunk(body, avail, &body_len))) return;
    } else {
        used = body_len = cl ? strtoul(cl, NULL, 10) : 0;
        if (avail < body_len) return;
    }
    const char *cn = find_header(c->in, hend, "connection");
    c->close_after = cn && !strncasecmp(cn, "close", 5);
    c->chunks = CHUNKS; c->delay = 0;
    const char *m = memmem(body, body_len, "\"model\"", 7);
    if (m) {
        m += 7; while (m < body + body_len && (*m == ' ' || *m == ':' || *m == '"')) m++;
        knobs(c, m, body + body_len);
    }
    c->stream = has_true(body, body_len, "\"stream\"");
    size_t total = body - c->in + used;
    memmove(c->in, c->in + total, c->in_len - total); c->in_len -= total;
    c->state = WAITING;
    step(c);
}
static void readable(conn_t *c) {
    for (;;) {
        if (c->in_cap - c->in_len < 4096) c->in = realloc(c->in, c->in_cap = c->in_cap * 2 + 8192);
        ssize_t n = recv(c->fd, c->in + c->in_len, c->in_cap - c->in_len, 0);
        if (n < 0) { if (errno != EAGAIN) { drop(c); return; } break; }
        if (n == 0) { drop(c); return; }
        c->in_len += n;
        if (c->in_len < c->in_cap) break;
    }
    if (c->state == IDLE) next_request(c);
}

int main(int argc, char **argv) {
    if (argc < 2) { fprintf(stderr, "usage: provider PORT\n"); return 2; }
    signal(SIGPIPE, SIG_IGN);
    make_json();
    for (int i = 0; i < MAXFD; i++) conns[i].fd = -1;
    int ls = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(ls, (void *)&a, sizeof a) || listen(ls, 4096)) { perror("provider"); return 1; }
    ep = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = ls}, evs[512];
    epoll_ctl(ep, EPOLL_CTL_ADD, ls, &e);
    for (;;) {
        struct timespec wait = {0, 0}, *tp = NULL;
        if (ready_n) tp = &wait;
        else if (heap_n) {
            int64_t d = heap[0].due - now_ns();
            if (d > 0) { wait.tv_sec = d / 1000000000; wait.tv_nsec = d % 1000000000; }
            tp = &wait;
        }
        int n = epoll_pwait2(ep, evs, 512, tp, NULL);
        for (int i = 0; i < n; i++) {
            int fd = evs[i].data.fd;
            if (fd == ls) {
                int k;
                while ((k = accept4(ls, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    if (k >= MAXFD) { close(k); continue; }
                    setsockopt(k, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    conns[k].fd = k;
                    e.events = EPOLLIN; e.data.fd = k; epoll_ctl(ep, EPOLL_CTL_ADD, k, &e);
                }
                continue;
            }
            conn_t *c = &conns[fd];
            if (c->fd >= 0 && (evs[i].events & EPOLLOUT) && c->out) flush_out(c);
            if (c->fd >= 0 && (evs[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP))) readable(c);
        }
        /* streams without delay: each takes one step, then the sockets get a turn */
        static int turn[MAXFD]; int m = ready_n;
        memcpy(turn, ready, m * sizeof *turn); ready_n = 0;
        for (int i = 0; i < m; i++) if (conns[turn[i]].fd >= 0 && conns[turn[i]].state == STREAMING) step(&conns[turn[i]]);
        int64_t now = now_ns();
        while (heap_n && heap[0].due <= now) {
            timer_entry t = timer_pop();
            conn_t *c = &conns[t.fd];
            if (c->fd >= 0 && c->gen == t.gen && (c->state == WAITING || c->state == STREAMING)) step(c);
        }
    }
}
