/* Opening a checkpoint: description (config, graph, weight forms) first, from headers alone; then the weights. tf_model_plan
 * stops in between. */
#include <stdio.h>
#include <string.h>

#include "api/handles.h"
#include "backend/cpu/cpu.h"
#include "backend/cuda/cuda.h"
#include "base/options.h"
#include "base/status.h"
#include "base/thread.h"
#include "graph/print.h"
#include "tokenizer/tokenizer.h"

enum { FORM_ALIGN = 256, THREADS_MAX = 1024 };

/* What oneDNN, its generated kernels and jansson hold after runs, beside what a program has that only links the library: 0.5 to
 * 1 MB measured for MiniLM and BERT-base on 2 threads (docs/benchmarks.md); many different lengths add 0.1 MB a kernel. */
#define THIRD_PARTY_BYTES ((int64_t)4 << 20)

/* ---- options ---- */

/* N of "cuda:N", 0 of "cuda"; -1: another device. */
static int cuda_number(const char *device)
{
    int number = 0;

    if (strncmp(device, "cuda", 4) != 0) return -1;
    if (!device[4]) return 0;
    if (device[4] != ':' || !device[5] || strlen(device) > 8) return -1;
    for (const char *p = device + 5; *p; p++) {
        if (*p < '0' || *p > '9') return -1;
        number = 10 * number + (*p - '0');
    }
    return number;
}

static tf_status read_options(const tf_model_options *options, tf_model_options *o)
{
    tf_status st;

    tf_model_options_init(o);
    if ((st = tfi_options_read(o, sizeof *o, options, "tf_model_options")) < 0 ||
        (st = tfi_option_int(&o->dtype, TF_DTYPE_AUTO, TF_DTYPE_AUTO, TF_DTYPE_FP16, "dtype")) < 0 ||
        (st = tfi_option_int(&o->quantization, TF_QUANTIZATION_NONE, TF_QUANTIZATION_NONE, TF_QUANTIZATION_FP8,
                             "quantization")) < 0 ||
        (st = tfi_option_int(&o->threads, tfi_thread_cores(), 1, THREADS_MAX, "threads")) < 0 ||
        (st = tfi_option_int(&o->gemm_timing, 1, 0, 1, "gemm_timing")) < 0)
        return st;
    if (o->memory_budget != TF_UNSET && o->memory_budget < 0)
        return tfi_fail(TF_STATUS_INVALID, "memory_budget is %lld", (long long)o->memory_budget);
    if (o->allocator && (!o->allocator->alloc || !o->allocator->free))
        return tfi_fail(TF_STATUS_INVALID, "the allocator lacks alloc or free");
    if (o->device && strcmp(o->device, "auto") != 0 && strcmp(o->device, "cpu") != 0 && cuda_number(o->device) < 0)
        return tfi_fail(TF_STATUS_INVALID, "device \"%s\" is none of \"auto\", \"cpu\", \"cuda\", \"cuda:N\"", o->device);
    if (o->quantization != TF_QUANTIZATION_NONE)
        return tfi_fail(TF_STATUS_UNSUPPORTED, "quantization \"%s\" is not built",
                        o->quantization == TF_QUANTIZATION_INT8 ? "int8" : "fp8");
    return TF_STATUS_OK;
}

static int is_cuda(const tf_model *m)
{
    return strncmp(m->backend->name, "cuda", 4) == 0;
}

/* What "auto" means for a checkpoint on this device: on a GPU what is stored, on a CPU whatever runs fast. */
static tf_dtype auto_dtype(const tf_model *m, tfi_dtype stored)
{
    if (stored != TFI_BF16 && stored != TFI_F16) return TF_DTYPE_FP32;
    if (is_cuda(m)) return stored == TFI_BF16 && m->backend->has_bf16 ? TF_DTYPE_BF16 : TF_DTYPE_FP16;
    return m->backend->has_bf16 ? TF_DTYPE_BF16 : TF_DTYPE_FP32;
}

