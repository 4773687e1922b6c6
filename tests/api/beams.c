/* Beam search where a backend goes ahead of the host: the same sequences as where each step waits for the one before, which it does when
 * logits are kept; alone, beside others, cancelled; and all blocks come back. Where no backend goes ahead both are the same. */
#define _GNU_SOURCE
#include <stdlib.h>

#include "check.h"
#include "tiny_decoder.h"

enum { RETURNED = 3, TOGETHER = 4, ENDS = 32 };
static int32_t ends[ENDS]; /* so many that searches end at any length */

static void open_bench(tiny_bench *b, tiny_decoder kind, int64_t kv_tokens)
{
    tf_session_options so;

    tf_session_options_init(&so);
    so.kv_tokens = kv_tokens;
    tiny_bench_open(b, kind, &so);
}

static int32_t between(int32_t least, int32_t most)
{
    return least + (int32_t)(check_random() % (uint64_t)(most - least + 1));
}

typedef struct request {
    int32_t ids[40];
    int32_t count;
    tf_generate_options options;
} request;

/* Prompts and lengths on both sides of a block's end; searches that end early and such that do not. */
static request random_request(tiny_decoder kind)
{
    request r = {.count = between(1, 40)};
    tf_generate_options *o = &r.options;

    for (int32_t i = 0; i < r.count; i++) r.ids[i] = between(3, 255);
    tf_generate_options_init(o);
    o->max_new_tokens = between(1, kind == TINY_GPT2 ? TINY_GPT2_POSITIONS - r.count : 70);
    o->num_beams = between(RETURNED, 8);
    o->num_return_sequences = RETURNED;
    o->early_stopping = between(0, 2);
    o->length_penalty = 0.5f * (float)between(1, 4);
    o->eos_ids = ends;
    o->eos_count = between(0, 2) * ENDS / 2;
    if (between(0, 2) == 0) o->no_repeat_ngram_size = 3;
    if (between(0, 2) == 0) {
        o->do_sample = 1;
        o->seed = between(0, 1000);
    }
    return r;
}

static tf_generate *open_request(const tiny_bench *b, const request *r)
{
    tf_generate *g;
    tf_input in;

    tf_input_init(&in);
    in.ids = r->ids;
    in.lens = &r->count;
    in.count = 1;
    CHECK_OK(tf_generate_open(b->session, &in, &r->options, &g));
    return g;
}

/* Where both searches end, and in what. */
static int is_same(tf_generate *a, tf_generate *b)
{
    for (int32_t i = 0; i < RETURNED; i++) {
        tf_generated x, y;
        tf_generated_init(&x);
        tf_generated_init(&y);
        CHECK_OK(tf_generate_result(a, i, &x));
        CHECK_OK(tf_generate_result(b, i, &y));
        if (x.count != y.count || x.finish != y.finish) return 0;
        if (memcmp(x.ids, y.ids, (size_t)x.count * sizeof *x.ids) != 0) return 0;
        if (memcmp(x.beams, y.beams, (size_t)x.count * sizeof *x.beams) != 0) return 0;
        if (x.score != y.score && (x.score - y.score) * (x.score - y.score) >= 1e-8f * x.score * x.score) return 0;
    }
    return 1;
}

/* Drive all requests so many steps, or until they are done. */
static void step(tf_session *s, int32_t count)
{
    while (count-- > 0) {
        const tf_status st = tf_session_step(s, -1);
        CHECK(st == TF_STATUS_OK || st == TF_STATUS_END);
    }
}

/* The same with every step waited for. */
static tf_generate *waited_for(const tiny_bench *b, const request *r)
{
    request patient = *r;
    tf_generate *g;

    patient.options.keep_logits = 1;
    g = open_request(b, &patient);
    CHECK_OK(tf_generate_wait(g, -1));
    return g;
}

