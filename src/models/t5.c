/* T5 and mT5: pre-norm layers with RMS norms and no biases over a residual stream in fp32, self attention with a bias by
 * relative position whose table all layers of a side share. `graph` is the encoder; behind it, for generation, it keeps each
 * decoder layer's keys and values of the source. `step` is the decoder. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <tfinfer/tfinfer.h>

#include "base/status.h"
#include "models/family.h"

typedef struct shape {
    int32_t vocab, width, heads, head_size, inner, encoder_layers, decoder_layers, buckets, max_distance;
    tfi_activation activation;
    int gated;
    float eps;
    float head_scale; /* of what the output matrix reads */
} shape;

/* One of the two sides. */
typedef struct side {
    const char *name;
    int bidirectional;
    int ffn; /* number of the feed-forward block in a layer */
} side;

static const side encoder = {"encoder", 1, 1}, decoder = {"decoder", 0, 2};

/* ---- config.json ---- */

/* "relu", "gelu", "gated-silu"; but "gated-gelu" means gelu_new. What transformers makes of it stands in newer files as well:
 * there it counts. */
static tf_status read_activation(tfi_json c, shape *s, const char *otherwise)
{
    const char *name = otherwise, *activation;
    tf_status st;

    if ((st = tfi_json_string(c, "feed_forward_proj", &name)) < 0) return st;
    s->gated = strncmp(name, "gated-", 6) == 0;
    activation = strcmp(name, "gated-gelu") == 0 ? "gelu_new" : s->gated ? name + 6 : name;
    if ((st = tfi_json_string(c, "dense_act_fn", &activation)) < 0 || (st = tfi_json_bool(c, "is_gated_act", &s->gated)) < 0)
        return st;
    return tfi_config_activation_named(c, "feed_forward_proj", activation, &s->activation);
}

/* T5 v1.0 multiplies the decoder's output by width^-0.5 before the output matrix. Until transformers 5 untied embeddings told
 * the versions without it; since then scale_decoder_outputs says so, and mT5 never scales. */
static tf_status read_scale(tfi_json c, const char *family, shape *s)
{
    int tied = 1, scaled;
    tf_status st;

    s->head_scale = 1;
    if (strcmp(family, "t5") != 0) return TF_STATUS_OK;
    if ((st = tfi_json_bool(c, "tie_word_embeddings", &tied)) < 0) return st;
    scaled = tied;
    if ((st = tfi_json_bool(c, "scale_decoder_outputs", &scaled)) < 0) return st;
    if (scaled) s->head_scale = (float)(1 / sqrt(s->width));
    return TF_STATUS_OK;
}

static tf_status read_shape(tfi_json c, const char *family, shape *s)
{
    const int is_mt5 = strcmp(family, "mt5") == 0;
    double eps = 1e-6;
    tf_status st;

    *s = is_mt5 ? (shape){.vocab = 250112, .width = 512, .heads = 6, .head_size = 64, .inner = 1024, .encoder_layers = 8}
                : (shape){.vocab = 32128, .width = 512, .heads = 8, .head_size = 64, .inner = 2048, .encoder_layers = 6};
    s->buckets = 32;
    s->max_distance = 128;
    if ((st = tfi_config_int(c, "vocab_size", 1, 1 << 27, &s->vocab)) < 0 ||
        (st = tfi_config_int(c, "d_model", 1, 1 << 20, &s->width)) < 0 ||
        (st = tfi_config_int(c, "num_heads", 1, 4096, &s->heads)) < 0 ||
        (st = tfi_config_int(c, "d_kv", 1, 256, &s->head_size)) < 0 ||
        (st = tfi_config_int(c, "d_ff", 1, 1 << 22, &s->inner)) < 0 ||
        (st = tfi_config_int(c, "num_layers", 1, 4096, &s->encoder_layers)) < 0 ||
        (st = tfi_config_int(c, "relative_attention_num_buckets", 4, 1 << 16, &s->buckets)) < 0 ||
        (st = tfi_config_int(c, "relative_attention_max_distance", 1, 1 << 20, &s->max_distance)) < 0 ||
        (st = tfi_json_float(c, "layer_norm_epsilon", 0, 1, &eps)) < 0 ||
        (st = read_activation(c, s, is_mt5 ? "gated-gelu" : "relu")) < 0 || (st = read_scale(c, family, s)) < 0)
        return st;
    s->decoder_layers = s->encoder_layers;
    if ((st = tfi_config_int(c, "num_decoder_layers", 1, 4096, &s->decoder_layers)) < 0) return st;
    if (s->max_distance <= s->buckets / 2)
        return tfi_fail(
            TF_STATUS_CORRUPT,
            "%s: \"relative_attention_max_distance\" is %d, not beyond half of \"relative_attention_num_buckets\" = %d", c.file,
            (int)s->max_distance, (int)s->buckets);
    s->eps = (float)eps;
    return TF_STATUS_OK;
}

