/* Stand-ins for the two C functions that python_overhead.py watches: the same call, with the clock read on both sides of it. In C,
 * because a stand-in in Python would cost as much as what is measured. */
#include <time.h>
#include <tfinfer/tfinfer.h>

long long began, ended; /* nanoseconds of Python's time.perf_counter_ns() */

static long long now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

tf_status (*tf_embed_of_library)(tf_session *, const tf_input *, const tf_embed_options *, float *, int64_t);

tf_status timed_tf_embed(tf_session *s, const tf_input *in, const tf_embed_options *options, float *out, int64_t out_stride)
{
    began = now();
    const tf_status st = tf_embed_of_library(s, in, options, out, out_stride);
    ended = now();
    return st;
}

tf_status (*tf_tokenizer_encode_of_library)(const tf_tokenizer *, const tf_text *, const tf_text *, int64_t,
                                            const tf_tokenize_options *, tf_encoding *);

tf_status timed_tf_tokenizer_encode(const tf_tokenizer *t, const tf_text *texts, const tf_text *pairs, int64_t count,
                                    const tf_tokenize_options *options, tf_encoding *out)
{
    began = now();
    const tf_status st = tf_tokenizer_encode_of_library(t, texts, pairs, count, options, out);
    ended = now();
    return st;
}
