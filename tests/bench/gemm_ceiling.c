/* The matrix library's own speed at BERT-base's four products, so that a share of the ceiling can be stated: oneDNN matmul,
 * weights in the layout it asks for, reordered beforehand, one primitive a thread over a share of the rows (no OpenMP team).
 *
 * gemm_ceiling ROWS THREADS SECONDS    prints fp32 GFLOP/s, bf16 GFLOP/s (-1 where a type is not there), GB/s read from memory
 * cc -O3 -march=native -o gemm_ceiling gemm_ceiling.c -ldnnl -lpthread -lgomp */
#include <oneapi/dnnl/dnnl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void omp_set_num_threads(int n);

enum { PRODUCTS = 4, LAYERS = 3 }; /* layers: weights larger than the caches */
static const int64_t shapes[PRODUCTS][2] = {{768, 2304}, {768, 768}, {768, 3072}, {3072, 768}}; /* inner, outer */

typedef struct worker {
    pthread_t thread;
    dnnl_data_type_t type;
    int64_t rows;
    double seconds, flops; /* how long to run; out: operations a second */
} worker;

static pthread_barrier_t all_ready;
static dnnl_engine_t engine;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void need(dnnl_status_t status, const char *what)
{
    if (status == dnnl_success) return;
    fprintf(stderr, "gemm_ceiling: %s: oneDNN status %d\n", what, (int)status);
    exit(1);
}

/* Memory of `desc` filled with small numbers. */
static dnnl_memory_t memory_of(const dnnl_memory_desc_t *desc)
{
    dnnl_memory_t memory;
    void *data;
    const size_t size = dnnl_memory_desc_get_size(desc);

    if (posix_memalign(&data, 4096, size)) exit(1);
    memset(data, 0x3c, size); /* 0.0115 in either type */
    need(dnnl_memory_create(&memory, desc, engine, data), "memory");
    return memory;
}

typedef struct product {
    dnnl_primitive_t primitive;
    dnnl_exec_arg_t args[LAYERS][3];
} product;

/* 0 where the type is not implemented. */
static int product_open(product *p, dnnl_data_type_t type, int64_t rows, const int64_t shape[2])
{
    const dnnl_dims_t x = {rows, shape[0]}, w = {shape[0], shape[1]}, y = {rows, shape[1]};
    dnnl_memory_desc_t dx, dw, dy;
    dnnl_matmul_desc_t desc;
    dnnl_primitive_desc_t pd;

    need(dnnl_memory_desc_init_by_tag(&dx, 2, x, type, dnnl_ab), "x");
    need(dnnl_memory_desc_init_by_tag(&dw, 2, w, type, dnnl_format_tag_any), "w");
    need(dnnl_memory_desc_init_by_tag(&dy, 2, y, type, dnnl_ab), "y");
    need(dnnl_matmul_desc_init(&desc, &dx, &dw, NULL, &dy), "matmul");
    if (dnnl_primitive_desc_create(&pd, &desc, NULL, engine, NULL) != dnnl_success) return 0;
    need(dnnl_primitive_create(&p->primitive, pd), "primitive");
    const dnnl_memory_t mx = memory_of(&dx), my = memory_of(&dy);
    for (int i = 0; i < LAYERS; i++) {
        p->args[i][0] = (dnnl_exec_arg_t){DNNL_ARG_SRC, mx};
        p->args[i][1] =
            (dnnl_exec_arg_t){DNNL_ARG_WEIGHTS, memory_of(dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0))};
        p->args[i][2] = (dnnl_exec_arg_t){DNNL_ARG_DST, my};
    }
    dnnl_primitive_desc_destroy(pd);
    return 1;
}

static void *work(void *arg)
{
    worker *w = arg;
    product products[PRODUCTS];
    dnnl_stream_t stream;
    double start = 0, done = 0;

    omp_set_num_threads(1);
    need(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags), "stream");
    for (int i = 0; i < PRODUCTS; i++)
        if (!product_open(&products[i], w->type, w->rows, shapes[i])) w->flops = -1;
    for (int pass = -1; w->flops >= 0 && (pass < 1 || now() - start < w->seconds); pass++) {
        if (pass == 0) pthread_barrier_wait(&all_ready); /* pass -1 warms up */
        if (pass == 0) start = now();
        for (int layer = 0; layer < LAYERS; layer++)
            for (int i = 0; i < PRODUCTS; i++) {
                need(dnnl_primitive_execute(products[i].primitive, stream, 3, products[i].args[layer]), "execute");
                if (pass >= 0) done += 2.0 * (double)w->rows * (double)shapes[i][0] * (double)shapes[i][1];
            }
        need(dnnl_stream_wait(stream), "wait");
    }
    if (w->flops >= 0) w->flops = done / (now() - start);
    return NULL;
}

static double ceiling(dnnl_data_type_t type, int64_t rows, int threads, double seconds)
{
    worker workers[64] = {0};
    double sum = 0;

    pthread_barrier_init(&all_ready, NULL, (unsigned)threads);
    for (int i = 0; i < threads; i++) {
        workers[i] = (worker){.type = type, .rows = rows / threads, .seconds = seconds};
        pthread_create(&workers[i].thread, NULL, work, &workers[i]);
    }
    for (int i = 0; i < threads; i++) {
        pthread_join(workers[i].thread, NULL);
        sum = workers[i].flops < 0 ? -1e9 : sum + workers[i].flops;
    }
    return sum < 0 ? -1 : sum * 1e-9;
}

static void *read_memory(void *arg)
{
    enum { SIZE = 256 << 20, PASSES = 8 };
    worker *w = arg;
    uint64_t *data = malloc(SIZE), sum = 0;

    if (!data) exit(1);
    memset(data, 1, SIZE);
    pthread_barrier_wait(&all_ready);
    const double start = now();
    for (int pass = 0; pass < PASSES; pass++) {
        for (size_t i = 0; i < SIZE / sizeof *data; i++) sum += data[i];
        __asm__ volatile("" ::"r"(data) : "memory"); /* each pass reads again */
    }
    w->flops = (double)SIZE * PASSES / (now() - start) + (double)(sum == 1); /* the sum is used, so that it is computed */
    free(data);
    return NULL;
}

static double bandwidth(int threads)
{
    worker workers[64] = {0};
    double sum = 0;

    pthread_barrier_init(&all_ready, NULL, (unsigned)threads);
    for (int i = 0; i < threads; i++) pthread_create(&workers[i].thread, NULL, read_memory, &workers[i]);
    for (int i = 0; i < threads; i++) {
        pthread_join(workers[i].thread, NULL);
        sum += workers[i].flops;
    }
    return sum * 1e-9;
}

int main(int argc, char **argv)
{
    const int64_t rows = argc > 1 ? atoll(argv[1]) : 1024;
    const int threads = argc > 2 ? atoi(argv[2]) : 2;
    const double seconds = argc > 3 ? atof(argv[3]) : 1;

    if (rows < threads || threads < 1 || threads > 64) return fprintf(stderr, "usage: gemm_ceiling ROWS THREADS SECONDS\n"), 2;
    need(dnnl_engine_create(&engine, dnnl_cpu, 0), "engine");
    const double fp32 = ceiling(dnnl_f32, rows, threads, seconds), bf16 = ceiling(dnnl_bf16, rows, threads, seconds);
    printf("%.1f %.1f %.1f\n", fp32, bf16, bandwidth(threads));
    return 0;
}
