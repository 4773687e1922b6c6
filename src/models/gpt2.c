/* GPT-2: pre-norm layers over a residual stream in fp32, causal attention, matrices stored transposed ("Conv1D"). One function
 * builds the layers of both graphs: `graph` attends to the rows of the run and serves tf_encode, `step` to the store and serves
 * generation. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <tfinfer/tfinfer.h>

#include "base/status.h"
#include "models/family.h"

typedef struct shape {
    int32_t vocab, positions, layers, heads, width, inner;
    tfi_activation activation;
    float eps;
    int scale_weights, scale_by_layer;
} shape;

/* ---- config.json ---- */

static tf_status read_shape(tfi_json c, shape *s)
{
    double eps = 1e-5;
    int cross = 0, causal = 1;
    tf_status st;

    *s = (shape){.vocab = 50257,
                 .positions = 1024,
                 .layers = 12,
                 .heads = 12,
                 .width = 768,
                 .activation = TFI_ACT_GELU_TANH,
                 .scale_weights = 1};
    if ((st = tfi_config_int(c, "vocab_size", 1, 1 << 27, &s->vocab)) < 0 ||
        (st = tfi_config_int(c, "n_positions", 1, 1 << 24, &s->positions)) < 0 ||
        (st = tfi_config_int(c, "n_layer", 1, 4096, &s->layers)) < 0 ||
        (st = tfi_config_int(c, "n_head", 1, 4096, &s->heads)) < 0 ||
        (st = tfi_config_int(c, "n_embd", 1, 1 << 20, &s->width)) < 0 ||
        (st = tfi_config_int(c, "n_inner", 1, 1 << 22, &s->inner)) < 0 ||
        (st = tfi_config_activation(c, "activation_function", &s->activation)) < 0 ||
        (st = tfi_json_float(c, "layer_norm_epsilon", 0, 1, &eps)) < 0 ||
        (st = tfi_json_bool(c, "scale_attn_weights", &s->scale_weights)) < 0 ||
        (st = tfi_json_bool(c, "scale_attn_by_inverse_layer_idx", &s->scale_by_layer)) < 0 ||
        (st = tfi_json_bool(c, "add_cross_attention", &cross)) < 0 || (st = tfi_json_bool(c, "is_causal", &causal)) < 0)
        return st;
    if (cross)
        return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: \"add_cross_attention\" is true: GPT-2 with an encoder is not built",
                        c.file);
    if (!causal)
        return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: \"is_causal\" is false: GPT-2 that looks ahead is not built", c.file);
    if (s->width % s->heads != 0)
        return tfi_fail(TF_STATUS_CORRUPT, "%s: \"n_embd\" is %d, no multiple of \"n_head\" = %d", c.file, (int)s->width,
                        (int)s->heads);
    if (!s->inner) s->inner = 4 * s->width;
    s->eps = (float)eps;
    return TF_STATUS_OK;
}

static void fill_facts(tfi_model *m, const shape *s)
{
    m->layers = s->layers;
    m->heads = s->heads;
    m->head_size = s->width / s->heads;
    m->width = m->input_width = s->width;
    m->vocab_size = s->vocab;
    m->max_input_tokens = s->positions;
    m->pooled_missing = "pooler (this family has none)";
}

/* ---- layers ---- */

/* x W + b + residual, from `name`.weight [inputs, outputs] and `name`.bias. */
static int32_t conv1d(tfi_family *f, const char *value, int32_t x, const char *name, int64_t outputs, tfi_activation activation,
                      int32_t residual, tfi_shard shard, tfi_dtype dtype)
{
    char full[TFI_NAME_BYTES + 8];

    snprintf(full, sizeof full, "%s.weight", name);
    const int32_t weight = tfi_family_transposed(f, full, outputs, tfi_family_cols(f, x), shard);
    snprintf(full, sizeof full, "%s.bias", name);
    return tfi_build_linear(&f->build, value, x, weight, tfi_family_vector(f, full, outputs), activation, residual, dtype);
}

