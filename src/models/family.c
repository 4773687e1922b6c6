#include "models/family.h"

#include <stdio.h>
#include <string.h>

#include <tfinfer/tfinfer.h>

#include "base/status.h"

const char *tfi_family_name(char text[TFI_NAME_BYTES], const char *format, int layer)
{
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(text, TFI_NAME_BYTES, format, layer);
#pragma GCC diagnostic pop
    return text;
}

/* A tensor by exact name or, for LayerNorm, by the name TensorFlow checkpoints had for the same thing. */
static const tfi_tensor *find_either(const tfi_source *s, const char *name)
{
    static const char *const aliases[][2] = {{"LayerNorm.weight", "LayerNorm.gamma"}, {"LayerNorm.bias", "LayerNorm.beta"}};
    const tfi_tensor *t = tfi_source_tensor(s, name);
    const size_t n = strlen(name);

    for (int i = 0; !t && i < 2; i++) {
        const size_t k = strlen(aliases[i][0]);
        char old[TFI_NAME_BYTES];
        if (n < k || n >= sizeof old || strcmp(name + n - k, aliases[i][0]) != 0) continue;
        snprintf(old, sizeof old, "%.*s%s", (int)(n - k), name, aliases[i][1]);
        t = tfi_source_tensor(s, old);
    }
    return t;
}

const tfi_tensor *tfi_family_find(const tfi_family *f, const char *name)
{
    char full[TFI_NAME_BYTES];

    snprintf(full, sizeof full, "%s%s", f->prefix, name);
    const tfi_tensor *t = find_either(f->source, full);
    return t ? t : find_either(f->source, name);
}

static const tfi_tensor *need(tfi_family *f, const char *name)
{
    if (f->build.status < 0) return NULL;
    const tfi_tensor *t = tfi_family_find(f, name);
    if (!t)
        tfi_build_fail(&f->build,
                       tfi_fail(TF_STATUS_NOT_FOUND, "%s: %s needs the tensor %s, which the checkpoint does not have",
                                f->source->files.label, f->model->architecture, name));
    return t;
}

/* The tensor must be [rows, cols] (rank 2) or [cols] (rank 1); 0 means any. */
static int has_shape(tfi_family *f, const tfi_tensor *t, int rank, int64_t rows, int64_t cols)
{
    const int64_t have_rows = rank == 2 ? t->shape[0] : 1, have_cols = t->shape[rank - 1];

    if (t->rank == rank && (!rows || have_rows == rows) && (!cols || have_cols == cols)) {
        if (t->dtype <= TFI_F64) return 1;
        tfi_build_fail(&f->build, tfi_fail(TF_STATUS_CORRUPT, "%s: tensor %s holds %s, not floating-point numbers",
                                           f->source->files.label, t->name, tfi_dtype_name(t->dtype)));
        return 0;
    }
    char shape[128] = "";
    for (int i = 0, n = 0; i < t->rank && n < 100; i++)
        n += snprintf(shape + n, sizeof shape - (size_t)n, "%s%lld", i ? ", " : "", (long long)t->shape[i]);
    if (rank == 1)
        tfi_build_fail(&f->build,
                       tfi_fail(TF_STATUS_CORRUPT, "%s: tensor %s has shape [%s], [%lld] is expected from config.json",
                                f->source->files.label, t->name, shape, (long long)cols));
    else
        tfi_build_fail(&f->build,
                       tfi_fail(TF_STATUS_CORRUPT, "%s: tensor %s has shape [%s], [%lld, %lld] is expected from config.json",
                                f->source->files.label, t->name, shape, (long long)rows, (long long)cols));
    return 0;
}

int32_t tfi_family_matrix(tfi_family *f, const char *name, int64_t rows, int64_t cols, tfi_shard shard)
{
    const tfi_tensor *t = need(f, name);

    if (!t || !has_shape(f, t, 2, rows, cols)) return -1;
    return tfi_build_weight(&f->build, &(tfi_weight){.name = t->name,
                                                     .rows = t->shape[0],
                                                     .cols = t->shape[1],
                                                     .dtype = f->dtype,
                                                     .shard = shard,
                                                     .parts = 1,
                                                     .part = {t},
                                                     .part_rows = {t->shape[0]}});
}