static void fill_facts(tfi_model *m, const shape *s)
{
    m->has_encoder = 1;
    m->layers = s->encoder_layers;
    m->decoder_layers = s->decoder_layers;
    m->heads = s->heads;
    m->head_size = s->head_size;
    m->width = m->input_width = s->width;
    m->vocab_size = s->vocab;
    m->max_input_tokens = INT32_MAX;
    m->pooled_missing = "pooler (this family has none)";
}

/* ---- parts of both sides ---- */

typedef struct tensor_name {
    char text[TFI_NAME_BYTES];
} tensor_name;

static tensor_name tensor_of(const side *p, int layer, int block, const char *rest)
{
    tensor_name n;
    snprintf(n.text, sizeof n.text, "%s.block.%d.layer.%d.%s", p->name, layer, block, rest);
    return n;
}

static int32_t rms(tfi_family *f, const shape *s, const char *value, int32_t x, const char *tensor, tfi_dtype dtype)
{
    return tfi_build_rms_norm(&f->build, value, x, -1, tfi_family_vector(f, tensor, s->width), s->eps, dtype);
}

/* x W^T + residual. */
static int32_t project(tfi_family *f, const char *value, int32_t x, tensor_name tensor, int64_t outputs,
                       tfi_activation activation, int32_t residual, tfi_shard shard, tfi_dtype dtype)
{
    const int32_t weight = tfi_family_matrix(f, tensor.text, outputs, tfi_family_cols(f, x), shard);
    return tfi_build_linear(&f->build, value, x, weight, -1, activation, residual, dtype);
}

/* Several projections of x as one. */
static int32_t project_stack(tfi_family *f, const char *value, int32_t x, const tensor_name *tensors, int count,
                             int64_t outputs, tfi_shard shard)
{
    const char *names[TFI_WEIGHT_PARTS];

    for (int i = 0; i < count; i++) names[i] = tensors[i].text;
    const int32_t weight = tfi_family_stack(f, names, count, outputs, tfi_family_cols(f, x), shard);
    return tfi_build_linear(&f->build, value, x, weight, -1, TFI_ACT_NONE, -1, f->dtype);
}

/* The table of relative positions: that of a side's first layer serves them all. */
static int32_t bias_table(tfi_family *f, const shape *s, const side *p)
{
    return tfi_family_relative(
        f, tensor_of(p, 0, 0, "SelfAttention.relative_attention_bias.weight").text, s->heads,
        &(tfi_relative){.buckets = s->buckets, .max_distance = s->max_distance, .bidirectional = p->bidirectional});
}

static int32_t self_attention(tfi_family *f, const shape *s, const side *p, int i, int32_t bias, int32_t x)
{
    const int64_t inner = (int64_t)s->heads * s->head_size;
    const tensor_name parts[3] = {tensor_of(p, i, 0, "SelfAttention.q.weight"), tensor_of(p, i, 0, "SelfAttention.k.weight"),
                                  tensor_of(p, i, 0, "SelfAttention.v.weight")};
    const tfi_attention_spec spec = {.attend = p->bidirectional ? TFI_ATTEND_ALL : TFI_ATTEND_CACHE,
                                     .layer = i,
                                     .heads = s->heads,
                                     .head_size = s->head_size,
                                     .scale = 1,
                                     .bias = bias};
    char value[TFI_NAME_BYTES];

    const int32_t normed = rms(f, s, tfi_family_name(value, "layer.%d.attention.norm", i), x,
                               tensor_of(p, i, 0, "layer_norm.weight").text, f->dtype);
    const int32_t qkv = project_stack(f, tfi_family_name(value, "layer.%d.qkv", i), normed, parts, 3, inner, TFI_SHARD_HEADS);
    const int32_t mixed = tfi_build_attention(&f->build, tfi_family_name(value, "layer.%d.attention", i), qkv, &spec);
    return project(f, tfi_family_name(value, "layer.%d.attention.out", i), mixed, tensor_of(p, i, 0, "SelfAttention.o.weight"),
                   s->width, TFI_ACT_NONE, x, TFI_SHARD_ROW, TFI_F32);
}

