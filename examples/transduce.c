/* transduce MODEL [BEAMS]: a T5 as a filter. Line N of the output is what the model makes of line N of standard input.
 *
 * Lines that are there are requests of one session and advance together, a token of each in one pass over the weights; a line that arrives
 * later joins those that run. Nothing waits for a batch to fill: a line typed alone is answered alone. A line that fails is reported and
 * leaves an empty line, as an empty line does; the exit status is then 1. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <tfinfer/generate.h>

enum { AT_ONCE = 64, READ_BYTES = 1 << 16 };

/* Standard input by read(2): stdio would hide from poll(2) what it has read ahead. */
typedef struct reader {
    char *data; /* what was read is [begin, end) */
    size_t begin, end, room;
    int at_end;
} reader;

/* Requests in the order of their lines; NULL is an empty line. */
typedef struct queue {
    tf_generate *requests[AT_ONCE];
    int first, count;
    long read, written; /* lines */
    int failed;
} queue;

static void check(tf_status status)
{
    if (status >= 0) return;
    fprintf(stderr, "%s\n%s\n", tf_status_string(status), tf_last_error());
    exit(1);
}

static void read_more(reader *r)
{
    ssize_t got;

    if (r->begin) memmove(r->data, r->data + r->begin, r->end - r->begin);
    r->end -= r->begin;
    r->begin = 0;
    if (r->room - r->end < READ_BYTES) {
        r->room = 2 * r->room + READ_BYTES;
        r->data = realloc(r->data, r->room);
        if (!r->data) check(TF_STATUS_NOMEM);
    }
    do got = read(STDIN_FILENO, r->data + r->end, r->room - r->end);
    while (got < 0 && errno == EINTR);
    if (got < 0) {
        perror("standard input");
        exit(1);
    }
    r->end += (size_t)got;
    r->at_end = got == 0;
}

/* The next line, until the next call. Returns 0 at the end of the input and, unless `wait`, if no line has arrived yet. */
static int next_line(reader *r, int wait, tf_text *line)
{
    struct pollfd input = {STDIN_FILENO, POLLIN, 0};
    const char *newline = NULL;

    if (!r->data) read_more(r);
    while (!(newline = memchr(r->data + r->begin, '\n', r->end - r->begin)) && !r->at_end) {
        if (!wait && poll(&input, 1, 0) == 0) return 0;
        read_more(r);
    }
    if (r->begin == r->end) return 0;
    line->data = r->data + r->begin;
    line->size = (newline ? newline : r->data + r->end) - line->data;
    r->begin += (size_t)line->size + (newline != NULL);
    return 1;
}

static void report(queue *q, long line)
{
    fprintf(stderr, "line %ld: %s\n", line, tf_last_error());
    q->failed = 1;
}

/* Write the oldest request's result; all others advance while it is waited for. */
static void write_oldest(queue *q)
{
    tf_generate *request = q->requests[q->first];
    tf_generated result;

    q->first = (q->first + 1) % AT_ONCE;
    q->count--;
    q->written++;
    tf_generated_init(&result);
    if (request && (tf_generate_wait(request, -1) < 0 || tf_generate_result(request, 0, &result) < 0)) {
        report(q, q->written);
    } else if (request) {
        for (int64_t i = 0; i < result.text_bytes; i++) putchar(result.text[i] == '\n' ? ' ' : result.text[i]);
    }
    putchar('\n');
    tf_generate_close(request);
    if (fflush(stdout)) {
        perror("standard output");
        exit(1);
    }
}

/* Begin with a line. While the session has no room for it, those before it are finished. */
static void begin(queue *q, tf_session *session, const tf_text *line, const tf_generate_options *options)
{
    tf_generate *request = NULL;
    tf_status status = TF_STATUS_OK;
    tf_input in;

    tf_input_init(&in);
    in.texts = line;
    in.count = 1;
    q->read++;
    while (line->size > 0 && (status = tf_generate_open(session, &in, options, &request)) == TF_STATUS_BUSY && q->count)
        write_oldest(q);
    if (status < 0) {
        report(q, q->read);
        request = NULL;
    }
    q->requests[(q->first + q->count++) % AT_ONCE] = request;
}

int main(int argc, char **argv)
{
    static reader input;
    static queue q;
    tf_generate_options options;
    tf_session *session;
    tf_model *model;
    tf_text line;

    if (argc < 2 || argc > 3) return fprintf(stderr, "usage: transduce MODEL [BEAMS] < LINES\n"), 2;
    check(tf_model_open(argv[1], NULL, &model));
    check(tf_session_open(model, NULL, &session));
    tf_generate_options_init(&options);
    if (argc == 3) options.num_beams = atoi(argv[2]);
    do {
        while (q.count < AT_ONCE && next_line(&input, q.count == 0, &line)) begin(&q, session, &line, &options);
        if (q.count) write_oldest(&q);
    } while (q.count || !input.at_end || input.begin < input.end);
    free(input.data);
    tf_session_close(session);
    tf_model_close(model);
    return q.failed;
}