int32_t tfi_family_scaled_vector(tfi_family *f, const char *name, int64_t cols, float scale)
{
    const tfi_tensor *t = need(f, name);

    if (!t || !has_shape(f, t, 1, 0, cols)) return -1;
    return tfi_build_weight(&f->build, &(tfi_weight){.name = t->name,
                                                     .rows = 1,
                                                     .cols = t->shape[0],
                                                     .dtype = TFI_F32,
                                                     .scale = scale == 1 ? 0 : scale,
                                                     .parts = 1,
                                                     .part = {t},
                                                     .part_rows = {t->shape[0]}});
}

int32_t tfi_family_vector(tfi_family *f, const char *name, int64_t cols)
{
    return tfi_family_scaled_vector(f, name, cols, 1);
}

int32_t tfi_family_relative(tfi_family *f, const char *name, int64_t heads, const tfi_relative *r)
{
    const tfi_tensor *t = need(f, name);

    if (!t || !has_shape(f, t, 2, r->buckets, heads)) return -1;
    return tfi_build_weight(&f->build, &(tfi_weight){.name = t->name,
                                                     .rows = r->buckets,
                                                     .cols = heads,
                                                     .dtype = TFI_F32,
                                                     .relative = *r,
                                                     .parts = 1,
                                                     .part = {t},
                                                     .part_rows = {r->buckets}});
}

int32_t tfi_family_transposed(tfi_family *f, const char *name, int64_t rows, int64_t cols, tfi_shard shard)
{
    const tfi_tensor *t = need(f, name);

    if (!t || !has_shape(f, t, 2, cols, rows)) return -1;
    return tfi_build_weight(&f->build, &(tfi_weight){.name = t->name,
                                                     .rows = rows,
                                                     .cols = cols,
                                                     .dtype = f->dtype,
                                                     .shard = shard,
                                                     .transposed = 1,
                                                     .parts = 1,
                                                     .part = {t},
                                                     .part_rows = {rows}});
}

/* rank 2: matrices [rows, cols] stacked along rows; rank 1: vectors of cols stacked along cols. */
static int32_t stack(tfi_family *f, const char *const *names, int count, int rank, int64_t rows, int64_t cols, tfi_shard shard)
{
    tfi_weight w = {.dtype = rank == 2 ? f->dtype : TFI_F32,
                    .shard = shard,
                    .parts = count,
                    .rows = rank == 2 ? count * rows : 1,
                    .cols = rank == 2 ? cols : count * cols};

    for (int i = 0; i < count; i++) {
        w.part[i] = need(f, names[i]);
        if (!w.part[i] || !has_shape(f, w.part[i], rank, rows, cols)) return -1;
        w.part_rows[i] = rank == 2 ? rows : cols;
    }
    w.name = w.part[0]->name;
    return tfi_build_weight(&f->build, &w);
}

int32_t tfi_family_stack(tfi_family *f, const char *const *names, int count, int64_t rows, int64_t cols, tfi_shard shard)
{
    return stack(f, names, count, 2, rows, cols, shard);
}

int32_t tfi_family_stack_bias(tfi_family *f, const char *const *names, int count, int64_t cols)
{
    return stack(f, names, count, 1, 0, cols, TFI_SHARD_NONE);
}

int32_t tfi_family_head_matrix(tfi_family *f, const char *own, const char *table, int tied, int64_t rows, int64_t cols)
{
    const tfi_tensor *mine = tfi_family_find(f, own), *shared = tfi_family_find(f, table);
    const int same = mine && shared && mine->data == shared->data;

    return tfi_family_matrix(f, !same && (mine || !tied) ? own : table, rows, cols, TFI_SHARD_VOCAB);
}

int64_t tfi_family_cols(const tfi_family *f, int32_t value)
{
    return f->build.status < 0 || value < 0 ? 0 : f->build.graph.values[value].cols;
}

