#include <string.h>

#include "api/handles.h"
#include "base/options.h"
#include "base/status.h"

typedef struct wanted {
    tfi_output *outputs; /* [layer_count + 3] */
    int32_t count;
} wanted;

static void want(wanted *w, int32_t value, float *dst, int64_t stride)
{
    w->outputs[w->count++] = (tfi_output){value, dst, stride};
}

static tf_status check_output(const tfi_model *def, const tf_encode_output *o)
{
    if (o->layer_count < 0 || o->layer_count > TFI_OUTPUTS_MAX - 3)
        return tfi_fail(TF_STATUS_INVALID, "tf_encode: layer_count is %lld, outside [0, %d]", (long long)o->layer_count, TFI_OUTPUTS_MAX - 3);
    if ((o->layer_count > 0) != (o->hidden != NULL) || (o->layer_count > 0 && !o->layers))
        return tfi_fail(TF_STATUS_INVALID, "tf_encode: hidden, layers and layer_count go together");
    for (int64_t i = 0; i < o->layer_count; i++)
        if (o->layers[i] < 0 || o->layers[i] > def->layers)
            return tfi_fail(TF_STATUS_INVALID, "tf_encode: hidden state %d is outside [0, %d]", (int)o->layers[i], (int)def->layers);
    if (o->pooled && def->pooled < 0)
        return tfi_fail(TF_STATUS_UNSUPPORTED, "tf_encode: no pooled output: the checkpoint has no %s",
                        def->pooled_missing ? def->pooled_missing : "pooler");
    if (o->token_logits && def->token_logits < 0)
        return tfi_fail(TF_STATUS_UNSUPPORTED, "tf_encode: %s has no logits for tokens", def->architecture);
    if (o->sequence_logits && def->sequence_logits < 0)
        return tfi_fail(TF_STATUS_UNSUPPORTED, "tf_encode: %s has no logits for sequences", def->architecture);
    if (o->rows && (!o->token_logits || o->row_count < 0))
        return tfi_fail(TF_STATUS_INVALID, "tf_encode: rows go with token_logits and a row_count");
    return TF_STATUS_OK;
}

static tf_status check_rows(const tfi_batch *b, const tf_encode_output *o)
{
    int64_t previous = -1;

    for (int64_t i = 0; o->rows && i < o->row_count; i++) {
        if (o->rows[i] <= previous || o->rows[i] >= b->starts[b->count])
            return tfi_fail(TF_STATUS_INVALID, "tf_encode: rows[%lld] is %lld; ascending numbers below %lld are expected", (long long)i,
                            (long long)o->rows[i], (long long)b->starts[b->count]);
        previous = o->rows[i];
    }
    return TF_STATUS_OK;
}

tf_status tf_encode(tf_session *s, const tf_input *in, const tf_encode_output *out)
{
    tfi_output outputs[TFI_OUTPUTS_MAX];
    wanted w = {outputs, 0};
    tf_encode_output o;
    tfi_batch b;
    tf_status st;

    if (!s || !out) return tfi_fail(TF_STATUS_INVALID, "session and out must not be NULL");
    const tf_model *m = tfi_session_model(s);
    const tfi_model *def = &m->def;
    tf_encode_output_init(&o);
    if ((st = tfi_options_read(&o, sizeof o, out, "tf_encode_output")) < 0) return st;
    if (o.layer_count == TF_UNSET) o.layer_count = 0;
    if (o.row_count == TF_UNSET) o.row_count = o.rows ? -1 : 0;
    if ((st = check_output(def, &o)) < 0) return st;
    if ((st = tfi_batch_open(&b, m, in, NULL)) == TF_STATUS_OK && (st = check_rows(&b, &o)) == TF_STATUS_OK) {
        const int64_t tokens = b.count ? b.starts[b.count] : 0;
        for (int64_t i = 0; i < o.layer_count; i++) want(&w, def->hidden[o.layers[i]], o.hidden + i * tokens * def->width, def->width);
        if (o.pooled) want(&w, def->pooled, o.pooled, def->graph.values[def->pooled].cols);
        if (o.token_logits) want(&w, def->token_logits, o.token_logits, def->graph.values[def->token_logits].cols);
        if (o.sequence_logits) want(&w, def->sequence_logits, o.sequence_logits, def->graph.values[def->sequence_logits].cols);
        st = tfi_session_run(s, &b, outputs, w.count, o.rows, o.row_count);
    }
    tfi_batch_close(&b);
    if (st == TF_STATUS_OK) tfi_session_count_call(s);
    return st;
}