static tf_status choose_dtype(tf_model *m, int32_t asked, const tfi_source *source, tfi_dtype *out)
{
    m->dtype = asked == TF_DTYPE_AUTO ? auto_dtype(m, tfi_model_stored_dtype(source)) : (tf_dtype)asked;
    if (m->dtype == TF_DTYPE_TF32) return tfi_fail(TF_STATUS_UNSUPPORTED, "dtype tf32 is not built");
    *out = m->dtype == TF_DTYPE_FP32 ? TFI_F32 : m->dtype == TF_DTYPE_BF16 ? TFI_BF16 : TFI_F16;
    return m->backend->supports(m->backend, *out);
}

/* The first GPU, or the CPU where it, its driver or cuBLASLt is missing or of no use: that is no failure, and leaves no error. */
static tf_status open_any(const tfi_cuda_options *cuda, const tfi_cpu_options *cpu, tfi_backend **out)
{
    char error[1024], why[1100];
    tf_status st;

    snprintf(error, sizeof error, "%s", tf_last_error());
    st = tfi_cuda_open(cuda, out);
    if (st != TF_STATUS_UNSUPPORTED && st != TF_STATUS_DEVICE) return st;
    if (cuda->log) {
        snprintf(why, sizeof why, "no GPU is used: %s", tf_last_error());
        cuda->log(cuda->log_user, TF_LOG_INFO, why);
    }
    (void)tfi_fail(st, "%s", error);
    return tfi_cpu_open(cpu, out);
}

static tf_status open_backend(tf_model *m, const tf_model_options *o)
{
    const int number = o->device ? cuda_number(o->device) : -1;
    const tfi_cuda_options cuda = {.memory = &m->memory,
                                   .device = number > 0 ? number : 0,
                                   .threads = o->threads,
                                   .library_folder = o->library_folder,
                                   .no_timing = !o->gemm_timing,
                                   .gemm_file = o->gemm_file,
                                   .log = m->log,
                                   .log_user = m->log_user};
    const tfi_cpu_options cpu = {.memory = &m->memory, .threads = o->threads, .features = tfi_cpu_features()};

    if (!o->device || strcmp(o->device, "auto") == 0) return open_any(&cuda, &cpu, &m->backend);
    return number >= 0 ? tfi_cuda_open(&cuda, &m->backend) : tfi_cpu_open(&cpu, &m->backend);
}

/* ---- description ---- */

static int64_t aligned(int64_t bytes)
{
    return (bytes + FORM_ALIGN - 1) & ~(int64_t)(FORM_ALIGN - 1);
}

static tf_status plan_weights(tf_model *m)
{
    const tfi_graph *g = &m->def.graph;
    tf_status st;

    if (!(m->forms = tfi_arena_alloc(&m->arena, (size_t)(g->weight_count + 1) * sizeof *m->forms))) return TF_STATUS_NOMEM;
    m->weight_bytes = 0;
    for (int32_t i = 0; i < g->weight_count; i++) {
        if ((st = m->backend->weight_form(m->backend, &g->weights[i], &m->forms[i])) < 0) return st;
        m->weight_bytes += aligned(m->forms[i].bytes);
    }
    return TF_STATUS_OK;
}

/* The checkpoint's tokenizer, or why there is none: the model works without, on ids. */
static tf_status open_tokenizer(tf_model *m, const tfi_files *files, const char *mecab_dictionary)
{
    tf_tokenizer_options options;

    tf_tokenizer_options_init(&options);
    options.log = m->log;
    options.log_user = m->log_user;
    options.mecab_dictionary = mecab_dictionary;
    m->tokenizer_status = tfi_tokenizer_open_files(files, &m->memory, &options, &m->tokenizer);
    if (m->tokenizer_status == TF_STATUS_OK || m->tokenizer_status == TF_STATUS_NOMEM) return m->tokenizer_status;
    snprintf(m->tokenizer_error, sizeof m->tokenizer_error, "%s",
             m->tokenizer_status == TF_STATUS_NOT_FOUND ? "the checkpoint has no tokenizer" : tf_last_error());
    return TF_STATUS_OK;
}