static int32_t feed_forward(tfi_family *f, const shape *s, const side *p, int i, int32_t x)
{
    const tensor_name gated[2] = {tensor_of(p, i, p->ffn, "DenseReluDense.wi_0.weight"),
                                  tensor_of(p, i, p->ffn, "DenseReluDense.wi_1.weight")};
    char value[TFI_NAME_BYTES], in[TFI_NAME_BYTES];
    int32_t inner;

    const int32_t normed = rms(f, s, tfi_family_name(value, "layer.%d.ffn.norm", i), x,
                               tensor_of(p, i, p->ffn, "layer_norm.weight").text, f->dtype);
    tfi_family_name(in, "layer.%d.ffn.in", i);
    if (s->gated) {
        inner = project_stack(f, in, normed, gated, 2, s->inner, TFI_SHARD_COLUMN);
        inner = tfi_build_glu(&f->build, tfi_family_name(value, "layer.%d.ffn.gated", i), inner, s->activation, f->dtype);
    } else {
        inner = project(f, in, normed, tensor_of(p, i, p->ffn, "DenseReluDense.wi.weight"), s->inner, s->activation, -1,
                        TFI_SHARD_COLUMN, f->dtype);
    }
    return project(f, tfi_family_name(value, "layer.%d", i), inner, tensor_of(p, i, p->ffn, "DenseReluDense.wo.weight"),
                   s->width, TFI_ACT_NONE, x, TFI_SHARD_ROW, TFI_F32);
}

