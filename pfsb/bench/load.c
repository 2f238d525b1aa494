/* Load client of pfsb bench: a closed loop over the line protocol, with one thread and epoll.
 *
 * With a rate, the loop is an open one: operations are due whether earlier ones are answered or not.
 *
 * The workload comes on standard input, as pfsb/bench/workload.py writes it. The client prints "begin" and "end" around
 * the measured time, so that its reader can look at the servers at those moments, and then one JSON object.
 * plain_load.py is the same program in Python; the two agree in everything but speed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define TARGETS_MAX 64
#define OPERATIONS_MAX 16
#define STEPS_MAX 4
#define READ_BYTES 262144
#define SUB_BUCKETS 64 /* as in histogram.py */
#define BUCKETS (SUB_BUCKETS * 60)
#define EVENTS_MAX 512

struct operation {
    int weight, steps;
    char *step[STEPS_MAX];
    size_t size[STEPS_MAX];
};

/* One operation under way on a connection. Replies come in the order of the requests. */
struct pending {
    int64_t begun_ns;
    int operation, step;
};

struct connection {
    int fd, index, wants_write, is_known;
    struct pending *ring;
    unsigned head, tail; /* ring[head % depth] is the oldest */
    char *out;
    size_t out_size, out_room, out_sent;
    int inside_line, kind; /* kind: first character of the line that is being read */
    char error[160];       /* the line that is being read, if it is an error */
    size_t error_size;
};

static struct { char host[256], port[16]; } targets[TARGETS_MAX];
static struct operation operations[OPERATIONS_MAX];
static int target_count, operation_count, weight_sum, connections = 1, depth = 1, sequential;
static char *token; /* shown by AUTH on each connection before anything else; none: nothing is shown */
static long long count, keys = 1;
static double seconds = 1, warmup, limit = 120, rate;

static uint64_t histogram[BUCKETS];
static uint64_t answered, errors, missed, dice_state = 88172645463325252ULL;
static long long issued, under_way, next_key;
static char first_error[160];
static int measuring, stopping, strangers; /* strangers: number of connections that have had no answer yet */