/* Everything but the weights' data. `source` is open afterwards, if it succeeds. */
static tf_status describe(tf_model *m, const tfi_files *files, const tf_model_options *o, tfi_source *source)
{
    tfi_files of_transformer;
    tfi_dtype dtype = TFI_F32;
    tf_status st;

    if ((st = tfi_sentence_read(&m->sentence, files, &m->arena, &m->memory)) < 0) return st;
    tfi_files_folder(&of_transformer, files, m->sentence.transformer_path);
    if ((st = tfi_source_open(source, &m->memory, &of_transformer)) < 0) return st;
    if (source->tensor_count == 0)
        return tfi_fail(TF_STATUS_NOT_FOUND, "%s: no model.safetensors or pytorch_model.bin, whole or in shards",
                        of_transformer.label);
    if ((st = open_backend(m, o)) < 0 || (st = choose_dtype(m, o->dtype, source, &dtype)) < 0 ||
        (st = tfi_model_build(source, &m->sentence, dtype, &m->arena, &m->def)) < 0 || (st = plan_weights(m)) < 0)
        return st;
    if (m->def.tasks & TF_TASK_GENERATE && (st = tfi_generation_read(&source->files, m->def.vocab_size, &m->arena, &m->memory,
                                                                     m->log, m->log_user, &m->generation)) < 0)
        return st;
    return open_tokenizer(m, &source->files, o->mecab_dictionary);
}

static tf_status make_model(const tf_model_options *o, tf_model **out)
{
    tfi_memory memory;

    tfi_memory_init(&memory, o->allocator, o->memory_budget);
    tf_model *m = tfi_zalloc(&memory, sizeof *m);
    if (!m) return TF_STATUS_NOMEM;
    tfi_memory_init(&m->memory, o->allocator, o->memory_budget);
    m->memory.used = (int64_t)sizeof *m; /* the handle counts, too */
    m->arena.memory = &m->memory;
    m->generation = (tfi_generation){.bos = -1, .pad = -1, .decoder_start = -1};
    atomic_init(&m->references, 1);
    m->log = o->log;
    m->log_user = o->log_user;
    *out = m;
    return TF_STATUS_OK;
}

/* ---- weights ---- */

typedef struct loading {
    const tf_model_options *options;
    int64_t done, total; /* bytes of the checkpoint's tensors */
} loading;

static int report(void *user, int64_t bytes)
{
    const loading *l = user;

    return l->options->progress ? l->options->progress(l->options->progress_user, l->done + bytes, l->total) : 0;
}

static int64_t source_bytes(const tfi_weight *w)
{
    int64_t bytes = 0;
    for (int i = 0; i < w->parts; i++)
        if (w->part[i]) bytes += tfi_tensor_elements(w->part[i]) * (int64_t)tfi_dtype_size(w->part[i]->dtype);
    return bytes;
}

static int is_on_device(const tfi_weight *w)
{
    for (int i = 0; i < w->parts; i++)
        if (w->part[i] && w->part[i]->device) return 1;
    return 0;
}

/* A tensor's bytes from its device to `out`, which is then as the tensor is but on the host. */
static tf_status bring(tf_model *m, const tfi_tensor *t, tfi_tensor *out)
{
    void *const data = tfi_alloc(&m->memory, t->span);

    *out = *t;
    out->data = data;
    out->device = 0;
    if (!data) return tfi_fail_prefix(TF_STATUS_NOMEM, "tensor %s, brought from its device: ", t->name);
    const tf_status st = t->span ? tfi_cuda_read((int)(t->device - 1), data, t->data, t->span) : TF_STATUS_OK;
    return st < 0 ? tfi_fail_prefix(st, "tensor %s: ", t->name) : st;
}

