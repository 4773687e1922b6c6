#include "models/encoder.h"

#include <math.h>
#include <stdio.h>

static int32_t table(tfi_family *f, const char *name, int64_t rows, int64_t cols, tfi_shard shard)
{
    char full[TFI_NAME_BYTES];

    if (!name) return -1;
    snprintf(full, sizeof full, "%s.weight", name);
    return tfi_family_matrix(f, full, rows, cols, shard);
}

static int32_t embeddings(tfi_family *f, const tfi_encoder_names *n, const tfi_encoder_shape *s)
{
    const int32_t word = table(f, n->word, s->vocab, s->embed_width, TFI_SHARD_VOCAB);
    const int32_t position = table(f, n->position, s->positions, s->embed_width, TFI_SHARD_NONE);
    const int32_t type = s->types > 0 ? table(f, n->type, s->types, s->embed_width, TFI_SHARD_NONE) : -1;
    const int32_t sum = tfi_build_embed(&f->build, "embeddings.sum", word, position, type, TFI_F32);
    const int32_t x = tfi_family_norm(f, "embeddings", sum, -1, n->embed_norm, s->eps, f->dtype);

    if (s->embed_width == s->width) return x;
    return tfi_family_linear(f, "embeddings.projected", x, n->project, s->width, TFI_ACT_NONE, TFI_SHARD_NONE, f->dtype);
}

/* One fused projection for Q, K and V: the ATTENTION op reads its three parts from one row. */
static int32_t qkv(tfi_family *f, const tfi_encoder_names *n, const tfi_encoder_shape *s, int layer, int32_t x)
{
    const char *const formats[3] = {n->query, n->key, n->value};
    char base[TFI_NAME_BYTES], names[3][TFI_NAME_BYTES + 8], value[TFI_NAME_BYTES];
    const char *const list[3] = {names[0], names[1], names[2]};

    for (int i = 0; i < 3; i++) snprintf(names[i], sizeof names[i], "%s.weight", tfi_family_name(base, formats[i], layer));
    const int32_t weight = tfi_family_stack(f, list, 3, s->width, s->width, TFI_SHARD_HEADS);
    for (int i = 0; i < 3; i++) snprintf(names[i], sizeof names[i], "%s.bias", tfi_family_name(base, formats[i], layer));
    const int32_t bias = tfi_family_stack_bias(f, list, 3, s->width);
    return tfi_build_linear(&f->build, tfi_family_name(value, "layer.%d.qkv", layer), x, weight, bias, TFI_ACT_NONE, -1, f->dtype);
}

static const char *part_name(char *out, const char *rows, const char *part)
{
    snprintf(out, TFI_NAME_BYTES, "%s.%s", rows, part);
    return out;
}

static int32_t attend(tfi_family *f, const tfi_encoder_names *n, const tfi_encoder_shape *s, int i, int32_t x)
{
    const int32_t head_size = s->width / s->heads;
    const tfi_attention_spec spec = {.heads = s->heads, .head_size = head_size, .scale = 1.0f / sqrtf((float)head_size), .bias = -1};
    char value[TFI_NAME_BYTES];

    return tfi_build_attention(&f->build, tfi_family_name(value, "layer.%d.attention", i), qkv(f, n, s, i, x), &spec);
}

/* What follows attention in layer i, row by row: x are the rows that the layer begins with. The outputs that a norm adds to the
 * residual stay fp32 in bf16: rounding them would be the largest error of a layer. fp16 has three more bits, and its device moves
 * these rows through memory. The last hidden state is fp32: heads read it in fp32. */
static int32_t finish_layer(tfi_family *f, const tfi_encoder_names *n, const tfi_encoder_shape *s, int i, const char *rows,
                            int32_t mixed, int32_t x)
{
    char tensor[TFI_NAME_BYTES], value[TFI_NAME_BYTES];
    const tfi_dtype added = f->dtype == TFI_F16 ? TFI_F16 : TFI_F32;

    const int32_t attended = tfi_family_linear(f, part_name(value, rows, "attention.out"), mixed,
                                               tfi_family_name(tensor, n->attention_out, i), s->width, TFI_ACT_NONE, TFI_SHARD_ROW, added);
    const int32_t middle = tfi_family_norm(f, part_name(value, rows, "attention.norm"), attended, x,
                                           tfi_family_name(tensor, n->attention_norm, i), s->eps, f->dtype);
    const int32_t inner = tfi_family_linear(f, part_name(value, rows, "ffn.in"), middle, tfi_family_name(tensor, n->ffn_in, i),
                                            s->inner, s->activation, TFI_SHARD_COLUMN, f->dtype);
    const int32_t out = tfi_family_linear(f, part_name(value, rows, "ffn.out"), inner, tfi_family_name(tensor, n->ffn_out, i),
                                          s->width, TFI_ACT_NONE, TFI_SHARD_ROW, added);
    return tfi_family_norm(f, rows, out, middle, tfi_family_name(tensor, n->ffn_norm, i), s->eps,
                           i + 1 < s->layers ? f->dtype : TFI_F32);
}

int32_t tfi_encoder_build(tfi_family *f, const tfi_encoder_names *names, const tfi_encoder_shape *shape, int32_t *first)
{
    tfi_model *m = f->model;
    char rows[TFI_NAME_BYTES];
    int32_t x, mixed = -1, before = -1;

    *first = -1;
    if (!(m->hidden = tfi_arena_alloc(f->arena, (size_t)(shape->layers + 1) * sizeof *m->hidden))) {
        tfi_build_fail(&f->build, TF_STATUS_NOMEM);
        return -1;
    }
    x = m->hidden[0] = embeddings(f, names, shape);
    for (int i = 0; i < shape->layers && f->build.status == TF_STATUS_OK; i++) {
        before = x;
        mixed = attend(f, names, shape, i, x);
        x = m->hidden[i + 1] = finish_layer(f, names, shape, i, tfi_family_name(rows, "layer.%d", i), mixed, x);
    }
    before = tfi_build_pool(&f->build, "first.before", before, TFI_POOL_CLS, f->dtype);
    mixed = tfi_build_pool(&f->build, "first.attention", mixed, TFI_POOL_CLS, f->dtype);
    *first = finish_layer(f, names, shape, shape->layers - 1, "first", mixed, before);
    return x;
}
