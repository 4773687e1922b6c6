#include <math.h>

#include "api/handles.h"
#include "base/options.h"
#include "base/status.h"

static tf_activation default_activation(const tfi_model *def)
{
    if (def->problem == TFI_PROBLEM_REGRESSION) return TF_ACTIVATION_NONE;
    if (def->problem == TFI_PROBLEM_MULTI_LABEL || def->labels == 1) return TF_ACTIVATION_SIGMOID;
    return TF_ACTIVATION_SOFTMAX;
}

static void activate(float *row, int64_t n, tf_activation activation)
{
    float top = row[0];
    double sum = 0;

    if (activation == TF_ACTIVATION_SIGMOID)
        for (int64_t i = 0; i < n; i++) row[i] = 1.0f / (1.0f + expf(-row[i]));
    if (activation != TF_ACTIVATION_SOFTMAX) return;
    for (int64_t i = 1; i < n; i++) top = fmaxf(top, row[i]);
    for (int64_t i = 0; i < n; i++) sum += row[i] = expf(row[i] - top);
    for (int64_t i = 0; i < n; i++) row[i] = (float)(row[i] / sum);
}

tf_status tf_classify(tf_session *s, const tf_input *in, const tf_classify_options *options, float *logits, float *scores)
{
    tf_classify_options o;
    tf_tokenize_options tokenize;
    tfi_batch b;
    tf_status st;

    if (!s || (!logits && !scores)) return tfi_fail(TF_STATUS_INVALID, "the session and one of logits and scores must not be NULL");
    const tf_model *m = tfi_session_model(s);
    if ((st = tfi_model_needs(m, TF_TASK_CLASSIFY, "tf_classify")) < 0) return st;
    tf_classify_options_init(&o);
    if ((st = tfi_options_read(&o, sizeof o, options, "tf_classify_options")) < 0) return st;
    if ((st = tfi_option_int(&o.activation, (int32_t)default_activation(&m->def), TF_ACTIVATION_NONE, TF_ACTIVATION_SOFTMAX,
                             "tf_classify: activation")) < 0 ||
        (st = tfi_option_int(&o.truncate, 0, 0, 1, "tf_classify: truncate")) < 0)
        return st;
    tf_tokenize_options_init(&tokenize);
    tokenize.truncation = o.truncate ? TF_TRUNCATION_LONGEST_FIRST : TF_TRUNCATION_NONE;
    tokenize.max_length = o.truncate ? m->def.max_input_tokens : TF_UNSET;
    if ((st = tfi_batch_open(&b, m, in, &tokenize)) == TF_STATUS_OK) {
        const int64_t n = m->def.graph.values[m->def.sequence_logits].cols, count = b.count;
        float *first = logits ? logits : scores;
        st = tfi_session_run(s, &b, &(tfi_output){m->def.sequence_logits, first, n}, 1, NULL, 0);
        for (int64_t i = 0; st == TF_STATUS_OK && scores && i < count; i++) {
            for (int64_t k = 0; k < n; k++) scores[i * n + k] = first[i * n + k];
            activate(scores + i * n, n, (tf_activation)o.activation);
        }
    }
    tfi_batch_close(&b);
    if (st == TF_STATUS_OK) tfi_session_count_call(s);
    return st;
}