int32_t tfi_family_linear(tfi_family *f, const char *value, int32_t x, const char *name, int64_t outputs,
                          tfi_activation activation, tfi_shard shard, tfi_dtype dtype)
{
    char full[TFI_NAME_BYTES];

    snprintf(full, sizeof full, "%s.weight", name);
    const int32_t weight = tfi_family_matrix(f, full, outputs, tfi_family_cols(f, x), shard);
    snprintf(full, sizeof full, "%s.bias", name);
    return tfi_build_linear(&f->build, value, x, weight, tfi_family_vector(f, full, outputs), activation, -1, dtype);
}

int32_t tfi_family_norm(tfi_family *f, const char *value, int32_t x, int32_t residual, const char *name, float eps,
                        tfi_dtype dtype)
{
    const int64_t cols = tfi_family_cols(f, x);
    char full[TFI_NAME_BYTES];

    snprintf(full, sizeof full, "%s.weight", name);
    const int32_t gain = tfi_family_vector(f, full, cols);
    snprintf(full, sizeof full, "%s.bias", name);
    return tfi_build_norm(&f->build, value, x, residual, gain, tfi_family_vector(f, full, cols), eps, dtype);
}

const char *tfi_family_class(tfi_family *f, const char *otherwise)
{
    const char *name = json_string_value(json_array_get(json_object_get(f->config.object, "architectures"), 0));

    if (!name) name = otherwise;
    if (!(f->model->architecture = tfi_arena_copy(f->arena, name, strlen(name)))) {
        f->model->architecture = "";
        tfi_build_fail(&f->build, TF_STATUS_NOMEM);
        return NULL;
    }
    return f->model->architecture;
}

void tfi_family_refuse_class(tfi_family *f, const char *name)
{
    tfi_build_fail(&f->build, tfi_fail(TF_STATUS_UNSUPPORTED, "%s: \"architectures\": the class %s of family %s is not built",
                                       f->config.file, name, f->model->family));
}

static tf_status read_problem(tfi_json c, tfi_problem *out)
{
    const char *name = NULL;
    const tf_status s = tfi_json_string(c, "problem_type", &name);

    if (s < 0 || !name) return s;
    if (strcmp(name, "regression") == 0) *out = TFI_PROBLEM_REGRESSION;
    else if (strcmp(name, "single_label_classification") == 0) *out = TFI_PROBLEM_SINGLE_LABEL;
    else if (strcmp(name, "multi_label_classification") == 0) *out = TFI_PROBLEM_MULTI_LABEL;
    else return tfi_fail(TF_STATUS_CORRUPT, "%s: \"problem_type\": \"%s\" is none of transformers'", c.file, name);
    return TF_STATUS_OK;
}

void tfi_family_labels(tfi_family *f)
{
    tf_status s;

    if ((s = tfi_config_labels(f->config, f->arena, &f->model->labels, &f->model->label_names)) < 0 ||
        (s = read_problem(f->config, &f->model->problem)) < 0)
        tfi_build_fail(&f->build, s);
}

void tfi_family_embedding(tfi_family *f, const tfi_sentence *s, int32_t final, int32_t first)
{
    tfi_model *m = f->model;
    char value[32];

    if (s->pooled_width && f->build.status == TF_STATUS_OK && s->pooled_width != m->width) {
        tfi_build_fail(&f->build, tfi_fail(TF_STATUS_CORRUPT, "%s: the pooling module expects width %d, the model has %d",
                                           f->source->files.label, (int)s->pooled_width, (int)m->width));
        return;
    }
    if (s->pooling == TFI_POOL_CLS && first >= 0) m->embedding = first;
    else m->embedding = tfi_build_pool(&f->build, "embedding.pooled", final, s->pooling, TFI_F32);
    const tfi_source *checkpoint = f->source;
    const char *prefix = f->prefix;
    const tfi_dtype dtype = f->dtype;
    f->prefix = "";
    f->dtype = TFI_F32;
    for (int i = 0; i < s->dense_count && f->build.status == TF_STATUS_OK; i++) {
        const tfi_dense *d = &s->dense[i];
        f->source = &d->source;
        int32_t residual = d->use_residual ? m->embedding : -1;
        if (d->use_residual && d->inputs != d->outputs)
            residual = tfi_build_linear(&f->build, "embedding.residual", m->embedding,
                                        tfi_family_matrix(f, "residual.weight", d->outputs, d->inputs, TFI_SHARD_NONE), -1,
                                        TFI_ACT_NONE, -1, TFI_F32);
        const int32_t weight = tfi_family_matrix(f, "linear.weight", d->outputs, d->inputs, TFI_SHARD_NONE);
        const int32_t bias = d->bias ? tfi_family_vector(f, "linear.bias", d->outputs) : -1;
        snprintf(value, sizeof value, "embedding.dense.%d", i);
        m->embedding = tfi_build_linear(&f->build, value, m->embedding, weight, bias, d->activation, residual, TFI_F32);
    }
    f->source = checkpoint;
    f->prefix = prefix;
    f->dtype = dtype;
    m->embedding_normalized = tfi_build_l2norm(&f->build, "embedding.normalized", m->embedding, 1e-12f);
    m->tasks |= TF_TASK_EMBED;
}

