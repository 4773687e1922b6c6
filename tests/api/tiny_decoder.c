#define _GNU_SOURCE
#include "tiny_decoder.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "check.h"
#include "tiny_files.h"

enum { WIDTH = 32, HEADS = 2, LAYERS = 2, INNER = 64 };

static void add(tiny_weights *w, int layer, const char *format, int rows, int cols, float middle)
{
    char name[160];
    snprintf(name, sizeof name, format, layer);
    tiny_weights_add(w, name, rows, cols, middle, 0.2f);
}

/* ---- GPT-2 ---- */

/* One token a byte, spelled as byte-level BPE spells it (printable bytes as themselves, the others from U+0100 on), and an
 * end-of-text token. */
static void write_byte_vocabulary(const char *folder)
{
    FILE *f = tiny_create(folder, "vocab.json");
    int next = 0x100;

    fputc('{', f);
    for (int b = 0; b < 256; b++) {
        const int prints = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        fprintf(f, "\"\\u%04x\":%d,", prints ? b : next, b);
        next += !prints;
    }
    fprintf(f, "\"<|endoftext|>\":%d}", TINY_GPT2_EOS);
    fclose(f);
    tiny_write_text(folder, "merges.txt", "#version: 0.2\n");
    tiny_write_text(folder, "tokenizer_config.json", "{\"tokenizer_class\": \"GPT2Tokenizer\"}\n");
}

static void write_gpt2(const char *folder)
{
    FILE *f = tiny_create(folder, "config.json");
    tiny_weights w;

    fprintf(f,
            "{\"model_type\": \"gpt2\", \"architectures\": [\"GPT2LMHeadModel\"], \"n_embd\": %d, \"n_head\": %d, \"n_layer\": %d,\n"
            " \"n_positions\": %d, \"vocab_size\": %d, \"n_inner\": %d, \"activation_function\": \"gelu_new\",\n"
            " \"layer_norm_epsilon\": 1e-5, \"bos_token_id\": %d, \"eos_token_id\": %d}\n",
            WIDTH, HEADS, LAYERS, TINY_GPT2_POSITIONS, TINY_GPT2_VOCAB, INNER, TINY_GPT2_EOS, TINY_GPT2_EOS);
    fclose(f);
    write_byte_vocabulary(folder);
    tiny_weights_begin(&w);
    add(&w, 0, "transformer.wte.weight", TINY_GPT2_VOCAB, WIDTH, 0);
    add(&w, 0, "transformer.wpe.weight", TINY_GPT2_POSITIONS, WIDTH, 0);
    for (int i = 0; i < LAYERS; i++) {
        add(&w, i, "transformer.h.%d.ln_1.weight", 0, WIDTH, 1);
        add(&w, i, "transformer.h.%d.ln_1.bias", 0, WIDTH, 0);
        add(&w, i, "transformer.h.%d.attn.c_attn.weight", WIDTH, 3 * WIDTH, 0);
        add(&w, i, "transformer.h.%d.attn.c_attn.bias", 0, 3 * WIDTH, 0);
        add(&w, i, "transformer.h.%d.attn.c_proj.weight", WIDTH, WIDTH, 0);
        add(&w, i, "transformer.h.%d.attn.c_proj.bias", 0, WIDTH, 0);
        add(&w, i, "transformer.h.%d.ln_2.weight", 0, WIDTH, 1);
        add(&w, i, "transformer.h.%d.ln_2.bias", 0, WIDTH, 0);
        add(&w, i, "transformer.h.%d.mlp.c_fc.weight", WIDTH, INNER, 0);
        add(&w, i, "transformer.h.%d.mlp.c_fc.bias", 0, INNER, 0);
        add(&w, i, "transformer.h.%d.mlp.c_proj.weight", INNER, WIDTH, 0);
        add(&w, i, "transformer.h.%d.mlp.c_proj.bias", 0, WIDTH, 0);
    }
    add(&w, 0, "transformer.ln_f.weight", 0, WIDTH, 1);
    add(&w, 0, "transformer.ln_f.bias", 0, WIDTH, 0);
    tiny_weights_end(&w, folder);
}

/* ---- T5 ---- */

