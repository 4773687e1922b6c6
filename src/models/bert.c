/* BERT and its relatives (RoBERTa, CamemBERT, XLM-RoBERTa, DistilBERT, ELECTRA): config keys, tensor names, heads. */
#include <stdio.h>
#include <string.h>

#include <tfinfer/tfinfer.h>

#include "base/status.h"
#include "models/encoder.h"

/* What tells one family of this file from another. */
typedef struct dialect {
    const char *model_type, *prefix, *class_prefix;
    const char *key_width, *key_layers, *key_heads, *key_inner, *key_activation;
    int32_t vocab, width, layers, heads, inner, types, pad; /* transformers' defaults where config.json is silent */
    int position_after_pad;                                 /* positions start at pad + 1 */
    tfi_encoder_names names;
} dialect;

#define BERT_NAMES                                                                                                       \
    {                                                                                                                    \
        .word = "embeddings.word_embeddings", .position = "embeddings.position_embeddings",                              \
        .type = "embeddings.token_type_embeddings", .embed_norm = "embeddings.LayerNorm", .project = "embeddings_project", \
        .query = "encoder.layer.%d.attention.self.query", .key = "encoder.layer.%d.attention.self.key",                  \
        .value = "encoder.layer.%d.attention.self.value", .attention_out = "encoder.layer.%d.attention.output.dense",    \
        .attention_norm = "encoder.layer.%d.attention.output.LayerNorm", .ffn_in = "encoder.layer.%d.intermediate.dense", \
        .ffn_out = "encoder.layer.%d.output.dense", .ffn_norm = "encoder.layer.%d.output.LayerNorm",                     \
    }
#define BERT_KEYS                                                                                                        \
    .key_width = "hidden_size", .key_layers = "num_hidden_layers", .key_heads = "num_attention_heads",                   \
    .key_inner = "intermediate_size", .key_activation = "hidden_act"
#define BASE_SIZES .width = 768, .layers = 12, .heads = 12, .inner = 3072

static const dialect dialects[] = {
    {"bert", "bert.", "Bert", BERT_KEYS, .vocab = 30522, BASE_SIZES, .types = 2, .pad = 0, .names = BERT_NAMES},
    {"roberta", "roberta.", "Roberta", BERT_KEYS, .vocab = 50265, BASE_SIZES, .types = 2, .pad = 1, .position_after_pad = 1,
     .names = BERT_NAMES},
    {"camembert", "roberta.", "Camembert", BERT_KEYS, .vocab = 30522, BASE_SIZES, .types = 2, .pad = 1, .position_after_pad = 1,
     .names = BERT_NAMES},
    {"xlm-roberta", "roberta.", "XLMRoberta", BERT_KEYS, .vocab = 30522, BASE_SIZES, .types = 2, .pad = 1, .position_after_pad = 1,
     .names = BERT_NAMES},
    {"electra", "electra.", "Electra", BERT_KEYS, .vocab = 30522, .width = 256, .layers = 12, .heads = 4, .inner = 1024, .types = 2,
     .pad = 0, .names = BERT_NAMES},
    {"distilbert", "distilbert.", "DistilBert", .key_width = "dim", .key_layers = "n_layers", .key_heads = "n_heads",
     .key_inner = "hidden_dim", .key_activation = "activation", .vocab = 30522, .width = 768, .layers = 6, .heads = 12, .inner = 3072,
     .types = 0, .pad = 0,
     .names = {.word = "embeddings.word_embeddings", .position = "embeddings.position_embeddings", .embed_norm = "embeddings.LayerNorm",
               .query = "transformer.layer.%d.attention.q_lin", .key = "transformer.layer.%d.attention.k_lin",
               .value = "transformer.layer.%d.attention.v_lin", .attention_out = "transformer.layer.%d.attention.out_lin",
               .attention_norm = "transformer.layer.%d.sa_layer_norm", .ffn_in = "transformer.layer.%d.ffn.lin1",
               .ffn_out = "transformer.layer.%d.ffn.lin2", .ffn_norm = "transformer.layer.%d.output_layer_norm"}},
};

/* The models' own code fixes these, whatever config.json says. */
static int is_bert(const dialect *d)
{
    return strcmp(d->model_type, "bert") == 0;
}

static int is_electra(const dialect *d)
{
    return strcmp(d->model_type, "electra") == 0;
}

static int is_distilbert(const dialect *d)
{
    return strcmp(d->model_type, "distilbert") == 0;
}

/* ---- config.json ---- */