static void die(const char *form, ...) {
    va_list arguments;
    va_start(arguments, form);
    vfprintf(stderr, form, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(2);
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static double cpu_seconds(void) {
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return r.ru_utime.tv_sec + r.ru_stime.tv_sec + (r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

static uint64_t dice(void) {
    dice_state ^= dice_state << 13;
    dice_state ^= dice_state >> 7;
    dice_state ^= dice_state << 17;
    return dice_state;
}

/* Buckets of latencies: one for each nanosecond below 128 ns, then 64 for each doubling, at most 1.6 % wide. */
static int bucket(uint64_t ns) {
    int shift = 0;
    while ((ns >> shift) >= 2 * SUB_BUCKETS) shift++;
    int found = shift * SUB_BUCKETS + (int)(ns >> shift);
    return found < BUCKETS ? found : BUCKETS - 1;
}

/* ------------------------------------------------------------------ reading the workload */

static char *read_line(void) {
    static char *line;
    static size_t room;
    ssize_t n = getline(&line, &room, stdin);
    if (n <= 0) die("the workload ends too early");
    if (line[n - 1] == '\n') line[n - 1] = 0;
    return line;
}

static void read_operation(const char *words) {
    if (operation_count == OPERATIONS_MAX) die("more than %d operations", OPERATIONS_MAX);
    struct operation *o = &operations[operation_count++];
    if (sscanf(words, "%d %d", &o->weight, &o->steps) != 2 || o->steps < 1 || o->steps > STEPS_MAX)
        die("not an operation: %s", words);
    for (int i = 0; i < o->steps; i++) {
        o->step[i] = strdup(read_line());
        o->size[i] = strlen(o->step[i]);
    }
    weight_sum += o->weight;
}

static void read_workload(void) {
    char name[32];
    int at;
    for (;;) {
        char *line = read_line();
        if (sscanf(line, "%31s %n", name, &at) != 1) die("not a setting: %s", line);
        const char *value = line + at;
        if (!strcmp(name, "end")) return;
        else if (!strcmp(name, "target")) {
            if (target_count == TARGETS_MAX) die("more than %d targets", TARGETS_MAX);
            if (sscanf(value, "%255s %15s", targets[target_count].host, targets[target_count].port) != 2)
                die("not a target: %s", value);
            target_count++;
        } else if (!strcmp(name, "operation")) read_operation(value);
        else if (!strcmp(name, "connections")) connections = atoi(value);
        else if (!strcmp(name, "depth")) depth = atoi(value);
        else if (!strcmp(name, "count")) count = atoll(value);
        else if (!strcmp(name, "keys")) keys = atoll(value);
        else if (!strcmp(name, "sequential")) sequential = atoi(value);
        else if (!strcmp(name, "seconds")) seconds = atof(value);
        else if (!strcmp(name, "warmup")) warmup = atof(value);
        else if (!strcmp(name, "rate")) rate = atof(value);
        else if (!strcmp(name, "limit")) limit = atof(value);
        else if (!strcmp(name, "token")) token = strdup(value);
        else if (!strcmp(name, "seed")) dice_state ^= strtoull(value, 0, 10) * 0x9E3779B97F4A7C15ULL;
        else die("unknown setting %s", name);
    }
}

/* ------------------------------------------------------------------ sending */

/* Adds one step's line: %k becomes a key's number, %c that of the connection. */
static void put_step(struct connection *c, int operation, int step) {
    struct operation *o = &operations[operation];
    const char *from = o->step[step], *end = from + o->size[step], *mark;
    size_t needed = c->out_size + o->size[step] + 64;
    if (needed > c->out_room) {
        c->out_room = needed * 2;
        if (!(c->out = realloc(c->out, c->out_room))) die("no memory");
    }
    char *to = c->out + c->out_size;
    while ((mark = memchr(from, '%', end - from)) && mark + 1 < end) {
        memcpy(to, from, mark - from);
        to += mark - from;
        long long value = c->index;
        if (mark[1] == 'k') value = sequential ? next_key++ % keys : (long long)(dice() % keys);
        char digits[24];
        int n = snprintf(digits, sizeof digits, "%08lld", value);
        memcpy(to, digits, n);
        to += n;
        from = mark + 2;
    }
    memcpy(to, from, end - from);
    to += end - from;
    *to++ = '\n';
    c->out_size = to - c->out;
}

static void begin_one(struct connection *c, int64_t now) {
    if (stopping || (count && issued >= count)) return;
    int chosen = 0, thrown = weight_sum > 1 ? (int)(dice() % weight_sum) : 0;
    while (thrown >= operations[chosen].weight) thrown -= operations[chosen++].weight;
    c->ring[c->tail++ % depth] = (struct pending){now, chosen, 0};
    issued++;
    under_way++;
    put_step(c, chosen, 0);
}

static void flush(int poll, struct connection *c) {
    while (c->out_sent < c->out_size) {
        ssize_t n = write(c->fd, c->out + c->out_sent, c->out_size - c->out_sent);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) break;
        if (n < 0) die("a connection broke: %s", strerror(errno));
        c->out_sent += n;
    }
    int wants = c->out_sent < c->out_size;
    if (!wants) c->out_sent = c->out_size = 0;
    if (wants != c->wants_write) {
        struct epoll_event event = {.events = EPOLLIN | (wants ? EPOLLOUT : 0), .data.ptr = c};
        epoll_ctl(poll, EPOLL_CTL_MOD, c->fd, &event);
        c->wants_write = wants;
    }
}

/* ------------------------------------------------------------------ receiving */

static void replied(struct connection *c, int is_error, int64_t now) {
    if (c->head == c->tail) die("a server said, without being asked: %s", is_error ? c->error : "OK");
    strangers -= !c->is_known;
    c->is_known = 1;
    struct pending *p = &c->ring[c->head % depth];
    if (is_error) {
        if (measuring) errors++;
        if (!first_error[0]) memcpy(first_error, c->error, sizeof first_error);
    } else if (p->step + 1 < operations[p->operation].steps) {
        struct pending next = {p->begun_ns, p->operation, p->step + 1};
        c->head++;
        c->ring[c->tail++ % depth] = next;
        put_step(c, next.operation, next.step);
        return;
    } else if (measuring) {
        answered++;
        histogram[bucket(now - p->begun_ns)]++;
    }
    c->head++;
    under_way--;
    if (rate <= 0) begin_one(c, now);
}

/* OK and ERR end a reply; lines of events ("*") and rows ("+") do not. */
static void take(struct connection *c, const char *data, size_t size, int64_t now) {
    const char *end = data + size;
    while (data < end) {
        if (!c->inside_line) {
            c->inside_line = 1;
            c->kind = *data;
            c->error_size = 0;
        }
        const char *mark = memchr(data, '\n', end - data);
        const char *stop = mark ? mark : end;
        if (c->kind == 'E') {
            size_t room = sizeof c->error - 1 - c->error_size, n = stop - data;
            if (n > room) n = room;
            memcpy(c->error + c->error_size, data, n);
            c->error[c->error_size += n] = 0;
        }
        if (!mark) return;
        c->inside_line = 0;
        if (c->kind == 'O' || c->kind == 'E') replied(c, c->kind == 'E', now);
        data = mark + 1;
    }
}

static void serve(int poll, struct connection *c) {
    static char data[READ_BYTES];
    ssize_t n = read(c->fd, data, sizeof data);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) die("a server closed a connection%s%s", first_error[0] ? ", after: " : "", first_error);
    take(c, data, n, now_ns());
    flush(poll, c);
}

/* ------------------------------------------------------------------ the open loop */

/* The next connection in turn that has less than depth under way; none if all are full. */
static struct connection *next_with_room(struct connection *all) {
    static int next;
    for (int tried = 0; tried < connections; tried++) {
        struct connection *c = &all[next];
        next = (next + 1) % connections;
        if (c->tail - c->head < (unsigned)depth) return c;
    }
    return 0;
}

/* Begins the operations that have become due since the last call; returns the seconds until the next one is due. */
static double begin_due(int poll, struct connection *all, int64_t started) {
    static long long due;
    static struct connection **touched;
    if (!touched && !(touched = calloc(connections, sizeof *touched))) die("no memory");
    int touched_count = 0;
    long long wanted = (long long)((now_ns() - started) / 1e9 * rate);
    while (due < wanted) {
        struct connection *c = next_with_room(all);
        if (!c) {
            if (measuring) missed += wanted - due;
            due = wanted;
            break;
        }
        /* With bytes left to send, the connection waits for room in its socket, or is in touched already. */
        if (c->out_size == 0) touched[touched_count++] = c;
        begin_one(c, started + (int64_t)(++due / rate * 1e9));
    }
    while (touched_count) flush(poll, touched[--touched_count]);
    return (due + 1) / rate - (now_ns() - started) / 1e9;
}

/* ------------------------------------------------------------------ the run */

/* Shows the token on a new connection, and waits until the server has taken it. The reply ends the bytes that a server
 * sends unasked, so they are read one by one. */
static void show_token(int fd) {
    struct timeval patience = {.tv_sec = (time_t)limit};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (dprintf(fd, "AUTH %s\n", token) < 0) die("a connection broke: %s", strerror(errno));
    char line[160];
    for (size_t size = 0;;) {
        char c;
        if (read(fd, &c, 1) != 1) die("a server has not answered AUTH");
        if (c != '\n') {
            if (size < sizeof line - 1) line[size++] = c;
            continue;
        }
        line[size] = 0;
        if (line[0] == 'E') die("a server said: %s", line);
        if (line[0] == 'O') return;
        size = 0;
    }
}

static void open_connection(int poll, struct connection *c, int index) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    const char *host = targets[index % target_count].host, *port = targets[index % target_count].port;
    int one = 1;
    if (getaddrinfo(host, port, &hints, &found)) die("%s port %s: no such address", host, port);
    c->index = index;
    c->ring = calloc(depth, sizeof *c->ring);
    c->fd = socket(found->ai_family, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, found->ai_addr, found->ai_addrlen))
        die("%s port %s: %s", host, port, strerror(errno));
    freeaddrinfo(found);
    if (token) show_token(c->fd);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poll, EPOLL_CTL_ADD, c->fd, &event);
}

