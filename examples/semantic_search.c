/* semantic_search MODEL FILE QUERY: print the five lines of FILE whose meaning is nearest to QUERY.
 *
 * MODEL is the directory of a sentence-embedding model as it was downloaded, such as all-MiniLM-L6-v2. This is the whole of
 * what a program does with the library: open a model, open a session, call a task, close both. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tfinfer/tfinfer.h>

enum { LINES_MAX = 10000, SHOWN = 5 };

/* Every call returns a status, negative if it failed; tf_last_error() then has a sentence for a person. */
static void check(tf_status status)
{
    if (status >= 0) return;
    fprintf(stderr, "%s\n%s\n", tf_status_string(status), tf_last_error());
    exit(1);
}

/* The lines of a file that are not empty; they live until the program ends. */
static int64_t read_lines(const char *path, tf_text *lines)
{
    static char line[4096];
    int64_t count = 0;
    FILE *f = fopen(path, "r");

    if (!f) {
        perror(path);
        exit(1);
    }
    while (count < LINES_MAX && fgets(line, sizeof line, f)) {
        const size_t size = strcspn(line, "\r\n");
        char *copy = malloc(size + 1);
        if (size == 0 || !copy) {
            free(copy);
            continue;
        }
        memcpy(copy, line, size);
        copy[size] = 0;
        lines[count].data = copy;
        lines[count++].size = (int64_t)size;
    }
    fclose(f);
    return count;
}

/* One vector a text, of length 1. The library splits a long list into steps by itself. */
static float *embed(tf_session *session, const tf_text *texts, int64_t count, int32_t width)
{
    tf_embed_options options;
    tf_input in;
    float *out = malloc(sizeof(float) * (size_t)(count * width));

    if (!out) exit(1);
    tf_input_init(&in);
    in.texts = texts;
    in.count = count;
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

int main(int argc, char **argv)
{
    static tf_text lines[LINES_MAX];
    tf_model *model;
    tf_session *session;
    tf_model_info info;

    if (argc != 4) {
        fprintf(stderr, "usage: semantic_search MODEL FILE QUERY\n");
        return 2;
    }
    const int64_t count = read_lines(argv[2], lines);
    if (count == 0) return 0;

    check(tf_model_open(argv[1], NULL, &model));
    check(tf_session_open(model, NULL, &session));
    tf_model_info_init(&info);
    check(tf_model_get_info(model, &info));
    const int32_t width = info.embedding_width;

    const tf_text query = tf_text_of(argv[3]);
    float *vectors = embed(session, lines, count, width);
    float *wanted = embed(session, &query, 1, width);
    float *scores = calloc((size_t)count, sizeof *scores);
    if (!scores) return 1;

    /* Both have length 1, so the dot product is the cosine of the angle between them. */
    for (int64_t i = 0; i < count; i++) {
        for (int32_t k = 0; k < width; k++) scores[i] += vectors[i * width + k] * wanted[k];
    }
    for (int shown = 0; shown < SHOWN && shown < count; shown++) {
        const int64_t best = find_best(scores, count);
        printf("%.3f  %s\n", scores[best], lines[best].data);
        scores[best] = -2; /* so that it is not found again */
    }

    free(scores);
    free(wanted);
    free(vectors);
    for (int64_t i = 0; i < count; i++) free((char *)lines[i].data);
    tf_session_close(session);
    tf_model_close(model);
    return 0;
}