/* Absolute positions and a bidirectional encoder are all these builders know. */
static tf_status refuse_variants(tfi_json c)
{
    const char *positions = "absolute";
    int decoder = 0, cross = 0;
    tf_status s;

    if ((s = tfi_json_string(c, "position_embedding_type", &positions)) < 0) return s;
    if (strcmp(positions, "absolute") != 0)
        return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: \"position_embedding_type\": \"%s\" is not built", c.file, positions);
    if ((s = tfi_json_bool(c, "is_decoder", &decoder)) < 0 || (s = tfi_json_bool(c, "add_cross_attention", &cross)) < 0) return s;
    if (decoder || cross)
        return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: \"%s\" is true: a BERT used as a decoder is not built", c.file,
                        decoder ? "is_decoder" : "add_cross_attention");
    return TF_STATUS_OK;
}

static tf_status read_shape(tfi_family *f, const dialect *d, tfi_encoder_shape *s, int32_t *pad)
{
    const tfi_json c = f->config;
    double eps = 1e-12;
    tf_status st;

    *s = (tfi_encoder_shape){.vocab = d->vocab, .positions = 512, .types = d->types, .layers = d->layers, .heads = d->heads,
                             .width = d->width, .inner = d->inner, .activation = TFI_ACT_GELU};
    *pad = d->pad;
    if ((st = refuse_variants(c)) < 0 || (st = tfi_config_int(c, "vocab_size", 1, 1 << 27, &s->vocab)) < 0 ||
        (st = tfi_config_int(c, "max_position_embeddings", 1, 1 << 24, &s->positions)) < 0 ||
        (st = tfi_config_int(c, d->key_layers, 1, 4096, &s->layers)) < 0 ||
        (st = tfi_config_int(c, d->key_heads, 1, 4096, &s->heads)) < 0 ||
        (st = tfi_config_int(c, d->key_width, 1, 1 << 20, &s->width)) < 0 ||
        (st = tfi_config_int(c, d->key_inner, 1, 1 << 22, &s->inner)) < 0 ||
        (st = tfi_config_int(c, "pad_token_id", -1, 1 << 27, pad)) < 0 ||
        (st = tfi_config_activation(c, d->key_activation, &s->activation)) < 0)
        return st;
    if (!is_distilbert(d) && ((st = tfi_config_int(c, "type_vocab_size", 1, 1 << 16, &s->types)) < 0 ||
                              (st = tfi_json_float(c, "layer_norm_eps", 0, 1, &eps)) < 0))
        return st;
    s->eps = (float)eps;
    s->embed_width = is_electra(d) ? 128 : s->width;
    if (is_electra(d) && (st = tfi_config_int(c, "embedding_size", 1, 1 << 20, &s->embed_width)) < 0) return st;
    if (s->width % s->heads != 0)
        return tfi_fail(TF_STATUS_CORRUPT, "%s: \"%s\" is %d, no multiple of \"%s\" = %d", c.file, d->key_width, (int)s->width,
                        d->key_heads, (int)s->heads);
    return TF_STATUS_OK;
}

static void fill_facts(tfi_model *m, const dialect *d, const tfi_encoder_shape *s, int32_t pad)
{
    m->layers = s->layers;
    m->heads = s->heads;
    m->width = s->width;
    m->head_size = s->width / s->heads;
    m->input_width = s->embed_width;
    m->vocab_size = s->vocab;
    m->type_count = s->types;
    m->max_input_tokens = s->positions;
    if (d->position_after_pad) {
        m->position_pad = pad;
        m->position_base = pad + 1;
        m->max_input_tokens = s->positions - pad - 1;
    }
}

/* ---- heads: each fills outputs of the model from the last hidden state. They are small and compute in fp32 whatever the
 * encoder does; only the matrix over the vocabulary has the encoder's type ---- */

typedef struct head_context {
    const dialect *d;
    const tfi_encoder_shape *shape;
    int32_t final, first;
    tfi_dtype dtype; /* of the encoder's matrices */
} head_context;

/* BertPooler, RobertaPooler: tanh over the first token. Base models of sentence encoders often come without one. */
static void pooler(tfi_family *f, const head_context *h, int required)
{
    if (!required && f->build.status == TF_STATUS_OK && !tfi_family_find(f, "pooler.dense.weight")) {
        f->model->pooled_missing = "pooler.dense.weight";
        return;
    }
    f->model->pooled =
        tfi_family_linear(f, "pooled", h->first, "pooler.dense", h->shape->width, TFI_ACT_TANH, TFI_SHARD_NONE, f->dtype);
}

