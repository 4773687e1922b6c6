/* semantic_search MODEL FILE QUERY: print the five lines of FILE whose meaning is nearest to QUERY.
 *
 * MODEL is the directory of a sentence-embedding model as it was downloaded, such as all-MiniLM-L6-v2. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>

#include <tfinfer/tfinfer.h>

enum { SHOWN = 5 };

typedef struct lines {
    tf_text *texts; /* [count] without the lines' ends */
    int64_t count, room;
} lines;

/* Every call returns a status, negative if it failed; tf_last_error() then has a sentence for a person. */
static void check(tf_status status)
{
    if (status >= 0) return;
    fprintf(stderr, "%s\n%s\n", tf_status_string(status), tf_last_error());
    exit(1);
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

/* The lines of a file that are not empty. */
static lines read_lines(const char *path)
{
    lines all = {NULL, 0, 0};
    char *line = NULL;
    size_t room = 0;
    ssize_t size;
    FILE *f = fopen(path, "r");

    if (!f) fail(path);
    while ((size = getline(&line, &room, f)) >= 0) {
        while (size > 0 && (line[size - 1] == '\n' || line[size - 1] == '\r')) size--;
        if (!size) continue;
        if (all.count == all.room) {
            all.room = 2 * all.room + 64;
            all.texts = realloc(all.texts, (size_t)all.room * sizeof *all.texts);
            if (!all.texts) fail(path);
        }
        all.texts[all.count].data = line;
        all.texts[all.count++].size = size;
        line = NULL; /* it is the list's now */
        room = 0;
    }
    if (!feof(f)) fail(path);
    free(line);
    fclose(f);
    return all;
}

/* One vector a text, of length 1. The library splits a long list into steps by itself. */
static float *embed(tf_session *session, const tf_text *texts, int64_t count, int32_t width)
{
    tf_embed_options options;
    tf_input in;
    float *out = malloc(sizeof(float) * (size_t)count * (size_t)width);

    if (!out) fail("vectors");
    tf_input_init(&in);
    in.texts = texts;
    in.count = count;
    in.replace_invalid = 1; /* bytes that are not UTF-8 are read as U+FFFD */
    tf_embed_options_init(&options);
    options.normalize = 1;
    check(tf_embed(session, &in, &options, out, width));
    return out;
}

/* The index of the highest score. */
static int64_t find_best(const float *scores, int64_t count)
{
    int64_t best = 0;

    for (int64_t i = 1; i < count; i++) {
        if (scores[i] > scores[best]) best = i;
    }
    return best;
}

static void search(tf_session *session, const lines *all, const char *query, int32_t width)
{
    const tf_text text = tf_text_of(query);
    float *vectors = embed(session, all->texts, all->count, width);
    float *wanted = embed(session, &text, 1, width);
    float *scores = calloc((size_t)all->count, sizeof *scores);

    if (!scores) fail("scores");
    /* Both have length 1, so the dot product is the cosine of the angle between them. */
    for (int64_t i = 0; i < all->count; i++) {
        for (int32_t k = 0; k < width; k++) scores[i] += vectors[i * width + k] * wanted[k];
    }
    for (int shown = 0; shown < SHOWN && shown < all->count; shown++) {
        const int64_t best = find_best(scores, all->count);
        printf("%.3f  ", (double)scores[best]);
        fwrite(all->texts[best].data, 1, (size_t)all->texts[best].size, stdout);
        putchar('\n');
        scores[best] = -2; /* so that it is not found again */
    }
    free(scores);
    free(wanted);
    free(vectors);
}

int main(int argc, char **argv)
{
    tf_model *model;
    tf_session *session;
    tf_model_info info;

    if (argc != 4) return fprintf(stderr, "usage: semantic_search MODEL FILE QUERY\n"), 2;
    lines all = read_lines(argv[2]);
    check(tf_model_open(argv[1], NULL, &model));
    check(tf_session_open(model, NULL, &session));
    tf_model_info_init(&info);
    check(tf_model_get_info(model, &info));
    if (all.count) search(session, &all, argv[3], info.embedding_width);
    for (int64_t i = 0; i < all.count; i++) free((char *)all.texts[i].data);
    free(all.texts);
    tf_session_close(session);
    tf_model_close(model);
    if (fflush(stdout)) return perror("standard output"), 1;
    return 0;
}