static void alone(tiny_decoder kind)
{
    tiny_bench b;

    open_bench(&b, kind, 8 * 112);
    for (int i = 0; i < 40; i++) {
        const request r = random_request(kind);
        tf_generate *want = waited_for(&b, &r), *got = open_request(&b, &r);
        CHECK_OK(tf_generate_wait(got, -1));
        CHECK(is_same(got, want));
        tf_generate_close(got);
        tf_generate_close(want);
    }
    tiny_bench_close(&b);
}

/* Several searches, of which some end while others go on; one is cancelled, after as many steps as it happens to be. Beside others a sum
 * may differ in its last bits, and two beams of nearly one score change places: that is rare. */
static void together(tiny_decoder kind)
{
    int otherwise = 0;
    tiny_bench b;

    open_bench(&b, kind, (TOGETHER + 1) * 8 * 128);
    for (int round = 0; round < 10; round++) {
        request r[TOGETHER];
        tf_generate *want[TOGETHER], *got[TOGETHER], *cancelled;
        for (int i = 0; i < TOGETHER; i++) {
            do r[i] = random_request(kind);
            while (r[i].options.do_sample == 1); /* a draw may fall on a boundary */
            want[i] = waited_for(&b, &r[i]);
        }
        cancelled = open_request(&b, &r[0]);
        for (int i = 0; i < TOGETHER; i++) got[i] = open_request(&b, &r[i]);
        step(b.session, between(0, 12));
        tf_generate_cancel(cancelled);
        tf_generate_close(cancelled);
        for (int i = 0; i < TOGETHER; i++) {
            CHECK_OK(tf_generate_wait(got[i], -1));
            otherwise += !is_same(got[i], want[i]);
            tf_generate_close(got[i]);
            tf_generate_close(want[i]);
        }
    }
    CHECK(otherwise <= 2); /* of 40 */
    tiny_bench_close(&b);
}

/* As much as the session ever has room for, again and again, whole and cancelled: nothing of it stays behind. */
static void no_block_is_lost(tiny_decoder kind)
{
    request r = random_request(kind);
    tiny_bench b;

    r.count = 16;
    r.options.max_new_tokens = 65;
    r.options.num_beams = 4;
    r.options.early_stopping = TF_EARLY_STOPPING_ON;
    open_bench(&b, kind, kind == TINY_GPT2 ? 4 * 80 : 4 * 80 + 16); /* T5: tokens of the decoder, and the source's */
    for (int i = 0; i < 20; i++) {
        r.options.eos_count = i % 4 == 0 ? ENDS : 0;
        tf_generate *g = open_request(&b, &r);
        if (i % 2) step(b.session, between(0, 40));
        if (i % 2) tf_generate_cancel(g);
        else CHECK_OK(tf_generate_wait(g, -1));
        tf_generate_close(g);
    }
    tiny_bench_close(&b);
}

static void gpt2_alone(void)
{
    alone(TINY_GPT2);
}

static void t5_alone(void)
{
    alone(TINY_T5);
}

static void gpt2_together(void)
{
    together(TINY_GPT2);
}

static void t5_together(void)
{
    together(TINY_T5);
}

static void gpt2_no_block_is_lost(void)
{
    no_block_is_lost(TINY_GPT2);
}

static void t5_no_block_is_lost(void)
{
    no_block_is_lost(TINY_T5);
}

int main(int argc, char **argv)
{
    for (int i = 0; i < ENDS; i++) ends[i] = between(3, 255);
    check_run(argc, argv, "gpt2_alone", gpt2_alone);
    check_run(argc, argv, "t5_alone", t5_alone);
    check_run(argc, argv, "gpt2_together", gpt2_together);
    check_run(argc, argv, "t5_together", t5_together);
    check_run(argc, argv, "gpt2_no_block_is_lost", gpt2_no_block_is_lost);
    check_run(argc, argv, "t5_no_block_is_lost", t5_no_block_is_lost);
    return check_done();
}