/* The word table that both sides share; any of its names will do, the output matrix as the last. */
static const char *word_name(const tfi_family *f)
{
    static const char *const names[] = {"shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight",
                                        "lm_head.weight"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (tfi_family_find(f, names[i])) return names[i];
    return names[0];
}

static int32_t embeddings(tfi_family *f, const shape *s)
{
    const int32_t word = tfi_family_matrix(f, word_name(f), s->vocab, s->width, TFI_SHARD_VOCAB);
    return tfi_build_embed(&f->build, "embeddings", word, -1, -1, TFI_F32);
}

/* ---- the encoder ---- */

/* Fills model->hidden; returns the last layer's output before the final norm. */
static int32_t encode(tfi_family *f, const shape *s)
{
    const int32_t bias = bias_table(f, s, &encoder);
    int32_t *hidden = f->model->hidden, x = embeddings(f, s);

    for (int i = 0; i < s->encoder_layers && f->build.status == TF_STATUS_OK; i++) {
        hidden[i] = x;
        x = self_attention(f, s, &encoder, i, bias, x);
        x = feed_forward(f, s, &encoder, i, x);
    }
    hidden[s->encoder_layers] = rms(f, s, "hidden", x, "encoder.final_layer_norm.weight", TFI_F32);
    return x;
}

/* Keys and values of the source for every layer of the decoder, from the encoder's last hidden state. */
static void keep_source(tfi_family *f, const shape *s, int32_t x)
{
    const int64_t inner = (int64_t)s->heads * s->head_size;
    char value[TFI_NAME_BYTES];
    const int32_t source = f->dtype == TFI_F32 ? f->model->hidden[s->encoder_layers]
                                               : rms(f, s, "source", x, "encoder.final_layer_norm.weight", f->dtype);

    for (int i = 0; i < s->decoder_layers && f->build.status == TF_STATUS_OK; i++) {
        const tensor_name parts[2] = {tensor_of(&decoder, i, 1, "EncDecAttention.k.weight"),
                                      tensor_of(&decoder, i, 1, "EncDecAttention.v.weight")};
        const int32_t kv =
            project_stack(f, tfi_family_name(value, "source.%d.kv", i), source, parts, 2, inner, TFI_SHARD_HEADS);
        tfi_build_keep_source(&f->build, kv, i, s->heads, s->head_size, 0);
    }
}

/* ---- the decoder ---- */

static int32_t source_attention(tfi_family *f, const shape *s, int i, int32_t x)
{
    const tfi_attention_spec spec = {
        .attend = TFI_ATTEND_SOURCE, .layer = i, .heads = s->heads, .head_size = s->head_size, .scale = 1, .bias = -1};
    char value[TFI_NAME_BYTES];

    const int32_t normed = rms(f, s, tfi_family_name(value, "layer.%d.source.norm", i), x,
                               tensor_of(&decoder, i, 1, "layer_norm.weight").text, f->dtype);
    const int32_t query = project(f, tfi_family_name(value, "layer.%d.source.query", i), normed,
                                  tensor_of(&decoder, i, 1, "EncDecAttention.q.weight"), (int64_t)s->heads * s->head_size,
                                  TFI_ACT_NONE, -1, TFI_SHARD_HEADS, f->dtype);
    const int32_t mixed = tfi_build_attention(&f->build, tfi_family_name(value, "layer.%d.source", i), query, &spec);
    return project(f, tfi_family_name(value, "layer.%d.source.out", i), mixed,
                   tensor_of(&decoder, i, 1, "EncDecAttention.o.weight"), s->width, TFI_ACT_NONE, x, TFI_SHARD_ROW, TFI_F32);
}

/* Logits of the selected rows. The scale of v1.0 is in the resident form of the norm's gain: it costs nothing there, and rounds
 * as often as in the reference, which multiplies the norm's output. */
static int32_t decoder_logits(tfi_family *f, const shape *s, int32_t x)
{
    const int32_t rows = tfi_build_gather(&f->build, "selected", x);
    const int32_t gain = tfi_family_scaled_vector(f, "decoder.final_layer_norm.weight", s->width, s->head_scale);
    const int32_t normed = tfi_build_rms_norm(&f->build, "lm.norm", rows, -1, gain, s->eps, f->dtype);
    const int32_t weight = tfi_family_head_matrix(f, "lm_head.weight", word_name(f), 1, s->vocab, s->width);
    return tfi_build_linear(&f->build, "logits", normed, weight, -1, TFI_ACT_NONE, -1, TFI_F32);
}

static void step(tfi_family *f, const shape *s)
{
    tfi_model *m = f->model;

    tfi_family_step(f);
    tfi_build_kv_copy(&f->build);
    const int32_t bias = bias_table(f, s, &decoder);
    int32_t x = embeddings(f, s);
    for (int i = 0; i < s->decoder_layers && f->build.status == TF_STATUS_OK; i++) {
        x = self_attention(f, s, &decoder, i, bias, x);
        x = source_attention(f, s, i, x);
        x = feed_forward(f, s, &decoder, i, x);
    }
    tfi_build_keep(&f->build, x);
    m->step_final = x;
    m->logits = decoder_logits(f, s, x);
    tfi_build_draw(&f->build, m->logits, &m->draw);
    m->store = (tfi_store_shape){.layers = s->decoder_layers, .heads = s->heads, .head_size = s->head_size, .dtype = f->dtype};
    m->max_context_tokens = INT32_MAX;
    m->tasks |= TF_TASK_GENERATE;
}

/* Is the class one of these builders', and does it generate? */
static int known_class(tfi_family *f, int *generates)
{
    /* The last is what the class was called when the first checkpoints were saved. */
    static const char *const suffixes[] = {"Model", "EncoderModel", "ForConditionalGeneration", "WithLMHeadModel"};
    const char *prefix = strcmp(f->model->family, "mt5") == 0 ? "MT5" : "T5";
    const size_t n = strlen(prefix);
    char bare[16];

    snprintf(bare, sizeof bare, "%sModel", prefix);
    const char *name = tfi_family_class(f, bare);
    if (!name) return 0;
    *generates = 0;
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0] && strncmp(name, prefix, n) == 0; i++) {
        if (strcmp(name + n, suffixes[i]) != 0) continue;
        *generates = i >= 2;
        return 1;
    }
    tfi_family_refuse_class(f, name);
    return 0;
}

void tfi_t5_build(tfi_family *f, const tfi_sentence *sentence)
{
    tfi_model *m = f->model;
    int generates;
    tf_status status;
    shape s;

    if (!known_class(f, &generates)) return;
    if ((status = read_shape(f->config, m->family, &s)) < 0) {
        tfi_build_fail(&f->build, status);
        return;
    }
    fill_facts(m, &s);
    m->tasks = TF_TASK_ENCODE;
    if (!(m->hidden = tfi_arena_alloc(f->arena, (size_t)(s.encoder_layers + 1) * sizeof *m->hidden))) {
        tfi_build_fail(&f->build, TF_STATUS_NOMEM);
        return;
    }
    const int32_t x = encode(f, &s);
    tfi_family_embedding(f, sentence, m->hidden[s.encoder_layers], -1);
    if (!generates) return;
    keep_source(f, &s, x);
    step(f, &s);
}