static void add_attention(tiny_weights *w, int layer, const char *block, const char *name)
{
    static const char *const parts[] = {"q", "k", "v", "o"};
    for (int i = 0; i < 4; i++) {
        char format[120];
        snprintf(format, sizeof format, "%s.%s.%s.weight", block, name, parts[i]);
        add(w, layer, format, WIDTH, WIDTH, 0);
    }
}

static void add_stack(tiny_weights *w, const char *stack, int has_source)
{
    char block[64], format[120];

    snprintf(format, sizeof format, "%s.block.0.layer.0.SelfAttention.relative_attention_bias.weight", stack);
    add(w, 0, format, 32, HEADS, 0);
    for (int i = 0; i < LAYERS; i++) {
        const int ffn = has_source ? 2 : 1;
        snprintf(block, sizeof block, "%s.block.%%d.layer.0", stack);
        add_attention(w, i, block, "SelfAttention");
        if (has_source) {
            snprintf(block, sizeof block, "%s.block.%%d.layer.1", stack);
            add_attention(w, i, block, "EncDecAttention");
        }
        for (int k = 0; k <= ffn; k++) {
            snprintf(format, sizeof format, "%s.block.%%d.layer.%d.layer_norm.weight", stack, k);
            add(w, i, format, 0, WIDTH, 1);
        }
        snprintf(format, sizeof format, "%s.block.%%d.layer.%d.DenseReluDense.wi.weight", stack, ffn);
        add(w, i, format, INNER, WIDTH, 0);
        snprintf(format, sizeof format, "%s.block.%%d.layer.%d.DenseReluDense.wo.weight", stack, ffn);
        add(w, i, format, WIDTH, INNER, 0);
    }
    snprintf(format, sizeof format, "%s.final_layer_norm.weight", stack);
    add(w, 0, format, 0, WIDTH, 1);
}

static void write_t5(const char *folder)
{
    FILE *f = tiny_create(folder, "config.json");
    tiny_weights w;

    fprintf(f,
            "{\"model_type\": \"t5\", \"architectures\": [\"T5ForConditionalGeneration\"], \"d_model\": %d, \"d_kv\": %d,\n"
            " \"num_heads\": %d, \"num_layers\": %d, \"num_decoder_layers\": %d, \"d_ff\": %d, \"vocab_size\": %d,\n"
            " \"feed_forward_proj\": \"relu\", \"decoder_start_token_id\": 0, \"pad_token_id\": 0, \"eos_token_id\": 1}\n",
            WIDTH, WIDTH / HEADS, HEADS, LAYERS, LAYERS, INNER, TINY_T5_VOCAB);
    fclose(f);
    tiny_write_text(folder, "tokenizer_config.json", "{\"tokenizer_class\": \"ByT5Tokenizer\"}\n");
    tiny_weights_begin(&w);
    tiny_weights_add(&w, "shared.weight", TINY_T5_VOCAB, WIDTH, 0, 1.0f);
    add_stack(&w, "encoder", 0);
    add_stack(&w, "decoder", 1);
    tiny_weights_end(&w, folder);
}

const char *tiny_decoder_path(tiny_decoder kind)
{
    static char paths[TINY_DECODER_COUNT][512];

    if (!paths[kind][0]) {
        snprintf(paths[kind], sizeof paths[kind], "%s", check_path(kind == TINY_GPT2 ? "tiny-gpt2" : "tiny-t5"));
        mkdir(paths[kind], 0755);
        (kind == TINY_GPT2 ? write_gpt2 : write_t5)(paths[kind]);
    }
    return paths[kind];
}

void tiny_bench_open(tiny_bench *b, tiny_decoder kind, const tf_session_options *options)
{
    tf_model_options o;

    check_memory_init(&b->memory);
    tf_model_options_init(&o);
    o.allocator = &b->memory.hooks;
    o.threads = 2;
    o.device = getenv("TFINFER_DEVICE"); /* the same on another device */
    b->model = NULL;
    b->session = NULL;
    CHECK_OK(tf_model_open(tiny_decoder_path(kind), &o, &b->model));
    CHECK_OK(tf_session_open(b->model, options, &b->session));
}

void tiny_bench_close(tiny_bench *b)
{
    tf_session_close(b->session);
    tf_model_close(b->model);
    CHECK_INT(b->memory.live_blocks, 0);
    CHECK_INT(b->memory.live_bytes, 0);
}