static void poll_once(int poll, double wait_seconds) {
    struct epoll_event events[EVENTS_MAX];
    int wait_ms = wait_seconds > 0 ? (int)(wait_seconds * 1000) + 1 : 0;
    int n = epoll_wait(poll, events, EVENTS_MAX, wait_ms < 100 ? wait_ms : 100);
    for (int i = 0; i < n; i++) {
        struct connection *c = events[i].data.ptr;
        if (events[i].events & EPOLLOUT) flush(poll, c);
        if (events[i].events & ~EPOLLOUT) serve(poll, c);
    }
}

static void print_string(const char *text) {
    putchar('"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') putchar('\\');
        if ((unsigned char)*text >= ' ') putchar(*text);
    }
    putchar('"');
}

static void print_result(double measured_seconds, double cpu) {
    printf("{\"client\": \"c\", \"operations\": %llu, \"errors\": %llu, \"missed\": %llu, \"first_error\": ",
           (unsigned long long)answered, (unsigned long long)errors, (unsigned long long)missed);
    print_string(first_error);
    printf(", \"seconds\": %.6f, \"cpu_seconds\": %.6f, \"histogram\": [", measured_seconds, cpu);
    const char *comma = "";
    for (int i = 0; i < BUCKETS; i++)
        if (histogram[i]) {
            printf("%s[%d, %llu]", comma, i, (unsigned long long)histogram[i]);
            comma = ", ";
        }
    printf("]}\n");
}