/* A weight with parts on a device: from there as they are, or by way of the host. */
static tf_status load_from_device(tf_model *m, const tfi_weight *w, const tfi_weight_form *form, const tfi_load_hook *hook)
{
    tfi_tensor tensors[TFI_WEIGHT_PARTS] = {{0}};
    tfi_weight brought = *w;
    int done = 0;
    tf_status st = m->backend->weight_copy ? m->backend->weight_copy(m->backend, w, form, &done) : TF_STATUS_OK;

    if (done && hook->report(hook->user, source_bytes(w)) != 0)
        st = tfi_fail(TF_STATUS_CANCELLED, "loading was ended by the progress callback");
    if (st < 0 || done) return st;
    for (int i = 0; i < w->parts && st == TF_STATUS_OK; i++) {
        if (!w->part[i] || !w->part[i]->device) continue;
        st = bring(m, w->part[i], &tensors[i]);
        brought.part[i] = &tensors[i];
    }
    if (st == TF_STATUS_OK) st = m->backend->weight_prepare(m->backend, &brought, form, hook);
    for (int i = 0; i < w->parts; i++) tfi_free(&m->memory, (void *)tensors[i].data, tensors[i].span);
    return st;
}

static tf_status load_weight(tf_model *m, const tfi_weight *w, const tfi_weight_form *form, const tfi_load_hook *hook)
{
    return is_on_device(w) ? load_from_device(m, w, form, hook) : m->backend->weight_prepare(m->backend, w, form, hook);
}

static tf_status load_weights(tf_model *m, const tf_model_options *o)
{
    const tfi_graph *g = &m->def.graph;
    loading l = {.options = o};
    const tfi_load_hook hook = {report, &l};
    int64_t offset = 0;
    tf_status st;

    if (!(m->weights = m->backend->alloc(m->backend, &m->memory, m->weight_bytes)))
        return tfi_fail_prefix(TF_STATUS_NOMEM, "%lld bytes of weights: ", (long long)m->weight_bytes);
    for (int32_t i = 0; i < g->weight_count; i++) l.total += source_bytes(&g->weights[i]);
    for (int32_t i = 0; i < g->weight_count; i++) {
        const int lent = m->forms[i].data != NULL;
        if (!lent) m->forms[i].data = (char *)m->weights + offset;
        offset += aligned(m->forms[i].bytes);
        if (!lent && (st = load_weight(m, &g->weights[i], &m->forms[i], &hook)) < 0) return st;
        l.done += source_bytes(&g->weights[i]);
    }
    if ((st = m->backend->load_end(m->backend)) < 0) return st;
    if (report(&l, 0) != 0) return tfi_fail(TF_STATUS_CANCELLED, "the progress callback ended tf_model_open");
    return TF_STATUS_OK;
}

static tf_status open_source(const tf_source *from, const tf_model_options *options, tf_model **out)
{
    tf_model_options o;
    tfi_source source = {0};
    tfi_files files;
    tf_model *m;
    tf_status st;

    if ((st = tfi_files_of(&files, from)) < 0 || (st = read_options(options, &o)) < 0 || (st = make_model(&o, &m)) < 0)
        return st;
    if ((st = describe(m, &files, &o, &source)) == TF_STATUS_OK) st = load_weights(m, &o);
    /* The weights are resident in their own form: nothing of the source is needed any more, but for what is lent. */
    for (int32_t i = 0; i < m->def.graph.weight_count; i++)
        memset(m->def.graph.weights[i].part, 0, sizeof m->def.graph.weights[i].part);
    tfi_source_close(&source);
    tfi_sentence_close(&m->sentence);
    if (st == TF_STATUS_OK) *out = m;
    else tfi_model_release(m);
    return st;
}