void tfi_family_step(tfi_family *f)
{
    f->has_step = 1;
    tfi_build_next(&f->build, &f->model->graph);
}

tfi_dtype tfi_model_stored_dtype(const tfi_source *source)
{
    int64_t bytes[TFI_F64 + 1] = {0};
    tfi_dtype most = TFI_F32;

    for (int64_t i = 0; i < source->tensor_count; i++) {
        const tfi_tensor *t = &source->tensors[i];
        if (t->dtype <= TFI_F64) bytes[t->dtype] += (int64_t)t->span;
    }
    for (tfi_dtype d = TFI_F32; d <= TFI_F64; d++)
        if (bytes[d] > bytes[most]) most = d;
    return most;
}

static tf_status build_family(tfi_family *f, const tfi_sentence *sentence)
{
    static const tfi_family_entry families[] = {
        {"bert", tfi_bert_build},        {"roberta", tfi_bert_build},    {"camembert", tfi_bert_build},
        {"xlm-roberta", tfi_bert_build}, {"distilbert", tfi_bert_build}, {"electra", tfi_bert_build},
        {"gpt2", tfi_gpt2_build},        {"t5", tfi_t5_build},           {"mt5", tfi_t5_build},
    };
    const char *type = NULL;
    tf_status status = tfi_json_string(f->config, "model_type", &type);

    if (status < 0) return status;
    if (!type) return tfi_fail(TF_STATUS_CORRUPT, "%s: \"model_type\" is missing", f->config.file);
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        if (strcmp(families[i].model_type, type) != 0) continue;
        f->model->family = families[i].model_type;
        tfi_build_begin(&f->build, f->arena, f->arena->memory);
        families[i].build(f, sentence);
        return f->has_step ? tfi_build_finish(&f->build, &f->model->graph, &f->model->step)
                           : tfi_build_finish(&f->build, NULL, &f->model->graph);
    }
    return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: \"model_type\": family \"%s\" is not built", f->config.file, type);
}

static int64_t count_parameters(const tfi_graph *g)
{
    int64_t n = 0;
    for (int32_t i = 0; i < g->weight_count; i++) n += g->weights[i].rows * g->weights[i].cols;
    return n;
}

tf_status tfi_model_build(const tfi_source *source, const tfi_sentence *sentence, tfi_dtype dtype, tfi_arena *arena,
                          tfi_model *out)
{
    char file[640];
    json_t *root;

    *out = (tfi_model){.position_pad = -1,
                       .pooled = -1,
                       .token_logits = -1,
                       .sequence_logits = -1,
                       .embedding = -1,
                       .embedding_normalized = -1,
                       .last_pad = -1,
                       .step_final = -1,
                       .logits = -1,
                       .draw = {-1, -1, -1}};
    tf_status status = tfi_config_read(&source->files, "config.json", 0, &root);
    if (status == TF_STATUS_NOT_FOUND) return tfi_fail(status, "%s: no file config.json", source->files.label);
    if (status < 0) return status;
    snprintf(file, sizeof file, "%s/config.json", source->files.label);
    tfi_family f = {.source = source, .config = {root, file}, .prefix = "", .dtype = dtype, .arena = arena, .model = out};
    status = build_family(&f, sentence);
    json_decref(root);
    if (status == TF_STATUS_OK) out->parameters = count_parameters(&out->graph);
    return status;
}