static float attention_scale(const shape *s, int layer)
{
    const float scale = s->scale_weights ? 1.0f / sqrtf((float)(s->width / s->heads)) : 1.0f;
    return s->scale_by_layer ? scale / (float)(layer + 1) : scale;
}

static int32_t layer(tfi_family *f, const shape *s, tfi_attend attend, int i, int32_t x)
{
    char tensor[TFI_NAME_BYTES], value[TFI_NAME_BYTES];
    const tfi_attention_spec spec = {.attend = attend,
                                     .layer = i,
                                     .heads = s->heads,
                                     .head_size = s->width / s->heads,
                                     .scale = attention_scale(s, i),
                                     .bias = -1};

    const int32_t before = tfi_family_norm(f, tfi_family_name(value, "layer.%d.attention.norm", i), x, -1,
                                           tfi_family_name(tensor, "h.%d.ln_1", i), s->eps, f->dtype);
    const int32_t qkv = conv1d(f, tfi_family_name(value, "layer.%d.qkv", i), before,
                               tfi_family_name(tensor, "h.%d.attn.c_attn", i), 3 * (int64_t)s->width, TFI_ACT_NONE, -1,
                               TFI_SHARD_HEADS, f->dtype);
    const int32_t mixed = tfi_build_attention(&f->build, tfi_family_name(value, "layer.%d.attention", i), qkv, &spec);
    const int32_t middle = conv1d(f, tfi_family_name(value, "layer.%d.attention.out", i), mixed,
                                  tfi_family_name(tensor, "h.%d.attn.c_proj", i), s->width, TFI_ACT_NONE, x, TFI_SHARD_ROW,
                                  TFI_F32);
    const int32_t normed = tfi_family_norm(f, tfi_family_name(value, "layer.%d.ffn.norm", i), middle, -1,
                                           tfi_family_name(tensor, "h.%d.ln_2", i), s->eps, f->dtype);
    const int32_t inner = conv1d(f, tfi_family_name(value, "layer.%d.ffn.in", i), normed,
                                 tfi_family_name(tensor, "h.%d.mlp.c_fc", i), s->inner, s->activation, -1, TFI_SHARD_COLUMN,
                                 f->dtype);
    return conv1d(f, tfi_family_name(value, "layer.%d", i), inner, tfi_family_name(tensor, "h.%d.mlp.c_proj", i), s->width,
                  TFI_ACT_NONE, middle, TFI_SHARD_ROW, TFI_F32);
}

/* Embeddings and layers, before the final norm. */
static int32_t layers(tfi_family *f, const shape *s, tfi_attend attend, int32_t *hidden)
{
    const int32_t word = tfi_family_matrix(f, "wte.weight", s->vocab, s->width, TFI_SHARD_VOCAB);
    const int32_t position = tfi_family_matrix(f, "wpe.weight", s->positions, s->width, TFI_SHARD_NONE);
    int32_t x = tfi_build_embed(&f->build, "embeddings", word, position, -1, TFI_F32);

    for (int i = 0; i < s->layers && f->build.status == TF_STATUS_OK; i++) {
        if (hidden) hidden[i] = x;
        x = layer(f, s, attend, i, x);
    }
    return x;
}

static int32_t final_norm(tfi_family *f, const shape *s, const char *value, int32_t x, tfi_dtype dtype)
{
    return tfi_family_norm(f, value, x, -1, "ln_f", s->eps, dtype);
}

/* ---- heads: the rows they need are chosen before the final norm, so that it is computed for those alone ---- */

static int32_t lm_logits(tfi_family *f, const shape *s, const char *value, int32_t x)
{
    int tied = 1;
    const tf_status st = tfi_json_bool(f->config, "tie_word_embeddings", &tied);

    if (st < 0) tfi_build_fail(&f->build, st);
    const int32_t rows = tfi_build_gather(&f->build, "selected", x);
    const int32_t normed = final_norm(f, s, "lm.norm", rows, f->dtype);
    const int32_t weight = tfi_family_head_matrix(f, "lm_head.weight", "wte.weight", tied, s->vocab, s->width);
    return tfi_build_linear(&f->build, value, normed, weight, -1, TFI_ACT_NONE, -1, TFI_F32);
}