tf_status tf_model_open_source(const tf_source *source, const tf_model_options *options, tf_model **out)
{
    tf_source s;
    tf_status st;

    if (out) *out = NULL;
    if ((st = tfi_source_copy(&s, source)) < 0) return st;
    st = out ? open_source(&s, options, out) : tfi_fail(TF_STATUS_INVALID, "out must not be NULL");
    if (st == TF_STATUS_OK && s.borrow == 1) (*out)->lent = s;
    else tfi_source_released(&s);
    return st;
}

tf_status tf_model_open(const char *path, const tf_model_options *options, tf_model **out)
{
    tfi_directory directory;
    tfi_files files;
    tf_status st;

    if (!path || !out) return tfi_fail(TF_STATUS_INVALID, "path and out must not be NULL");
    *out = NULL;
    return (st = tfi_files_directory(&files, &directory, path)) < 0 ? st : tf_model_open_source(&files.source, options, out);
}

void tfi_model_release(tf_model *m)
{
    if (atomic_fetch_sub(&m->references, 1) > 1) return;
    tf_tokenizer_close(m->tokenizer);
    if (m->backend) {
        m->backend->free(m->backend, &m->memory, m->weights, m->weight_bytes);
        m->backend->close(m->backend);
    }
    tfi_arena_close(&m->arena);
    const tf_source lent = m->lent;
    tfi_memory memory = m->memory; /* outlives the block it is in */
    tfi_free(&memory, m, sizeof *m);
    tfi_source_released(&lent);
}

void tf_model_close(tf_model *m)
{
    if (m) tfi_model_release(m);
}

/* ---- what a model says of itself ---- */

tf_status tf_model_plan(const char *path, const tf_model_options *options, const tf_session_options *session, tf_plan *out)
{
    tf_plan p = {.struct_size = sizeof p, .third_party_bytes = THIRD_PARTY_BYTES};
    tf_model_options o;
    tfi_directory directory;
    tfi_source source = {0};
    tfi_files files;
    tf_model *m;
    tf_status st;

    if (!path || !out) return tfi_fail(TF_STATUS_INVALID, "path and out must not be NULL");
    if ((st = tfi_files_directory(&files, &directory, path)) < 0 || (st = read_options(options, &o)) < 0 ||
        (st = make_model(&o, &m)) < 0)
        return st;
    if ((st = describe(m, &files, &o, &source)) == TF_STATUS_OK &&
        (st = tfi_session_plan(m, session, &p.session_bytes, &p.kv_bytes)) == TF_STATUS_OK) {
        p.weight_bytes = m->weight_bytes;
        p.load_bytes = m->backend->load_bytes(m->backend);
    }
    const int64_t with_sources = atomic_load(&m->memory.used);
    tfi_source_close(&source);
    tfi_sentence_close(&m->sentence);
    p.model_bytes = atomic_load(&m->memory.used);
    p.load_bytes += with_sources - p.model_bytes;
    p.total_bytes = p.weight_bytes + p.mapped_bytes + p.model_bytes + p.session_bytes;
    tfi_model_release(m);
    return st == TF_STATUS_OK ? tfi_result_write(out, &p, sizeof p, "tf_plan") : st;
}

/* Both graphs, one behind the other. */
static int64_t print_graphs(const tfi_model *d, int32_t format, char *text, int64_t capacity)
{
    int64_t (*const print)(const tfi_graph *, char *, int64_t) = format == TF_GRAPH_DOT ? tfi_graph_dot : tfi_graph_text;
    const int64_t first = print(&d->graph, text, capacity), left = first < capacity ? capacity - first : 0;

    return d->step.op_count ? first + print(&d->step, left ? text + first : NULL, left) : first;
}

static int32_t columns(const tf_model *m, int32_t value)
{
    return value < 0 ? 0 : (int32_t)m->def.graph.values[value].cols;
}