static void say(const char *word) {
    puts(word);
    fflush(stdout);
}

int main(void) {
    read_workload();
    if (!target_count || !operation_count || connections < 1 || depth < 1 || keys < 1) die("nothing to do");
    if (count && rate > 0) die("a count of operations has no rate");
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int poll = epoll_create1(0);
    struct connection *all = calloc(connections, sizeof *all);
    for (int i = 0; i < connections; i++) open_connection(poll, &all[i], i);
    strangers = connections;
    int64_t started = now_ns(), begun = started;
    double cpu_begun = cpu_seconds();
    if (count) {
        measuring = 1;
        say("begin");
    }
    for (int i = 0; i < connections && rate <= 0; i++) {
        for (int k = 0; k < depth; k++) begin_one(&all[i], now_ns());
        flush(poll, &all[i]);
    }
    for (;;) {
        int64_t now = now_ns();
        double past = (now - started) / 1e9;
        if (past > limit) die("not done within %g seconds: %lld under way", limit, under_way);
        if (count) {
            if (!under_way) break;
            poll_once(poll, limit - past);
            continue;
        }
        if (!measuring && past >= warmup && (rate > 0 || !strangers)) {
            measuring = 1;
            say("begin");
            begun = now_ns();
            cpu_begun = cpu_seconds();
        }
        double left = measuring ? seconds - (now - begun) / 1e9 : past < warmup ? warmup - past : limit - past;
        if (measuring && left <= 0) break;
        if (rate > 0) {
            double until_due = begin_due(poll, all, started);
            if (until_due < left) left = until_due;
        }
        poll_once(poll, left);
    }
    measuring = 0;
    stopping = 1;
    double measured = (now_ns() - begun) / 1e9, cpu = cpu_seconds() - cpu_begun;
    say("end");
    print_result(measured, cpu);
    return 0;
}