static void step(tfi_family *f, const shape *s)
{
    tfi_model *m = f->model;

    tfi_family_step(f);
    tfi_build_kv_copy(&f->build);
    m->step_final = layers(f, s, TFI_ATTEND_CACHE, NULL);
    tfi_build_keep(&f->build, m->step_final);
    m->logits = lm_logits(f, s, "logits", m->step_final);
    tfi_build_draw(&f->build, m->logits, &m->draw);
    m->store = (tfi_store_shape){.layers = s->layers, .heads = s->heads, .head_size = s->width / s->heads, .dtype = f->dtype};
    m->max_context_tokens = s->positions;
    m->tasks |= TF_TASK_GENERATE;
}

static void base_head(tfi_family *f, const shape *s, int32_t x)
{
    (void)f;
    (void)s;
    (void)x;
}

static void lm_head(tfi_family *f, const shape *s, int32_t x)
{
    f->model->token_logits = lm_logits(f, s, "token_logits", x);
    step(f, s);
}

static void sequence_head(tfi_family *f, const shape *s, int32_t x)
{
    const tf_status st = tfi_config_int(f->config, "pad_token_id", -1, 1 << 27, &f->model->last_pad);

    if (st < 0) tfi_build_fail(&f->build, st);
    tfi_family_labels(f);
    f->dtype = TFI_F32;
    const int32_t normed = final_norm(f, s, "score.norm", tfi_build_gather_last(&f->build, "last", x), TFI_F32);
    const int32_t weight = tfi_family_matrix(f, "score.weight", f->model->labels, s->width, TFI_SHARD_NONE);
    f->model->sequence_logits = tfi_build_linear(&f->build, "sequence_logits", normed, weight, -1, TFI_ACT_NONE, -1, TFI_F32);
    f->model->tasks |= TF_TASK_CLASSIFY;
}

static void token_head(tfi_family *f, const shape *s, int32_t x)
{
    tfi_family_labels(f);
    f->dtype = TFI_F32;
    const int32_t normed = final_norm(f, s, "classifier.norm", tfi_build_gather(&f->build, "selected", x), TFI_F32);
    f->model->token_logits =
        tfi_family_linear(f, "token_logits", normed, "classifier", f->model->labels, TFI_ACT_NONE, TFI_SHARD_NONE, TFI_F32);
    f->model->tasks |= TF_TASK_TOKEN_CLASSIFY;
}

typedef void head(tfi_family *f, const shape *s, int32_t x);

static head *find_head(tfi_family *f)
{
    static const struct {
        const char *name;
        head *build;
    } heads[] = {
        {"GPT2Model", base_head},
        {"GPT2LMHeadModel", lm_head},
        {"GPT2ForSequenceClassification", sequence_head},
        {"GPT2ForTokenClassification", token_head},
    };
    const char *name = tfi_family_class(f, "GPT2Model");

    if (!name) return NULL;
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++)
        if (strcmp(heads[i].name, name) == 0) return heads[i].build;
    tfi_family_refuse_class(f, name);
    return NULL;
}

void tfi_gpt2_build(tfi_family *f, const tfi_sentence *sentence)
{
    tfi_model *m = f->model;
    tf_status status;
    shape s;

    f->prefix = "transformer.";
    head *build_head = find_head(f);
    if (!build_head) return;
    if ((status = read_shape(f->config, &s)) < 0) {
        tfi_build_fail(&f->build, status);
        return;
    }
    fill_facts(m, &s);
    m->tasks = TF_TASK_ENCODE;
    if (!(m->hidden = tfi_arena_alloc(f->arena, (size_t)(s.layers + 1) * sizeof *m->hidden))) {
        tfi_build_fail(&f->build, TF_STATUS_NOMEM);
        return;
    }
    const int32_t x = layers(f, &s, TFI_ATTEND_CAUSAL, m->hidden);
    tfi_build_keep(&f->build, x);
    m->hidden[s.layers] = final_norm(f, &s, "hidden", x, TFI_F32);
    tfi_family_embedding(f, sentence, m->hidden[s.layers], -1);
    build_head(f, &s, x);
}
