#include "models/family.h"

#include <stdio.h>
#include <string.h>

#include "base/status.h"

enum { NAME_BYTES = 256 };

/* A tensor by exact name or, for LayerNorm, by the name TensorFlow checkpoints had for the same thing. */
static const tfi_tensor *find_either(const tfi_source *s, const char *name)
{
    static const char *const aliases[][2] = {{"LayerNorm.weight", "LayerNorm.gamma"}, {"LayerNorm.bias", "LayerNorm.beta"}};
    const tfi_tensor *t = tfi_source_tensor(s, name);
    const size_t n = strlen(name);

    for (int i = 0; !t && i < 2; i++) {
        const size_t k = strlen(aliases[i][0]);
        char old[NAME_BYTES];
        if (n < k || n >= sizeof old || strcmp(name + n - k, aliases[i][0]) != 0) continue;
        snprintf(old, sizeof old, "%.*s%s", (int)(n - k), name, aliases[i][1]);
        t = tfi_source_tensor(s, old);
    }
    return t;
}

const tfi_tensor *tfi_family_find(const tfi_family *f, const char *name)
{
    char full[NAME_BYTES];

    snprintf(full, sizeof full, "%s%s", f->prefix, name);
    const tfi_tensor *t = find_either(f->source, full);
    return t ? t : find_either(f->source, name);
}

static const tfi_tensor *need(tfi_family *f, const char *name)
{
    if (f->build.status < 0) return NULL;
    const tfi_tensor *t = tfi_family_find(f, name);
    if (!t)
        tfi_build_fail(&f->build, tfi_fail(TF_STATUS_NOT_FOUND, "%s: %s needs the tensor %s, which the checkpoint does not have",
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
        tfi_build_fail(&f->build, tfi_fail(TF_STATUS_CORRUPT, "%s: tensor %s has shape [%s], [%lld] is expected from config.json",
                                           f->source->files.label, t->name, shape, (long long)cols));
    else
        tfi_build_fail(&f->build, tfi_fail(TF_STATUS_CORRUPT, "%s: tensor %s has shape [%s], [%lld, %lld] is expected from config.json",
                                           f->source->files.label, t->name, shape, (long long)rows, (long long)cols));
    return 0;
}

int32_t tfi_family_matrix(tfi_family *f, const char *name, int64_t rows, int64_t cols, tfi_shard shard)
{
    const tfi_tensor *t = need(f, name);

    if (!t || !has_shape(f, t, 2, rows, cols)) return -1;
    return tfi_build_weight(&f->build, &(tfi_weight){.name = t->name, .rows = t->shape[0], .cols = t->shape[1], .dtype = f->dtype,
                                                     .shard = shard, .parts = 1, .part = {t}, .part_rows = {t->shape[0]}});
}

int32_t tfi_family_vector(tfi_family *f, const char *name, int64_t cols)
{
    const tfi_tensor *t = need(f, name);

    if (!t || !has_shape(f, t, 1, 0, cols)) return -1;
    return tfi_build_weight(&f->build, &(tfi_weight){.name = t->name, .rows = 1, .cols = t->shape[0], .dtype = TFI_F32, .parts = 1,
                                                     .part = {t}, .part_rows = {t->shape[0]}});
}

/* rank 2: matrices [rows, cols] stacked along rows; rank 1: vectors of cols stacked along cols. */
static int32_t stack(tfi_family *f, const char *const names[3], int rank, int64_t rows, int64_t cols)
{
    tfi_weight w = {.dtype = rank == 2 ? f->dtype : TFI_F32, .shard = rank == 2 ? TFI_SHARD_HEADS : TFI_SHARD_NONE, .parts = 3,
                    .rows = rank == 2 ? 3 * rows : 1, .cols = rank == 2 ? cols : 3 * cols};

    for (int i = 0; i < 3; i++) {
        w.part[i] = need(f, names[i]);
        if (!w.part[i] || !has_shape(f, w.part[i], rank, rows, cols)) return -1;
        w.part_rows[i] = rank == 2 ? rows : cols;
    }
    w.name = w.part[0]->name;
    return tfi_build_weight(&f->build, &w);
}

int32_t tfi_family_stack(tfi_family *f, const char *const names[3], int64_t rows, int64_t cols)
{
    return stack(f, names, 2, rows, cols);
}

int32_t tfi_family_stack_bias(tfi_family *f, const char *const names[3], int64_t cols)
{
    return stack(f, names, 1, 0, cols);
}

int64_t tfi_family_cols(const tfi_family *f, int32_t value)
{
    return f->build.status < 0 || value < 0 ? 0 : f->build.graph.values[value].cols;
}

int32_t tfi_family_linear(tfi_family *f, const char *value, int32_t x, const char *name, int64_t outputs, tfi_activation activation,
                          tfi_shard shard, tfi_dtype dtype)
{
    char full[NAME_BYTES];

    snprintf(full, sizeof full, "%s.weight", name);
    const int32_t weight = tfi_family_matrix(f, full, outputs, tfi_family_cols(f, x), shard);
    snprintf(full, sizeof full, "%s.bias", name);
    return tfi_build_linear(&f->build, value, x, weight, tfi_family_vector(f, full, outputs), activation, -1, dtype);
}

int32_t tfi_family_norm(tfi_family *f, const char *value, int32_t x, int32_t residual, const char *name, float eps, tfi_dtype dtype)
{
    const int64_t cols = tfi_family_cols(f, x);
    char full[NAME_BYTES];

    snprintf(full, sizeof full, "%s.weight", name);
    const int32_t gain = tfi_family_vector(f, full, cols);
    snprintf(full, sizeof full, "%s.bias", name);
    return tfi_build_norm(&f->build, value, x, residual, gain, tfi_family_vector(f, full, cols), eps, dtype);
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
        {"bert", tfi_bert_build},       {"roberta", tfi_bert_build}, {"camembert", tfi_bert_build}, {"xlm-roberta", tfi_bert_build},
        {"distilbert", tfi_bert_build}, {"electra", tfi_bert_build},
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
        return tfi_build_finish(&f->build, NULL, &f->model->graph);
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
    char file[600];
    json_t *root;
    tfi_files files = source->files;

    *out = (tfi_model){.position_pad = -1, .pooled = -1, .token_logits = -1, .sequence_logits = -1, .embedding = -1,
                       .embedding_normalized = -1};
    tf_status status = tfi_config_read(&files, "config.json", 0, &root);
    if (status == TF_STATUS_NOT_FOUND) return tfi_fail(status, "%s: no file config.json", source->files.label);
    if (status < 0) return status;
    snprintf(file, sizeof file, "%s/config.json", source->files.label);
    tfi_family f = {.source = source, .config = {root, file}, .prefix = "", .dtype = dtype, .arena = arena, .model = out};
    status = build_family(&f, sentence);
    json_decref(root);
    if (status == TF_STATUS_OK) out->parameters = count_parameters(&out->graph);
    return status;
}