static void base_head(tfi_family *f, const head_context *h)
{
    if (is_electra(h->d) || is_distilbert(h->d))
        f->model->pooled_missing = "pooler (this family has none)";
    else
        pooler(f, h, 0);
}

/* Names of the masked-LM head, by family. */
typedef struct lm_names {
    const char *dense, *norm, *decoder, *bias[2];
} lm_names;

static const lm_names *lm_names_of(const dialect *d)
{
    static const lm_names bert = {"cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.decoder.weight",
                                  {"cls.predictions.decoder.bias", "cls.predictions.bias"}};
    static const lm_names roberta = {"lm_head.dense", "lm_head.layer_norm", "lm_head.decoder.weight",
                                     {"lm_head.decoder.bias", "lm_head.bias"}};
    static const lm_names electra = {"generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head.weight",
                                     {"generator_lm_head.bias", "generator_lm_head.bias"}};
    static const lm_names distilbert = {"vocab_transform", "vocab_layer_norm", "vocab_projector.weight",
                                        {"vocab_projector.bias", "vocab_projector.bias"}};

    return is_bert(d) ? &bert : is_electra(d) ? &electra : is_distilbert(d) ? &distilbert : &roberta;
}

static int32_t lm_matrix(tfi_family *f, const head_context *h, const char *name)
{
    int tied = 1;
    const tf_status s = tfi_json_bool(f->config, "tie_word_embeddings", &tied);

    if (s < 0) tfi_build_fail(&f->build, s);
    f->dtype = h->dtype;
    const int32_t matrix =
        tfi_family_head_matrix(f, name, "embeddings.word_embeddings.weight", tied, h->shape->vocab, h->shape->embed_width);
    f->dtype = TFI_F32;
    return matrix;
}

static void masked_lm_head(tfi_family *f, const head_context *h)
{
    const lm_names *n = lm_names_of(h->d);
    /* BERT and DistilBERT follow config.json; RoBERTa and ELECTRA always use gelu here. */
    const tfi_activation activation = is_bert(h->d) || is_distilbert(h->d) ? h->shape->activation : TFI_ACT_GELU;
    const char *bias = tfi_family_find(f, n->bias[0]) ? n->bias[0] : n->bias[1];

    const int32_t rows = tfi_build_gather(&f->build, "selected", h->final);
    const int32_t dense = tfi_family_linear(f, "lm.dense", rows, n->dense, h->shape->embed_width, activation, TFI_SHARD_NONE, TFI_F32);
    const int32_t norm = tfi_family_norm(f, "lm.norm", dense, -1, n->norm, h->shape->eps, h->dtype);
    const int32_t weight = lm_matrix(f, h, n->decoder);
    f->model->token_logits = tfi_build_linear(&f->build, "token_logits", norm, weight, tfi_family_vector(f, bias, h->shape->vocab),
                                              TFI_ACT_NONE, -1, TFI_F32);
    f->model->tasks |= TF_TASK_FILL_MASK;
}

static void next_sentence_head(tfi_family *f, const head_context *h)
{
    tfi_family_labels(f);
    pooler(f, h, 1);
    f->model->sequence_logits = tfi_family_linear(f, "sequence_logits", f->model->pooled, "cls.seq_relationship", 2, TFI_ACT_NONE,
                                                  TFI_SHARD_NONE, TFI_F32);
    f->model->tasks |= TF_TASK_CLASSIFY;
}

static void pretraining_head(tfi_family *f, const head_context *h)
{
    if (is_electra(h->d)) {
        const int32_t rows = tfi_build_gather(&f->build, "selected", h->final);
        const int32_t dense = tfi_family_linear(f, "discriminator.dense", rows, "discriminator_predictions.dense", h->shape->width,
                                                h->shape->activation, TFI_SHARD_NONE, f->dtype);
        f->model->token_logits = tfi_family_linear(f, "token_logits", dense, "discriminator_predictions.dense_prediction", 1,
                                                   TFI_ACT_NONE, TFI_SHARD_NONE, TFI_F32);
    } else {
        masked_lm_head(f, h);
        next_sentence_head(f, h);
    }
}