/* Tokens after which tf_embed truncates: sentence-transformers' limit, else the tokenizer's, never more than the model takes. */
static int32_t embedding_tokens(const tf_model *m)
{
    tf_tokenizer_info info = {.struct_size = sizeof info};
    int32_t limit = m->sentence.max_tokens;

    if (!limit && m->tokenizer && tf_tokenizer_get_info(m->tokenizer, &info) == TF_STATUS_OK) limit = info.model_max_length;
    return limit > 0 && limit < m->def.max_input_tokens ? limit : m->def.max_input_tokens;
}

/* Ids a generated sequence may have: those that can be read, and the last one. */
static int32_t sequence_tokens(const tfi_model *d)
{
    const int32_t read = d->max_context_tokens;
    return read == 0 || read == INT32_MAX ? read : read + 1;
}

tf_status tf_model_get_info(const tf_model *m, tf_model_info *info)
{
    if (!m) return tfi_fail(TF_STATUS_INVALID, "the model must not be NULL");
    const tfi_model *d = &m->def;
    const tf_model_info now = {
        .struct_size = sizeof now,
        .family = d->family,
        .architecture = d->architecture,
        .device = m->backend->name,
        .dtype = (int32_t)m->dtype,
        .tasks = d->tasks,
        .layers = d->layers,
        .heads = d->heads,
        .head_size = d->head_size,
        .width = d->width,
        .input_width = d->input_width,
        .vocab_size = d->vocab_size,
        .type_count = d->type_count,
        .max_input_tokens = d->max_input_tokens,
        .embedding_width = columns(m, d->embedding),
        .embedding_tokens = embedding_tokens(m),
        .pooled_width = columns(m, d->pooled),
        .token_logits = columns(m, d->token_logits),
        .sequence_logits = columns(m, d->sequence_logits),
        .labels = d->labels,
        .prompts = m->sentence.prompts,
        .default_prompt = m->sentence.default_prompt,
        .threads = m->backend->threads,
        .has_encoder = d->has_encoder,
        .decoder_layers = d->decoder_layers,
        .max_context_tokens = sequence_tokens(d),
        .bos_id = m->generation.bos,
        .eos_id = m->generation.options.eos_count > 0 ? m->generation.options.eos_ids[0] : -1,
        .pad_id = m->generation.pad,
        .decoder_start_id = m->generation.decoder_start,
        .parameters = d->parameters,
        .label_names = d->label_names,
        .prompt_names = m->sentence.prompt_names,
        .prompt_texts = m->sentence.prompt_texts,
    };
    return tfi_result_write(info, &now, sizeof now, "tf_model_info");
}

tf_status tf_model_tokenizer(const tf_model *m, const tf_tokenizer **out)
{
    if (!m || !out) return tfi_fail(TF_STATUS_INVALID, "model and out must not be NULL");
    *out = m->tokenizer;
    return m->tokenizer ? TF_STATUS_OK : tfi_fail(m->tokenizer_status, "%s", m->tokenizer_error);
}

tf_status tf_model_graph(const tf_model *m, int32_t format, char *text, int64_t capacity, int64_t *size)
{
    if (!m || !size || capacity < 0 || (!text && capacity > 0))
        return tfi_fail(TF_STATUS_INVALID, "tf_model_graph: a pointer is NULL or capacity is negative");
    if (format != TF_GRAPH_TEXT && format != TF_GRAPH_DOT)
        return tfi_fail(TF_STATUS_INVALID, "tf_model_graph: format %d", (int)format);
    *size = print_graphs(&m->def, format, text, capacity);
    if (*size <= capacity) return TF_STATUS_OK;
    return tfi_fail(TF_STATUS_TOO_SMALL, "tf_model_graph: %lld bytes are needed, the buffer has %lld", (long long)*size,
                    (long long)capacity);
}

tf_status tfi_model_needs(const tf_model *m, int32_t task, const char *call)
{
    if (m->def.tasks & task) return TF_STATUS_OK;
    return tfi_fail(TF_STATUS_UNSUPPORTED, "%s: %s has no head for it", call, m->def.architecture);
}
