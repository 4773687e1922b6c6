#define _GNU_SOURCE
#include "backend/cpu/cpu.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "base/thread.h"

/* On each worker as it starts: oneDNN then runs on this thread alone. Other threads' settings stay as they are. The function is
 * that of whichever OpenMP runtime oneDNN was linked with; a oneDNN without one has nothing to be told. */
static void begin_worker(void)
{
    void (*set_threads)(int);

    *(void **)&set_threads = dlsym(RTLD_DEFAULT, "omp_set_num_threads");
    if (set_threads) set_threads(1);
}

static tf_status supports(tfi_backend *b, tfi_dtype dtype)
{
    const tfi_cpu *cpu = (const tfi_cpu *)b;

    if (dtype == TFI_F32 || (dtype == TFI_BF16 && (b->has_bf16 || cpu->reference))) return TF_STATUS_OK;
    if (dtype == TFI_BF16)
        return tfi_fail(TF_STATUS_UNSUPPORTED,
                        "bf16 on cpu: this processor has no bf16 instructions (AVX512_BF16) that oneDNN uses");
    return tfi_fail(TF_STATUS_UNSUPPORTED, "%s on cpu: only fp32 and bf16 are supported", tfi_dtype_name(dtype));
}

/* Weights go straight from the source's pages to their form. */
static int64_t load_bytes(tfi_backend *b)
{
    (void)b;
    return 0;
}

static void *weights_alloc(tfi_backend *b, tfi_memory *memory, int64_t bytes)
{
    (void)b;
    return tfi_alloc(memory, (size_t)bytes);
}

static void weights_free(tfi_backend *b, tfi_memory *memory, void *p, int64_t bytes)
{
    (void)b;
    tfi_free(memory, p, (size_t)bytes);
}

static tf_status load_end(tfi_backend *b)
{
    (void)b;
    return TF_STATUS_OK;
}

static void cpu_close(tfi_backend *b)
{
    tfi_cpu *cpu = (tfi_cpu *)b;

    tfi_pool_close(cpu->pool);
    tfi_linear_close(cpu->linear);
    tfi_free(cpu->memory, cpu, sizeof *cpu);
}

tf_status tfi_cpu_open(const tfi_cpu_options *o, tfi_backend **out)
{
    const int threads = o->threads ? o->threads : tfi_thread_cores();
    tfi_cpu *cpu;
    tf_status status;

    *out = NULL;
    if (!(cpu = tfi_zalloc(o->memory, sizeof *cpu))) return TF_STATUS_NOMEM;
    cpu->memory = o->memory;
    cpu->features = o->features;
    cpu->reference = o->reference;
    cpu->base = (tfi_backend){.name = "cpu",
                              .threads = threads,
                              .supports = supports,
                              .alloc = weights_alloc,
                              .free = weights_free,
                              .weight_form = tfi_cpu_weight_form,
                              .load_bytes = load_bytes,
                              .weight_prepare = tfi_cpu_weight_prepare,
                              .load_end = load_end,
                              .program_open = tfi_cpu_program_open,
                              .program_bytes = tfi_cpu_program_bytes,
                              .program_close = tfi_cpu_program_close,
                              .run = tfi_cpu_run,
                              .store_open = tfi_cpu_store_open,
                              .store_bytes = tfi_cpu_store_bytes,
                              .store_close = tfi_cpu_store_close,
                              .slot_set = tfi_cpu_slot_set,
                              .close = cpu_close};
    if ((status = tfi_pool_open(o->memory, threads, begin_worker, &cpu->pool)) < 0) goto fail;
    if ((status = tfi_linear_open(o->memory, threads, o->features, &cpu->linear)) < 0) goto fail;
    cpu->base.has_bf16 = tfi_linear_layout(cpu->linear, TFI_BF16) != TFI_LAYOUT_PLAIN;
    *out = &cpu->base;
    return TF_STATUS_OK;
fail:
    cpu_close(&cpu->base);
    return status;
}

void tfi_cpu_error_keep(tfi_cpu_error *e, tf_status status)
{
    if (atomic_exchange(&e->taken, 1)) return;
    e->status = status;
    snprintf(e->text, sizeof e->text, "%s", tf_last_error());
}

tf_status tfi_cpu_error_raise(const tfi_cpu_error *e)
{
    return e->taken ? tfi_fail(e->status, "%s", e->text) : TF_STATUS_OK;
}