static void sequence_head(tfi_family *f, const head_context *h)
{
    int32_t x;
    const char *name = "classifier.out_proj";

    tfi_family_labels(f);
    if (is_bert(h->d)) {
        pooler(f, h, 1);
        x = f->model->pooled;
        name = "classifier";
    } else if (is_distilbert(h->d)) {
        x = tfi_family_linear(f, "classifier.dense", h->first, "pre_classifier", h->shape->width, TFI_ACT_RELU, TFI_SHARD_NONE, f->dtype);
        name = "classifier";
    } else {
        /* ELECTRA's head has gelu where RoBERTa's has tanh. */
        x = tfi_family_linear(f, "classifier.dense", h->first, "classifier.dense", h->shape->width,
                              is_electra(h->d) ? TFI_ACT_GELU : TFI_ACT_TANH, TFI_SHARD_NONE, f->dtype);
    }
    f->model->sequence_logits =
        tfi_family_linear(f, "sequence_logits", x, name, f->model->labels, TFI_ACT_NONE, TFI_SHARD_NONE, TFI_F32);
    f->model->tasks |= TF_TASK_CLASSIFY;
}

static void token_logits_head(tfi_family *f, const head_context *h, const char *name, int64_t outputs)
{
    const int32_t rows = tfi_build_gather(&f->build, "selected", h->final);
    f->model->token_logits = tfi_family_linear(f, "token_logits", rows, name, outputs, TFI_ACT_NONE, TFI_SHARD_NONE, TFI_F32);
}

static void token_head(tfi_family *f, const head_context *h)
{
    tfi_family_labels(f);
    token_logits_head(f, h, "classifier", f->model->labels);
    f->model->tasks |= TF_TASK_TOKEN_CLASSIFY;
}

static void answer_head(tfi_family *f, const head_context *h)
{
    token_logits_head(f, h, "qa_outputs", 2);
    f->model->tasks |= TF_TASK_ANSWER;
}

typedef struct head {
    const char *suffix; /* of the class name */
    void (*build)(tfi_family *f, const head_context *h);
    const char *only;   /* class prefixes that have it, NULL: all */
} head;

static const head heads[] = {
    {"Model", base_head, NULL},
    {"ForMaskedLM", masked_lm_head, NULL},
    {"ForPreTraining", pretraining_head, "Bert Electra"},
    {"ForNextSentencePrediction", next_sentence_head, "Bert"},
    {"ForSequenceClassification", sequence_head, NULL},
    {"ForTokenClassification", token_head, NULL},
    {"ForQuestionAnswering", answer_head, NULL},
};

/* Is `word` one of the words of `list`? */
static int listed(const char *list, const char *word)
{
    const size_t n = strlen(word);

    for (const char *p = list; (p = strstr(p, word)) != NULL; p += n)
        if ((p == list || p[-1] == ' ') && (p[n] == '\0' || p[n] == ' ')) return 1;
    return 0;
}

/* The head of the checkpoint's class; without one the bare encoder, as AutoModel would give. */
static const head *find_head(tfi_family *f, const dialect *d)
{
    const size_t n = strlen(d->class_prefix);
    char bare[64];

    snprintf(bare, sizeof bare, "%sModel", d->class_prefix);
    const char *name = tfi_family_class(f, bare);
    if (!name) return NULL;
    for (size_t i = 0; i < sizeof heads / sizeof heads[0] && strncmp(name, d->class_prefix, n) == 0; i++)
        if (strcmp(name + n, heads[i].suffix) == 0 && (!heads[i].only || listed(heads[i].only, d->class_prefix))) return &heads[i];
    tfi_family_refuse_class(f, name);
    return NULL;
}

void tfi_bert_build(tfi_family *f, const tfi_sentence *sentence)
{
    const dialect *d = dialects;
    tfi_encoder_shape shape;
    tf_status status;
    int32_t pad;

    while (strcmp(d->model_type, f->model->family) != 0) d++;
    f->prefix = d->prefix;
    const head *h = find_head(f, d);
    if (!h) return;
    if ((status = read_shape(f, d, &shape, &pad)) < 0) {
        tfi_build_fail(&f->build, status);
        return;
    }
    fill_facts(f->model, d, &shape, pad);
    if (f->model->max_input_tokens < 1) {
        tfi_build_fail(&f->build, tfi_fail(TF_STATUS_CORRUPT, "%s: %d positions leave no room behind \"pad_token_id\" = %d",
                                           f->config.file, (int)shape.positions, (int)pad));
        return;
    }
    f->model->tasks = TF_TASK_ENCODE;
    int32_t first;
    const int32_t final = tfi_encoder_build(f, &d->names, &shape, &first);
    if (f->build.status < 0) return;
    tfi_build_keep(&f->build, final);
    const head_context context = {d, &shape, final, first, f->dtype};
    f->dtype = TFI_F32;
    h->build(f, &context);
    tfi_family_embedding(f, sentence, final, first);
}
